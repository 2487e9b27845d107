from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from aigate.errors import ClientError
from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import Batch, write_batch
from aigate.keeper.db.usage import TagTotals, Totals, recent_calls, usage_by_tag, usage_of_month


@pytest.fixture
def filled(database: Database, traffic: Any) -> Database:
    """30 calls: three tags (one of them none), two keys in turn; call 1 had no attempt."""
    batch = Batch()
    for n in range(30):
        fields = {"tag": (None, "a", "b")[n % 3], "key_id": ("key_1", "key_2")[n % 2]}
        if n != 1:
            batch.add_attempt(traffic.intent(n, **fields), traffic.settled(n))
        batch.add_call(traffic.call_end(n, attempts=int(n != 1), **fields))
    database.write_now(write_batch, batch)
    return database


def numbers(found: list[Any]) -> list[int]:
    return [int(call.call_id.removeprefix("req_")) for call in found]


def walk(database: Database, **filters: Any) -> list[int]:
    whole, cursor = [], None
    for _ in range(100):
        page, cursor = database.read_now(recent_calls, cursor=cursor, **filters)
        whole += numbers(page)
        if cursor is None:
            return whole
    raise AssertionError("the pages never end")


def test_recent_calls_are_newest_first(filled: Database) -> None:
    found, cursor = filled.read_now(recent_calls, limit=1000)
    assert numbers(found) == list(reversed(range(30))) and cursor is None
    assert (found[0].tag, found[0].is_stream, found[0].served_by) == ("b", False, "sim/echo")


@pytest.mark.parametrize("limit", [1, 7, 30, 1000])
def test_pages_give_each_call_once(filled: Database, limit: int) -> None:
    assert walk(filled, limit=limit) == list(reversed(range(30)))


def test_calls_of_the_same_millisecond_are_not_lost_between_pages(database: Database, traffic: Any) -> None:
    batch = Batch()
    for n in range(10):
        batch.add_call(msgspec.structs.replace(traffic.call_end(n), started_ms=1_700_000_000_000))
    database.write_now(write_batch, batch)
    assert walk(database, limit=3) == list(reversed(range(10)))


def test_calls_that_come_in_meanwhile_do_not_disturb_the_pages(filled: Database, traffic: Any) -> None:
    first, cursor = filled.read_now(recent_calls, limit=10)
    batch = Batch()
    batch.add_call(traffic.call_end(500))
    filled.write_now(write_batch, batch)
    second, _ = filled.read_now(recent_calls, limit=10, cursor=cursor)
    assert numbers(first + second) == list(reversed(range(10, 30)))


def test_a_key_sees_its_own_calls(filled: Database) -> None:
    assert walk(filled, limit=4, key_id="key_2") == [n for n in reversed(range(30)) if n % 2]
    assert walk(filled, limit=4, account_id="acc_other") == []


def test_a_page_looks_through_a_bounded_number_of_other_peoples_calls(filled: Database) -> None:
    assert walk(filled, limit=4, key_id="key_2", scan_rows=3) == [n for n in reversed(range(30)) if n % 2]


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "ä", base64.urlsafe_b64encode(b"now:req_1").decode(), "A" * 199, "OTk5OTk5OTk5OTk5OTk5OTk5OTk6"])
def test_a_cursor_that_is_not_ours_is_the_callers_mistake(database: Database, cursor: str) -> None:
    with pytest.raises(ClientError) as caught:
        database.read_now(recent_calls, cursor=cursor)
    assert (caught.value.status, caught.value.param) == (400, "cursor")


def test_usage_by_tag_sums_attempts_and_counts_calls(filled: Database, traffic: Any) -> None:
    found = {entry.tag: entry for entry in filled.read_now(usage_by_tag, "2023-11")}
    assert found.keys() == {"", "a", "b"}
    of_a = [n for n in range(30) if n % 3 == 1 and n != 1]
    cost = sum(traffic.settled(n).cost_nanousd for n in of_a)
    assert found["a"] == TagTotals(tag="a", requests=10, attempts=9, cost_nanousd=cost, input_tokens=90, output_tokens=sum(of_a))


def test_tags_come_dearest_first(filled: Database) -> None:
    costs = [entry.cost_nanousd for entry in filled.read_now(usage_by_tag, "2023-11")]
    assert costs == sorted(costs, reverse=True)


def test_usage_of_a_month_is_the_sum_of_its_tags(filled: Database) -> None:
    tags, whole = filled.read_now(usage_by_tag, "2023-11"), filled.read_now(usage_of_month, "2023-11")
    for name in Totals.__struct_fields__:
        assert getattr(whole, name) == sum(getattr(tag, name) for tag in tags)
    assert (whole.requests, whole.attempts) == (30, 29)


def test_usage_of_one_key_is_its_own(filled: Database) -> None:
    halves = [filled.read_now(usage_of_month, "2023-11", key_id=key) for key in ("key_1", "key_2")]
    assert [half.requests for half in halves] == [15, 15]


def test_a_month_without_calls_is_empty(filled: Database) -> None:
    assert filled.read_now(usage_by_tag, "2020-02") == []
    assert filled.read_now(usage_of_month, "2020-02") == Totals()
