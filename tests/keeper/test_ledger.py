from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import delete, insert, text, update

from aigate.journal.records import encode_record
from aigate.journal.writer import JournalWriter
from aigate.keeper import ledger
from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.prices import save_prices
from aigate.keeper.db.tables import attempts, calls, leases, prices, usage_days, usage_totals, windows
from aigate.keeper.ledger import NOTES, WRONG, Report, verify
from aigate.keeper.shipper import Shipper
from tests.keeper.conftest import write_whole


@pytest.fixture
def sound(database: Database, traffic: Any) -> Database:
    """Twenty calls whose every number is right."""
    batch = Batch()
    for n in range(20):
        batch.add_attempt(traffic.intent(n), traffic.settled(n))
        batch.add_call(traffic.call_end(n))
    database.write_now(save_prices, [traffic.price], 1)
    database.write_now(write_whole, batch)
    return database


def change(database: Database, statement: Any) -> None:
    database.write_now(lambda connection: connection.execute(statement))


def findings(report: Report) -> list[tuple[str, str]]:
    return [(finding.kind, finding.subject) for finding in report.findings]


def test_a_sound_ledger_is_said_to_be_so_with_its_sums(sound: Database, traffic: Any) -> None:
    report = sound.read_now(verify)
    assert report.is_sound and report.findings == [] and dict(report.counts) == {}
    assert (report.attempts, report.calls) == (20, 20)
    assert report.cost_nanousd == sum(traffic.settled(n).cost_nanousd for n in range(20))


@pytest.mark.parametrize(
    ("statement", "found"),
    [
        (update(attempts).where(attempts.c.call_id == "req_0007").values(output_tokens=8), {("cost", "att_0007_1"), ("totals", "")}),
        (
            update(attempts).where(attempts.c.call_id == "req_0007").values(cost_nanousd=1),
            {("cost", "att_0007_1"), ("call_cost", "req_0007"), ("totals", "")},
        ),
        (update(calls).where(calls.c.call_id == "req_0003").values(cost_nanousd=1), {("call_cost", "req_0003")}),
        (update(calls).where(calls.c.call_id == "req_0003").values(attempts=2), {("attempts", "req_0003")}),
        (update(attempts).where(attempts.c.call_id == "req_0003").values(number=2), {("attempts", "req_0003")}),
        (
            delete(attempts).where(attempts.c.call_id == "req_0000"),
            {("attempts", "req_0000"), ("call_cost", "req_0000"), ("totals", "")},
        ),
        (update(usage_totals).values(requests=19), {("totals", ""), ("days", ""), ("balance", "")}),
        (delete(usage_totals), {("totals", ""), ("days", ""), ("balance", "")}),
        (update(usage_days).where(usage_days.c.owner_id == "key_1").values(output_tokens=1), {("days", "")}),
        (delete(usage_days), {("days", "")}),
        (update(windows).where(windows.c.budget_id == 1).values(spent_nanousd=1), {("balance", "")}),
        (update(windows).where(windows.c.budget_id == 1).values(reserved_nanousd=1), {("balance", "")}),
        (delete(windows), {("balance", "")}),
        (update(windows).where(windows.c.budget_id == 1).values(leased_nanousd=1), {("lease", "")}),
        (insert(leases).values(journal_id="jrn_gone", budget_id=1, window="2023-11", amount_nanousd=1), {("lease", "")}),
    ],
)
def test_any_number_that_was_changed_is_found(sound: Database, statement: Any, found: set[tuple[str, str]]) -> None:
    change(sound, statement)
    report = sound.read_now(verify)
    assert not report.is_sound
    assert {(kind, "" if kind in ("totals", "days", "balance", "lease") else subject) for kind, subject in findings(report)} == found


def test_a_price_that_is_gone_is_found_on_every_row_that_needs_it(sound: Database) -> None:
    change(sound, delete(prices))
    report = sound.read_now(verify, findings_a_kind=3)
    assert report.counts == {"price": 20} and len(report.findings) == 3 and not report.is_sound


