from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import Connection, func, select, update
from sqlalchemy.exc import OperationalError

from aigate.journal.records import encode_record
from aigate.journal.segment import SEGMENT_HEADER_BYTES, segment_name
from aigate.journal.writer import JournalWriter
from aigate.keeper.db.engine import Database, database_url, open_database
from aigate.keeper.db.ledger_rows import Batch
from aigate.keeper.db.tables import attempts, calls, journals, usage_totals
from aigate.keeper.ledger import verify
from aigate.keeper.shipper import Shipper

NewJournal = Callable[..., JournalWriter]
Traffic = Any


@pytest.fixture
def shipper(database: Database, journals_folder: Path) -> Shipper:
    return Shipper(database, journals_folder)


def rows(database: Database, table: Any) -> list[Any]:
    return database.read_now(lambda connection: connection.execute(select(table).order_by(*table.primary_key.columns)).all())


def catch_up(shipper: Shipper) -> None:
    asyncio.run(look_and_ship(shipper))


async def look_and_ship(shipper: Shipper) -> None:
    shipper._next_look = 0.0  # do not wait a second for the next look at the folder
    await shipper.catch_up()


def ledger(database: Database) -> tuple[list[Any], list[Any], list[Any]]:
    return rows(database, attempts), rows(database, calls), rows(database, usage_totals)


def set_back(database: Database) -> None:
    """As if the journals had never been shipped."""
    places = dict(shipped_segment=1, shipped_offset=SEGMENT_HEADER_BYTES, replay_segment=1, replay_offset=SEGMENT_HEADER_BYTES)
    database.write_now(lambda connection: connection.execute(update(journals).values(**places, sealed_ms=None)))


# --- rows ---------------------------------------------------------------------------------------------------------------


