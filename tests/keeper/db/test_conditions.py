"""No query that a call, a grant or a shipped batch needs looks through a table: what it costs must not grow with the number of owners."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from aigate.core.account import Cap, SubAccount
from aigate.core.budget import Want
from aigate.core.client_key import ClientKey
from aigate.journal.records import ADOPTED, RETURNED
from aigate.keeper.accounts import _add_sub_account
from aigate.keeper.db.accounts import add_account_if_missing
from aigate.keeper.db.conditions import is_any_of
from aigate.keeper.db.engine import Database, database_url, open_database
from aigate.keeper.db.grants import Asked, answer_grants, month_now
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.limits import changed_limits, find_standings, set_limit
from aigate.keeper.db.principals import find_principals, principals_of
from aigate.keeper.db.tables import budgets
from aigate.keeper.shipper import _register
from aigate.messages import Grant
from tests.keeper.conftest import write_whole

# A statement that names a row of constants scans those, and the few rows of `meta` do not count.
_SCAN = re.compile(r"SCAN (?!\d+ CONSTANT|CONSTANT|meta)")
KEY = ("key", "acc_default", "key_1")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = open_database(database_url(tmp_path))
    yield database
    database.close()


@contextmanager
def without_scans(database: Database) -> Iterator[list[str]]:
    """Every statement run meanwhile is explained; the list of them."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, values: Any, _context: Any, is_many: bool) -> None:
        seen.append((statement, values[0] if is_many else values))

    statements: list[str] = []
    event.listen(database.engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine, "before_cursor_execute", note)
    statements += [statement for statement, _ in seen if not statement.startswith("BEGIN")]

    def explain(connection: Any, statement: str, values: Any) -> list[str]:
        return [row[3] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, values)]

    scans = [
        (statement, plan)
        for statement, values in seen
        if not statement.startswith("BEGIN")
        for plan in database.read_now(explain, statement, values)
        if _SCAN.match(plan)
    ]
    assert not scans, scans


def test_a_key_is_looked_up_by_index(database: Database) -> None:
    with without_scans(database) as statements:
        database.write_now(add_account_if_missing, "acc_default", 1)
        sub_account = SubAccount(id="sa_1", account_id="acc_default", name="n", created_ms=1)
        key = ClientKey(id="key_1", account_id="acc_default", name="k", digest=b"d", hint="", created_ms=1, sub_account_id="sa_1")
        database.write_now(_add_sub_account, sub_account, Cap(5), key)
        found, _ = database.read_now(find_principals, [b"d", b"e"])
        assert found[b"d"].budgets
        database.read_now(principals_of, "sub_account_id", "sa_1")
        database.write_now(set_limit, KEY, Cap(100), 1)
        database.read_now(find_standings, [KEY, ("sub_account", "acc_default", "sa_1")])
        database.read_now(changed_limits, 1, month_now)
    assert len(statements) > 8


def test_a_grant_finds_its_rows_by_index(database: Database) -> None:
    database.write_now(set_limit, KEY, Cap(100), 1, is_new_owner=True)
    database.write_now(_register, "jrn_a")
    wants = (Want(database.read_now(find_standings, [KEY])[KEY].budget_id, 5, 50),)
    with without_scans(database) as statements:
        for need in (1, 1, 2):  # given, repeated, given
            asked = [Asked("jrn_a", Grant(need, wants, answered=need - 1))]
            database.write_now(answer_grants, asked, journals_living=1, limits_version=9, find_month=month_now)
    assert len(statements) > 15


def test_a_shipped_batch_finds_its_rows_by_index(database: Database, traffic: Any) -> None:
    database.write_now(set_limit, KEY, Cap(100), 1, is_new_owner=True)
    batch = Batch()
    for n in range(3):
        batch.add_attempt(traffic.intent(n, tag="spring"), traffic.settled(n))
        batch.add_call(traffic.call_end(n, tag="spring"))
    batch.add_leases(ADOPTED, [(1, "2023-11", 50)])
    batch.add_leases(RETURNED, [(1, "2023-11", 20)])
    with without_scans(database) as statements:
        for is_careful in (False, True):
            database.write_now(write_whole, batch, is_careful=is_careful)
    assert len(statements) > 15


def test_rows_are_told_apart_as_wholes(database: Database) -> None:
    owners = [("key", "a", "1"), ("tag", "a", "2"), ("key", "b", "2")]
    for owner in [*owners, ("key", "a", "2"), ("tag", "b", "1")]:
        database.write_now(set_limit, owner, Cap(1), 1)
    columns = (budgets.c.scope, budgets.c.account_id, budgets.c.owner_id)
    query = select(*columns).where(is_any_of(columns, owners))
    assert {tuple(row) for row in database.read_now(lambda connection: connection.execute(query).all())} == set(owners)
