from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from aigate.core.account import Page, Whose
from aigate.errors import ClientError
from aigate.keeper.db.engine import Database, open_database
from aigate.keeper.db.ledger_rows import Batch, write_batch
from aigate.keeper.db.usage import LabelTotals, Totals, recent_calls, usage_by, usage_in_days
from tests.databases import PostgresServer
from tests.keeper.conftest import DATABASES, Traffic, new_url, write_whole

ALL, SUB, KEY = Whose("acc_default"), Whose("acc_default", sub_account_id="sa_1"), Whose("acc_default", key_id="key_2")


@pytest.fixture(scope="module", params=DATABASES)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres_server: PostgresServer | None) -> Iterator[Database]:
    """Read by many tests, written by none."""
    with new_url(request.param, tmp_path_factory.mktemp("filled"), postgres_server) as url:
        database = open_database(url)
        fill(database)
        yield database
        database.close()


def fill(database: Database) -> None:
    """30 calls: three tags (one of them none, all of a sub-account), two keys in turn; call 1 had no attempt."""
    batch, traffic = Batch(), Traffic()
    for n in range(30):
        fields = {"tag": (None, "a", "b")[n % 3], "key_id": ("key_1", "key_2")[n % 2]}
        if n != 1:
            batch.add_attempt(_owned(traffic.intent(n, **fields), n), traffic.settled(n))
        batch.add_call(_owned(traffic.call_end(n, attempts=int(n != 1), **fields), n))
    database.write_now(write_whole, batch)


def _owned(record: Any, n: int) -> Any:
    return msgspec.structs.replace(record, sub_account_id="sa_1" if n % 3 == 0 else None)


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


def test_calls_that_come_in_meanwhile_do_not_disturb_the_pages(database: Database, traffic: Any) -> None:
    fill(database)
    first, cursor = database.read_now(recent_calls, limit=10)
    batch = Batch()
    batch.add_call(traffic.call_end(500))
    database.write_now(write_batch, batch)
    second, _ = database.read_now(recent_calls, limit=10, cursor=cursor)
    assert numbers(first + second) == list(reversed(range(10, 30)))


def test_a_key_sees_its_own_calls(filled: Database) -> None:
    assert walk(filled, limit=4, whose=KEY) == [n for n in reversed(range(30)) if n % 2]
    assert walk(filled, limit=4, whose=Whose("acc_other")) == []


def test_a_page_looks_through_a_bounded_number_of_other_peoples_calls(filled: Database) -> None:
    assert walk(filled, limit=4, whose=KEY, scan_rows=3) == [n for n in reversed(range(30)) if n % 2]


@pytest.mark.parametrize("cursor", ["", "x", "!!!", "ä", base64.urlsafe_b64encode(b"now:req_1").decode(), "A" * 199, "OTk5OTk5OTk5OTk5OTk5OTk5OTk6"])
def test_a_cursor_that_is_not_ours_is_the_callers_mistake(database: Database, cursor: str) -> None:
    with pytest.raises(ClientError) as caught:
        database.read_now(recent_calls, cursor=cursor)
    assert (caught.value.status, caught.value.param) == (400, "cursor")


def test_usage_by_tag_sums_attempts_and_counts_calls(filled: Database, traffic: Any) -> None:
    found = {entry.label: entry for entry in filled.read_now(usage_by, "tag", "2023-11", ALL)}
    assert found.keys() == {"", "a", "b"}
    of_a = [n for n in range(30) if n % 3 == 1 and n != 1]
    cost = sum(traffic.settled(n).cost_nanousd for n in of_a)
    assert found["a"] == LabelTotals(label="a", requests=10, attempts=9, cost_nanousd=cost, input_tokens=90, output_tokens=sum(of_a))


def test_tags_come_dearest_first(filled: Database) -> None:
    costs = [entry.cost_nanousd for entry in filled.read_now(usage_by, "tag", "2023-11", ALL)]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("whose", [ALL, SUB, KEY])
def test_every_way_to_sum_gives_the_same_whole(filled: Database, whose: Whose) -> None:
    (whole,) = filled.read_now(usage_by, "all", "2023-11", whose)
    assert whole.requests == {ALL: 30, SUB: 10, KEY: 15}[whose]
    for dimension in ("tag", "sub_account", "key", "model", "day"):
        parts = filled.read_now(usage_by, dimension, "2023-11", whose)
        for name in Totals.__struct_fields__:
            assert sum(getattr(part, name) for part in parts) == getattr(whole, name), (dimension, name)


@pytest.mark.parametrize("whose", [ALL, SUB, KEY])
@pytest.mark.parametrize("dimension", ["tag", "sub_account", "key", "model", "day"])
def test_pages_hold_each_label_once_in_order(filled: Database, dimension: str, whose: Whose) -> None:
    whole = filled.read_now(usage_by, dimension, "2023-11", whose)
    found: list[LabelTotals] = []
    while page := filled.read_now(usage_by, dimension, "2023-11", whose, Page(1, found[-1].label if found else None)):
        found += page
    assert found == sorted(whole, key=lambda entry: entry.label)


def test_labels_are_what_was_asked_for(filled: Database) -> None:
    labels = {
        dimension: {entry.label for entry in filled.read_now(usage_by, dimension, "2023-11", ALL)}
        for dimension in ("sub_account", "key", "model", "day", "all")
    }
    assert labels == {"sub_account": {"", "sa_1"}, "key": {"key_1", "key_2"}, "model": {"", "sim/echo"}, "day": {"2023-11-14"}, "all": {""}}


def test_a_window_of_days_has_both_its_ends(filled: Database) -> None:
    for first, last, requests in (("2023-11-14", "2023-11-14", 30), ("2023-10-01", "2023-11-13", 0), ("2023-11-15", "2024-11-15", 0)):
        assert sum(entry.requests for entry in filled.read_now(usage_in_days, "day", first, last, ALL)) == requests


@pytest.mark.parametrize("dimension", ["tag", "sub_account", "key", "model", "day", "all"])
def test_a_month_without_calls_is_empty(filled: Database, dimension: str) -> None:
    for whose in (ALL, SUB, KEY):
        assert filled.read_now(usage_by, dimension, "2020-02", whose) == []
    assert filled.read_now(usage_by, dimension, "2023-11", Whose("acc_other")) == []
