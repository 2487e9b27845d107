from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, MetaData, insert, select

from aigate.keeper.db.engine import Database, _create_engine, open_database
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.migrations.run import upgrade
from aigate.keeper.db.prices import save_prices
from aigate.keeper.db.tables import attempts, budgets, calls, journals, prices, usage_days, usage_totals, windows
from aigate.keeper.ledger import verify
from tests.databases import PostgresServer
from tests.keeper.conftest import DATABASES, new_url, write_whole

KEPT = (attempts, calls, usage_totals, prices, journals)


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer | None) -> Iterator[str]:
    """These tests change its schema."""
    with new_url(request.param, tmp_path, postgres_server) as url:
        yield url


def rows(database: Database, table: Any) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in database.read_now(lambda connection: connection.execute(select(table)).all()))


def test_a_ledger_from_before_money_is_summed_up(database: Database, url: str, traffic: Any) -> None:
    batch = Batch()
    for n in range(20):
        batch.add_attempt(traffic.intent(n, tag="a" if n % 3 else None, key_id=f"key_{n % 2}"), traffic.settled(n))
        batch.add_call(traffic.call_end(n, tag="a" if n % 3 else None, key_id=f"key_{n % 2}"))
    batch.add_unsettled(traffic.intent(50, hold=777))
    database.write_now(save_prices, [traffic.price], 1)
    database.write_now(write_whole, batch)
    ledger = {table.name: rows(database, table) for table in KEPT}
    sums = rows(database, usage_days), [row[1:] for row in rows(database, windows)]

    def go_back(connection: Connection) -> None:
        everything = MetaData()
        everything.reflect(connection)
        everything.drop_all(connection)
        upgrade(connection, "0001")
        for table in KEPT:
            if ledger[table.name]:
                connection.execute(insert(table), [dict(zip(table.columns.keys(), row, strict=True)) for row in ledger[table.name]])

    old = Database(_create_engine(url))
    old.write_now(go_back)
    old.close()
    upgraded = open_database(url)
    assert upgraded.read_now(verify).is_sound
    assert (rows(upgraded, usage_days), [row[1:] for row in sorted(rows(upgraded, windows), key=lambda row: row[1:])]) == (sums[0], sorted(sums[1]))
    assert {(row[1], row[3]) for row in rows(upgraded, budgets)} == {
        ("account", "acc_default"), ("sub_account", ""), ("key", "key_0"), ("key", "key_1"), ("tag", ""), ("tag", "a"),
    }  # fmt: skip
    upgraded.close()