def test_every_field_of_a_call_reaches_its_rows(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    traffic.write_call(writer, 7, tag="checkout")
    catch_up(shipper)
    (attempt,), (call,), (totals,) = ledger(database)
    intent, settled, end = traffic.intent(7, tag="checkout"), traffic.settled(7), traffic.call_end(7, tag="checkout")
    for name in type(settled).__struct_fields__:
        if name not in ("call", "charges"):
            assert getattr(attempt, name) == getattr(settled, name), name
    for name in type(intent).__struct_fields__:
        if name not in ("leases", "price_id"):
            assert getattr(attempt, name) == getattr(intent, name), name
    assert (attempt.leases, attempt.hold_price_id, attempt.reserved_nanousd) == ("", intent.price_id, 0)
    for name in type(end).__struct_fields__:
        assert getattr(call, name) == getattr(end, name), name
    assert tuple(totals) == ("2023-11", "acc_default", "key_1", "", "checkout", 1, 1, settled.cost_nanousd, 10, 7)


def test_leases_are_kept_with_the_attempt(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    intent = msgspec.structs.replace(traffic.intent(1), window="2023-12", leases=((3, 9), (4, 1)))
    writer.intent(encode_record(intent))
    writer.settled(encode_record(traffic.settled(1)))
    catch_up(shipper)
    (attempt,), _, (totals,) = ledger(database)
    assert attempt.leases == "[[3,9],[4,1]]"
    assert totals.month == "2023-12"  # the lease's month, not the clock's


def test_attempts_of_one_call_are_rows_of_their_own(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    writer.intent(encode_record(traffic.intent(5)))
    writer.settled(encode_record(traffic.settled(5, end="failed", output=0)))
    writer.intent(encode_record(traffic.intent(5, number=2)))
    cost = traffic.settled(5, output=0).cost_nanousd + traffic.settled(5).cost_nanousd
    writer.settled(encode_record(traffic.settled(5, number=2, call=traffic.call_end(5, attempts=2, cost=cost))))
    catch_up(shipper)
    found, (call,), (totals,) = ledger(database)
    assert [(row.number, row.end) for row in found] == [(1, "failed"), (2, "complete")]
    assert (call.attempts, call.cost_nanousd) == (2, cost)
    assert (totals.requests, totals.attempts, totals.cost_nanousd) == (1, 2, cost)


def test_a_call_without_attempts_has_a_row(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    new_journal().call_end(encode_record(traffic.call_end(1, attempts=0)))
    catch_up(shipper)
    assert [len(table) for table in ledger(database)] == [0, 1, 1]


def test_many_journals_and_segments_are_shipped_whole(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    async def write_and_ship() -> None:
        writers = [new_journal(f"jrn_{name}") for name in "abc"]
        for n in range(1500):
            writer = writers[n % 3]
            traffic.write_call(writer, n)
            if n % 200 == 0:
                await writer.keep_up()
                await look_and_ship(shipper)
        await shipper.catch_up()

    asyncio.run(write_and_ship())
    found, ended, (totals,) = ledger(database)
    assert [row.call_id for row in found] == [row.call_id for row in ended] == [f"req_{n:04d}" for n in range(1500)]
    assert (totals.requests, totals.attempts, totals.output_tokens) == (1500, 1500, sum(range(1500)))
    assert shipper.status.shipped_rows == 3000 and shipper.status.problems == {}


def test_what_a_database_cannot_hold_is_mended_not_lost(database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    writer.intent(encode_record(traffic.intent(1, tag="a\0b")))
    huge = msgspec.structs.replace(traffic.settled(1, call=traffic.call_end(1, tag="a\0b")), cached_tokens=2**63)
    writer.settled(encode_record(huge))
    catch_up(shipper)
    (attempt,), (call,), _ = ledger(database)
    assert attempt.cached_tokens == 2**63 - 1
    assert call.tag.replace("\0", "\N{REPLACEMENT CHARACTER}") == "a\N{REPLACEMENT CHARACTER}b"


# --- once, whatever happens -------------------------------------------------------------------------------------------


def test_shipping_everything_again_changes_nothing(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    for n in range(300):
        traffic.write_call(writer, n, tag=f"tag{n % 3}")
    catch_up(Shipper(database, journals_folder))
    before = ledger(database)
    set_back(database)
    for n in range(300, 310):  # new calls in the same batch as the old ones
        traffic.write_call(writer, n)
    catch_up(Shipper(database, journals_folder))
    after = ledger(database)
    assert after[0][:300] == before[0] and after[1][:300] == before[1] and len(after[0]) == len(after[1]) == 310
    assert sum(row.requests for row in after[2]) == sum(row.attempts for row in after[2]) == 310


def test_an_open_intent_survives_a_restart_of_the_keeper(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    traffic.write_open(writer, 1)
    for n in range(2, 30):
        traffic.write_call(writer, n)
    catch_up(Shipper(database, journals_folder))
    assert len(rows(database, attempts)) == 28
    writer.settled(encode_record(traffic.settled(1, call=traffic.call_end(1))))
    catch_up(Shipper(database, journals_folder))
    found, ended, (totals,) = ledger(database)
    assert [row.end for row in found] == ["complete"] * 29 and len(ended) == 29 == totals.attempts
    (journal,) = rows(database, journals)
    assert (journal.replay_segment, journal.replay_offset) == (journal.shipped_segment, journal.shipped_offset)


def test_a_failure_between_rows_and_commit_leaves_nothing_and_is_made_good(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    failures = [OperationalError("COMMIT", {}, Exception("the database went away"))]

    def fail_once(connection: Connection, journal_id: str, batch: Batch, is_seal: bool) -> None:
        assert connection.execute(select(func.count()).select_from(attempts)).scalar() == 1
        if failures:
            raise failures.pop()

    traffic.write_call(new_journal(), 1)
    shipper = Shipper(database, journals_folder, hook=fail_once)
    with pytest.raises(OperationalError):
        catch_up(shipper)
    assert ledger(database) == ([], [], [])
    catch_up(shipper)
    assert [len(table) for table in ledger(database)] == [1, 1, 1]


def test_a_running_shipper_waits_for_a_database_that_is_away(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    failures = [OperationalError("INSERT", {}, Exception("away")) for _ in range(2)]
    shipped = asyncio.Event()

    def hook(connection: Connection, journal_id: str, batch: Batch, is_seal: bool) -> None:
        if failures:
            raise failures.pop()
        loop.call_soon_threadsafe(shipped.set)

    async def run_until_shipped() -> None:
        nonlocal loop
        loop = asyncio.get_running_loop()
        shipper = Shipper(database, journals_folder, hook=hook, after_failure_s=0.0)
        running = loop.create_task(shipper.run())
        await asyncio.wait_for(shipped.wait(), 10)
        await shipper.catch_up()
        assert "database" not in shipper.status.problems
        running.cancel()

    loop: asyncio.AbstractEventLoop
    traffic.write_call(new_journal(), 1)
    asyncio.run(run_until_shipped())
    assert [len(table) for table in ledger(database)] == [1, 1, 1]


def test_batches_are_short_while_grants_are_asked_for(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    """A grant waits for the writing thread, so no batch may keep it for long."""
    sizes: list[int] = []
    shipper = Shipper(database, journals_folder, hook=lambda _, __, batch, ___: sizes.append(len(batch.attempts)))
    writer = new_journal()

    def ship(calls: range) -> list[int]:
        sizes.clear()
        for number in calls:
            traffic.write_call(writer, number)
            if number % 50 == 0:
                asyncio.run(writer.keep_up())
        catch_up(shipper)
        assert sum(sizes) == len(calls)
        return list(sizes)

    assert len(ship(range(1200))) == 1
    shipper.note_grant()
    assert len(ship(range(2000, 3200))) > 1


def test_two_keepers_do_not_ship_the_same_journal_twice(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    first, second = Shipper(database, journals_folder), Shipper(database, journals_folder)
    catch_up(first)
    catch_up(second)
    for n in range(20):
        traffic.write_call(writer, n)
        catch_up((first, second)[n % 2])
    catch_up(first)
    catch_up(second)
    found, ended, (totals,) = ledger(database)
    assert len(found) == len(ended) == totals.requests == totals.attempts == 20


# --- dead workers ---------------------------------------------------------------------------------------------------------


def test_open_intents_of_a_dead_worker_become_unsettled_and_its_journal_is_sealed(
    database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    traffic.write_call(writer, 1)
    for n in (2, 3):
        traffic.write_open(writer, n, hold=5000)
    catch_up(shipper)
    assert len(rows(database, attempts)) == 1
    writer.close()
    catch_up(shipper)
    found, ended, (totals,) = ledger(database)
    assert [(row.end, row.cost_nanousd, row.reserved_nanousd) for row in found[1:]] == [("unsettled", 0, 5000)] * 2
    assert len(ended) == 1 and (totals.requests, totals.attempts) == (1, 3)
    (journal,) = rows(database, journals)
    assert journal.sealed_ms is not None and shipper.status.living == 0


def test_a_sealed_journal_is_never_shipped_again(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    traffic.write_open(writer, 1)
    writer.close()
    catch_up(Shipper(database, journals_folder))
    before = ledger(database)
    catch_up(Shipper(database, journals_folder))
    assert ledger(database) == before


def test_a_journal_that_died_while_no_keeper_ran_is_replayed(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()
    traffic.write_open(writer, 1)
    traffic.write_call(writer, 2)
    writer.close()
    catch_up(Shipper(database, journals_folder))
    assert [row.end for row in rows(database, attempts)] == ["unsettled", "complete"]


def test_a_sealed_journal_gives_its_unused_room_back(shipper: Shipper, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    traffic.write_call(writer, 1)
    writer.close()
    catch_up(shipper)
    sizes = {path.name: path.stat().st_size for path in writer.folder.iterdir()}
    assert sizes.keys() == {"lock", segment_name(1)} and sizes[segment_name(1)] < 2000


def test_damage_is_passed_said_and_its_journal_kept(database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    for n in range(1, 4):
        traffic.write_call(writer, n)
    writer.close()
    path = writer.folder / segment_name(1)
    data = bytearray(path.read_bytes())
    data[data.index(b"att_0002_1")] ^= 0xFF  # the intent of the second call
    path.write_bytes(data)
    shipper = Shipper(database, journals_folder, keep_s=-1)
    catch_up(shipper)
    found, ended, _ = ledger(database)
    assert [(row.call_id, row.cost_nanousd) for row in ended] == [(row.call_id, row.cost_nanousd) for row in found]
    assert len(found) == 3 and found[1].model == "sim/echo"
    (journal,) = rows(database, journals)
    assert "unreadable" in journal.damage
    shipper._next_clearing = 0.0
    catch_up(shipper)
    assert path.exists()


def test_one_unreadable_journal_does_not_hold_up_the_others(
    database: Database, shipper: Shipper, new_journal: NewJournal, traffic: Traffic
) -> None:
    bad, good = new_journal("jrn_bad"), new_journal("jrn_good")
    traffic.write_call(bad, 1)
    bad._append(9, b"of a kind to come")
    traffic.write_call(good, 2)
    catch_up(shipper)
    assert [row.call_id for row in rows(database, calls)] == ["req_0002"]
    assert "kind 9" in shipper.status.problems["jrn_bad"]
    traffic.write_call(good, 3)
    catch_up(shipper)
    assert [row.call_id for row in rows(database, calls)] == ["req_0002", "req_0003"]


# --- clearing -----------------------------------------------------------------------------------------------------------


def test_sealed_journals_are_removed_after_their_time(database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic) -> None:
    writer = new_journal()
    traffic.write_call(writer, 1)
    writer.close()
    catch_up(Shipper(database, journals_folder, keep_s=3600))
    catch_up(Shipper(database, journals_folder, keep_s=3600))
    assert writer.folder.exists()
    catch_up(Shipper(database, journals_folder, keep_s=-1))
    assert not writer.folder.exists()
    assert len(rows(database, attempts)) == 1


def test_shipped_segments_of_a_living_journal_are_removed_but_not_one_with_an_open_intent(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    writer = new_journal()

    def fill(first: int) -> None:
        for n in range(first, first + 450):
            traffic.write_call(writer, n)
            if n % 50 == 0:
                asyncio.run(writer.keep_up())

    traffic.write_call(writer, 0)
    fill(1000)
    traffic.write_open(writer, 1)
    fill(2000)
    for _ in range(2):  # ship, then look again with everything shipped
        catch_up(Shipper(database, journals_folder, keep_s=-1))
    (journal,) = rows(database, journals)
    kept = sorted(path.name for path in writer.folder.glob("*.seg"))
    assert 1 < journal.replay_segment < journal.shipped_segment
    assert kept[0] == segment_name(journal.replay_segment)
    writer.settled(encode_record(traffic.settled(1, call=traffic.call_end(1))))
    catch_up(Shipper(database, journals_folder))
    assert len(rows(database, attempts)) == 902


# --- processes that are killed --------------------------------------------------------------------------------------------

KEEPER = """
import sys
from aigate.keeper.db.engine import open_database
from aigate.keeper.shipper import Shipper
shipper = Shipper(open_database(sys.argv[1]), sys.argv[2])
print("ready", flush=True)
while True:
    shipper._next_look = 0.0
    shipper.ship()
"""


@pytest.mark.parametrize("seed", range(5))
def test_a_keeper_killed_at_any_moment_neither_loses_nor_doubles_a_row(
    tmp_path: Path, journals_folder: Path, new_journal: NewJournal, traffic: Traffic, seed: int
) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    url = database_url(tmp_path)
    database = open_database(url)
    writer = new_journal()
    n = 0
    for _ in range(4):
        keeper = subprocess.Popen([sys.executable, "-c", KEEPER, url, journals_folder], stdout=subprocess.PIPE)
        assert keeper.stdout is not None and keeper.stdout.readline() == b"ready\n"
        for _ in range(rng.randint(1, 300)):
            traffic.write_call(writer, n)
            n += 1
            if n % 50 == 0:
                asyncio.run(writer.keep_up())
        keeper.send_signal(signal.SIGKILL)
        keeper.wait()
        keeper.stdout.close()
    catch_up(Shipper(database, journals_folder))
    found, ended, (totals,) = ledger(database)
    assert [row.call_id for row in found] == [row.call_id for row in ended] == [f"req_{k:04d}" for k in range(n)]
    assert (totals.requests, totals.attempts) == (n, n)
    report = database.read_now(verify, journals_folder)
    assert report.counts.keys() <= {"price"}  # the prices were not saved
    database.close()


# --- waiting and costs ------------------------------------------------------------------------------------------------------


def test_finish_waits_for_the_workers_to_go(shipper: Shipper, new_journal: NewJournal, traffic: Traffic, database: Database) -> None:
    writer = new_journal()
    traffic.write_call(writer, 1)
    assert asyncio.run(shipper.finish(timeout_s=0)) is False
    traffic.write_call(writer, 2)

    async def finish_while_closing() -> bool:
        finishing = asyncio.ensure_future(shipper.finish(timeout_s=10))
        asyncio.get_running_loop().call_soon(writer.close)
        return await finishing

    assert asyncio.run(finish_while_closing()) is True
    assert len(rows(database, calls)) == 2


def test_catch_up_ships_what_is_there_when_it_is_called(shipper: Shipper, new_journal: NewJournal, traffic: Traffic, database: Database) -> None:
    async def call_and_catch_up() -> None:
        for n in range(6):
            traffic.write_call(new_journal(f"jrn_{n}") if n % 2 else writer, n)  # into a journal just begun, too
            await asyncio.gather(*(shipper.catch_up() for _ in range(3)))
            assert len(rows(database, calls)) == n + 1

    writer = new_journal()
    asyncio.run(call_and_catch_up())


def test_an_idle_shipper_touches_neither_database_nor_thread(
    database: Database, journals_folder: Path, new_journal: NewJournal, traffic: Traffic
) -> None:
    traffic.write_call(new_journal(), 1)
    shipper = Shipper(database, journals_folder)
    catch_up(shipper)
    database.close()  # any use would raise now
    shipper._next_look = time.monotonic() + 60

    async def idle() -> None:
        for _ in range(50):
            await shipper.catch_up()

    asyncio.run(idle())