def test_a_row_without_a_price_must_cost_nothing(sound: Database) -> None:
    change(sound, update(attempts).where(attempts.c.call_id == "req_0005").values(price_id=""))
    assert ("cost", "att_0005_1") in findings(sound.read_now(verify))


def test_attempts_numbered_twice_are_found(sound: Database, traffic: Any) -> None:
    batch = Batch()
    for number in (1, 2):
        intent = msgspec.structs.replace(traffic.intent(50, number=number), number=1)
        batch.add_attempt(intent, traffic.settled(50, number=number))
    batch.add_call(traffic.call_end(50, attempts=2, cost=2 * traffic.settled(50).cost_nanousd))
    sound.write_now(write_whole, batch)
    assert findings(sound.read_now(verify)) == [("attempts", "req_0050")]


def test_unsettled_attempts_and_overruns_are_noted_and_are_not_wrong(sound: Database, traffic: Any) -> None:
    batch = Batch()
    batch.add_unsettled(traffic.intent(50, hold=777))
    batch.add_attempt(traffic.intent(51, hold=5), traffic.settled(51))
    batch.add_call(traffic.call_end(51))
    sound.write_now(write_whole, batch)
    report = sound.read_now(verify)
    assert set(findings(report)) == {("unsettled", "att_0050_1"), ("no_call", "att_0050_1"), ("overrun", "att_0051_1")}
    assert report.is_sound and report.reserved_nanousd == 777


def test_a_ledger_of_many_pages_is_read_whole(database: Database, traffic: Any) -> None:
    count = ledger.PAGE_ROWS * 2 + 1
    batch = Batch()
    for n in range(count):
        batch.add_attempt(traffic.intent(n), traffic.settled(n))
        batch.add_call(traffic.call_end(n))
    database.write_now(save_prices, [traffic.price], 1)
    database.write_now(write_whole, batch)
    report = database.read_now(verify)
    assert (report.attempts, report.calls, report.is_sound) == (count, count, True)


def test_bytes_still_to_ship_are_noted(
    sound: Database, journals_folder: Path, new_journal: Callable[..., JournalWriter], traffic: Any
) -> None:
    writer = new_journal()
    shipper = Shipper(sound, journals_folder)
    traffic.write_call(writer, 100)
    asyncio.run(shipper.catch_up())
    assert sound.read_now(verify, journals_folder).findings == []
    traffic.write_call(writer, 101)
    report = sound.read_now(verify, journals_folder)
    assert findings(report) == [("unshipped", "jrn_a")] and report.is_sound
    bodies = (traffic.intent(101), traffic.settled(101, call=traffic.call_end(101)))
    assert report.unshipped_bytes == sum(len(encode_record(body)) for body in bodies)


def test_a_journal_nobody_registered_yet_is_noted(
    sound: Database, journals_folder: Path, new_journal: Callable[..., JournalWriter], traffic: Any
) -> None:
    traffic.write_call(new_journal(), 100)
    assert findings(sound.read_now(verify, journals_folder)) == [("unshipped", "jrn_a")]


def test_a_journal_that_vanished_before_its_end_is_wrong(
    sound: Database, journals_folder: Path, new_journal: Callable[..., JournalWriter], traffic: Any
) -> None:
    writer = new_journal()
    traffic.write_call(writer, 100)
    asyncio.run(Shipper(sound, journals_folder).catch_up())
    shutil.rmtree(writer.folder)
    report = sound.read_now(verify, journals_folder)
    assert findings(report) == [("journal", "jrn_a")] and not report.is_sound


def test_every_kind_of_finding_is_explained(sound: Database) -> None:
    change(sound, text("UPDATE calls SET cost_nanousd = 1, attempts = 9"))
    kinds = {kind for kind, _ in findings(sound.read_now(verify))}
    assert kinds <= WRONG.keys() | NOTES.keys() and kinds == {"call_cost", "attempts"}
