from __future__ import annotations

from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from aigate.core.account import Cap, Standing
from aigate.core.budget import Owner
from aigate.journal.records import ADOPTED, RESTATED, RETURNED
from aigate.keeper.db.balances import Balances, add_budgets
from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.limits import changed_limits, first_limits, set_limit
from aigate.keeper.db.outbox import threshold_events
from aigate.keeper.db.tables import budgets, leases, outbox, windows
from tests.keeper.conftest import write_whole

KEY: Owner = ("key", "acc_default", "key_1")
ACCOUNT: Owner = ("account", "acc_default", "acc_default")
TAG: Owner = ("tag", "acc_default", "spring")


def rows(database: Database, table: Any) -> list[Any]:
    return database.read_now(lambda connection: connection.execute(select(table).order_by(*table.primary_key.columns)).all())


def window(database: Database, owner: Owner) -> Any:
    by_id = {row.id: (row.scope, row.account_id, row.owner_id) for row in rows(database, budgets)}
    (row,) = [row for row in rows(database, windows) if by_id[row.budget_id] == owner]
    return row


def move(database: Database, kind: int, *moved: tuple[int, str, int], is_seal: bool = False) -> None:
    batch = Batch()
    if moved:
        batch.add_leases(kind, moved)
    database.write_now(lambda connection: Balances().write(connection, "jrn_a", batch, now_ms=1, is_seal=is_seal))


def test_every_owner_of_a_call_has_its_sums_limited_or_not(database: Database, traffic: Any) -> None:
    batch = Batch()
    for n in range(10):
        batch.add_attempt(traffic.intent(n, tag="spring" if n % 2 else None), traffic.settled(n))
        batch.add_call(traffic.call_end(n, tag="spring" if n % 2 else None))
    database.write_now(write_whole, batch)
    cost = sum(traffic.settled(n).cost_nanousd for n in range(10))
    odd = sum(traffic.settled(n).cost_nanousd for n in range(1, 10, 2))
    assert tuple(window(database, KEY))[1:] == ("2023-11", cost, 0, 0, 10, 10, 100, 45)
    assert tuple(window(database, ACCOUNT))[1:] == ("all", cost, 0, 0, 10, 10, 100, 45)
    assert window(database, TAG).spent_nanousd == odd
    assert window(database, ("tag", "acc_default", "")).spent_nanousd == cost - odd
    assert window(database, ("sub_account", "acc_default", "")).requests == 10


def test_leases_rise_fall_and_never_below_nothing(database: Database) -> None:
    budget = database.write_now(add_budgets, [KEY], 1)[KEY]
    move(database, ADOPTED, (budget, "2023-11", 100))
    assert window(database, KEY).leased_nanousd == 100
    move(database, RETURNED, (budget, "2023-11", 30))
    assert [row.amount_nanousd for row in rows(database, leases)] == [70] == [window(database, KEY).leased_nanousd]
    move(database, RETURNED, (budget, "2023-11", 90))
    assert window(database, KEY).leased_nanousd == 0
    move(database, RESTATED, (budget, "2023-12", 5))
    assert sorted(row.leased_nanousd for row in rows(database, windows)) == [0, 5]
    move(database, RETURNED, is_seal=True)
    assert rows(database, leases) == [] and not any(row.leased_nanousd for row in rows(database, windows))


def test_ids_of_a_transaction_that_failed_are_not_kept(database: Database, traffic: Any) -> None:
    balances = Balances()
    batch = Batch()
    batch.add_call(traffic.call_end(1))

    def write_and_fail(connection: Any) -> None:
        balances.write(connection, "jrn_a", batch, now_ms=1)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        database.write_now(write_and_fail)
    database.write_now(set_limit, TAG, Cap(5), 1)  # takes the id that was not kept
    database.write_now(lambda connection: balances.write(connection, "jrn_a", batch, now_ms=1))
    assert window(database, KEY).requests == 1


def test_each_threshold_is_told_once_and_a_raised_limit_arms_it_again(database: Database, traffic: Any) -> None:
    cost = traffic.settled(9).cost_nanousd
    database.write_now(set_limit, KEY, Cap(cost * 2), 1, is_new_owner=True)

    def spend(n: int) -> None:
        batch = Batch()
        batch.add_attempt(msgspec.structs.replace(traffic.intent(n), attempt_id=f"att_{n}", call_id=f"req_{n}"), traffic.settled(9))
        database.write_now(write_whole, batch)

    def told() -> list[int]:
        events = sorted((row.created_ms, row.id, row.payload) for row in rows(database, outbox) if row.type == "usage.threshold")
        return sorted(msgspec.json.decode(payload)["threshold_percent"] for _, _, payload in events)

    spend(1)
    assert told() == [50]
    spend(2)
    assert told() == [50, 80, 100]
    database.write_now(set_limit, KEY, Cap(cost * 4), 1)
    spend(3)
    assert told() == [50, 80, 100]
    spend(4)
    assert told() == [50, 80, 80, 100, 100]


def test_a_balance_that_runs_low_and_an_overrun_are_told(database: Database, traffic: Any) -> None:
    cost = traffic.settled(9).cost_nanousd
    budget = database.write_now(set_limit, ACCOUNT, Cap(cost), 1) or rows(database, budgets)[0].id
    batch = Batch()
    batch.add_attempt(traffic.intent(9, hold=5), msgspec.structs.replace(traffic.settled(9), charges=((budget, "all", 5),)))
    database.write_now(write_whole, batch)
    assert {row.type for row in rows(database, outbox)} == {"usage.threshold", "balance.low", "budget.overrun"}


def test_a_lowered_limit_may_pass_a_threshold_by_itself() -> None:
    before = Standing(owner=("sub_account", "a", "sa_1"), limit_nanousd=1000, spent=300)
    after = msgspec.structs.replace(before, limit_nanousd=300)
    assert [event.type for event in threshold_events(before, after)] == ["usage.threshold"] * 3 + ["sub_account.budget.exhausted"]
    assert threshold_events(before, msgspec.structs.replace(before, limit_nanousd=None)) == []


def test_workers_hear_of_limits_that_are_new_lower_or_gone_and_of_no_others(database: Database) -> None:
    def november(connection: Any) -> str:
        return "2023-11"

    def change(owner: Owner, limit: int | None, **options: bool) -> list[tuple[str, bool]]:
        since, _ = database.read_now(changed_limits, 1_000, november)
        database.write_now(set_limit, owner, Cap(limit), 1, **options)
        return [(limit.owner[0], limit.is_limited) for limit in database.read_now(changed_limits, since, november)[1]]

    assert change(KEY, 10, is_new_owner=True) == []
    assert change(KEY, 20) == []
    assert change(KEY, 20) == []
    assert change(KEY, 5) == [("key", True)]
    assert change(TAG, 5) == [("tag", True)]
    assert change(KEY, None) == [("key", False)]
    assert [(limit.owner, limit.window) for limit in database.read_now(first_limits, november)[1]] == [(TAG, "2023-11")]
