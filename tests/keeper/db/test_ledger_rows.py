from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from aigate.journal.records import CallEnd, Intent, Settled
from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import AlreadyThere, Batch, month_of, write_batch
from aigate.keeper.db.tables import attempts, calls, usage_totals


@given(st.integers(0, 253_402_300_799_999))
def test_a_month_is_the_utc_calendar_month(unix_ms: int) -> None:
    moment = datetime.fromtimestamp(unix_ms // 1000, UTC)
    assert month_of(unix_ms) == f"{moment.year:04d}-{moment.month:02d}"


@pytest.mark.parametrize("unix_ms", [-1, 2**62])
def test_an_absurd_time_still_has_a_month(unix_ms: int) -> None:
    assert month_of(unix_ms) in ("1970-01", "9999-12")


def test_columns_stand_in_the_order_of_the_records() -> None:
    intent = ["hold_price_id" if name == "price_id" else name for name in Intent.__struct_fields__]
    settled = [name for name in Settled.__struct_fields__[1:] if name not in ("call", "charges")]
    assert [column.name for column in attempts.columns] == [*intent, *settled, "reserved_nanousd"]
    assert [column.name for column in calls.columns] == list(CallEnd.__struct_fields__)


def batch_of(traffic: Any, *numbers: int) -> Batch:
    batch = Batch()
    for n in numbers:
        batch.add_attempt(traffic.intent(n), traffic.settled(n))
        batch.add_call(traffic.call_end(n))
    return batch


def contents(database: Database) -> list[list[Any]]:
    return [database.read_now(lambda c, t=table: c.execute(select(t)).all()) for table in (attempts, calls, usage_totals)]  # type: ignore[misc]


def test_a_row_that_exists_is_never_counted_twice(database: Database, traffic: Any) -> None:
    database.write_now(write_batch, batch_of(traffic, 1, 2, 3))
    once = contents(database)
    with pytest.raises(AlreadyThere):
        database.write_now(write_batch, batch_of(traffic, 3, 4))
    assert contents(database) == once
    database.write_now(write_batch, batch_of(traffic, 3, 4, 4, 2), is_careful=True)
    found, ended, (totals,) = contents(database)
    assert len(found) == len(ended) == totals.requests == totals.attempts == 4
    assert totals.cost_nanousd == sum(row.cost_nanousd for row in found)
    assert totals.output_tokens == 10


def test_an_existing_row_is_not_changed_by_a_later_one_of_its_id(database: Database, traffic: Any) -> None:
    database.write_now(write_batch, batch_of(traffic, 1))
    batch = Batch()
    batch.add_unsettled(traffic.intent(1))
    database.write_now(write_batch, batch, is_careful=True)
    (attempt,), _, (totals,) = contents(database)
    assert (attempt.end, totals.attempts) == ("complete", 1)


def test_a_careful_batch_larger_than_a_statement_may_bind_is_written(database: Database, traffic: Any) -> None:
    numbers = range(1200)
    database.write_now(write_batch, batch_of(traffic, *numbers))
    database.write_now(write_batch, batch_of(traffic, *numbers, 1200), is_careful=True)
    assert [len(rows) for rows in contents(database)] == [1201, 1201, 1]
