from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace
from sqlalchemy import insert, select, text

from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.prices import save_prices
from aigate.keeper.db.tables import attempts, calls, leases, usage_totals, windows
from aigate.keeper.db.upkeep import resolve_attempt, write_off_leases
from aigate.keeper.ledger import verify
from aigate.keeper.retention import remove_older
from tests.keeper.conftest import write_whole


def rows(database: Database, table: Any) -> list[Any]:
    return database.read_now(lambda connection: connection.execute(select(table)).all())


def counts(database: Database) -> dict[str, int]:
    return {kind: count for kind, count in database.read_now(verify).counts.items() if count}


@pytest.fixture
def unsettled(database: Database, traffic: Any) -> Database:
    batch = Batch()
    batch.add_attempt(traffic.intent(1), traffic.settled(1))
    batch.add_call(traffic.call_end(1))
    batch.add_unsettled(traffic.intent(50, hold=777, tag="t"))
    database.write_now(save_prices, [traffic.price], 1)
    database.write_now(write_whole, batch)
    return database


@pytest.mark.parametrize(("cost", "spent"), [(500, 500), (None, 0), (900, 900)])
def test_an_unsettled_attempt_is_resolved_once_and_everything_adds_up(unsettled: Database, traffic: Any, cost: int | None, spent: int) -> None:
    before = {(row.budget_id, row.window): row for row in rows(unsettled, windows)}
    assert unsettled.write_now(resolve_attempt, "att_0050_1", cost, 2) == 777
    for row in rows(unsettled, windows):
        was = before[row.budget_id, row.window]
        if was.reserved_nanousd:
            assert (row.spent_nanousd - was.spent_nanousd, row.reserved_nanousd) == (spent, 0)
    assert counts(unsettled) == {"resolved": 1, "no_call": 1} | ({"overrun": 1} if spent > 777 else {})
    assert sum(row.cost_nanousd for row in rows(unsettled, usage_totals)) == traffic.settled(1).cost_nanousd + spent
    assert unsettled.write_now(resolve_attempt, "att_0050_1", 1, 2) is None


@pytest.mark.parametrize("attempt_id", ["att_0001_1", "att_none"])
def test_only_an_unsettled_attempt_can_be_resolved(unsettled: Database, attempt_id: str) -> None:
    assert unsettled.write_now(resolve_attempt, attempt_id, 1, 2) is None


def test_leases_are_written_off_only_of_a_journal_that_has_ended(unsettled: Database) -> None:
    def lease(connection: Any) -> None:
        connection.execute(insert(leases).values(journal_id="jrn_a", budget_id=1, window="all", amount_nanousd=40))
        connection.execute(text("UPDATE windows SET leased_nanousd = 40 WHERE budget_id = 1"))
        connection.execute(
            text("INSERT INTO journals VALUES ('jrn_a', '', 1, 1, 1, 1, 1, :sealed, 'unreadable')"), {"sealed": None}
        )

    unsettled.write_now(lease)
    assert unsettled.write_now(write_off_leases, "jrn_a") == 0
    unsettled.write_now(lambda connection: connection.execute(text("UPDATE journals SET sealed_ms = 5")))
    assert unsettled.write_now(write_off_leases, "jrn_a") == 40
    assert rows(unsettled, leases) == [] and not any(row.leased_nanousd for row in rows(unsettled, windows))


def test_old_months_are_removed_but_their_sums_and_what_is_reserved_stay(unsettled: Database, traffic: Any) -> None:
    later_ms = 1_710_000_000_000  # March 2024
    batch = Batch()
    for n in range(60, 65):
        batch.add_attempt(replace(traffic.intent(n), sent_ms=later_ms), traffic.settled(n))
        batch.add_call(replace(traffic.call_end(n), started_ms=later_ms))
    unsettled.write_now(write_whole, batch)
    sums = rows(unsettled, usage_totals), rows(unsettled, windows)
    asyncio.run(remove_older(unsettled, later_ms))
    assert [row.call_id for row in rows(unsettled, calls)] == [f"req_{n:04d}" for n in range(60, 65)]
    assert [row.attempt_id for row in rows(unsettled, attempts)] == ["att_0050_1", *(f"att_{n:04d}_1" for n in range(60, 65))]
    assert (rows(unsettled, usage_totals), rows(unsettled, windows)) == sums
    assert unsettled.read_now(verify).is_sound
