from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import random
import resource
import signal
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.errors import GatewayError
from aigate.journal.reader import JournalReader
from aigate.journal.records import CALL_END, INTENT, RETURNED, SETTLED, decode_settled
from aigate.journal.segment import FRAME_HEAD_BYTES, MAX_SETTLED_BODY_BYTES, SEGMENT_HEADER_BYTES, SLOT_BYTES
from aigate.journal.writer import MIN_SEGMENT_BYTES, JournalWriter

Bodies = Callable[..., tuple[bytes, bytes]]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    yield writer
    writer.close()


def read_all(folder: Path) -> list[tuple[int, bytes]]:
    reader, whole = JournalReader(folder), []
    while records := reader.read():
        whole += [(kind, body) for kind, body, _, _ in records]
    reader.close()
    return whole


def fill_with_intents(writer: JournalWriter, body: bytes) -> int:
    count = 0
    try:
        while True:
            writer.intent(body)
            count += 1
    except GatewayError as error:
        assert (error.status, error.code, error.retryable) == (503, "ledger_unavailable", True)
        return count


@contextmanager
def files_at_most(limit_bytes: int) -> Iterator[None]:
    """Writes beyond come up short or fail, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def lock_is_free(folder: Path) -> bool:
    with (folder / "lock").open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


# --- room ---------------------------------------------------------------------------------------------------------------


def test_when_the_room_is_used_up_intents_are_refused_and_running_attempts_still_settle(writer: JournalWriter) -> None:
    count = fill_with_intents(writer, b"i" * 300)
    assert count > 50 and not writer.healthy and "no room" in writer.reason
    for _ in range(count):
        writer.settled(b"s" * MAX_SETTLED_BODY_BYTES)
    assert (writer.lost_records, writer.open_intents, writer.trouble) == (0, 0, "")
    assert read_all(writer.folder) == [(INTENT, b"i" * 300)] * count + [(SETTLED, b"s" * MAX_SETTLED_BODY_BYTES)] * count


def test_new_segments_bring_the_intents_back(writer: JournalWriter) -> None:
    first = fill_with_intents(writer, b"i")
    asyncio.run(writer.keep_up())
    assert writer.healthy and writer.reason == ""
    assert fill_with_intents(writer, b"i") > 0
    assert writer.open_intents > first


def test_upkeep_keeps_a_busy_journal_going_over_many_segments(writer: JournalWriter, bodies: Bodies) -> None:
    async def write_and_keep_up() -> None:
        for n in range(2000):
            intent, settled = bodies(n)
            writer.intent(intent)
            writer.settled(settled)
            if n % 100 == 0:
                await writer.keep_up()

    asyncio.run(write_and_keep_up())
    assert writer.lost_records == 0
    assert [body for _, body in read_all(writer.folder)] == [body for n in range(2000) for body in bodies(n)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("isc"), st.integers(0, 60_000)), max_size=150))
def test_no_order_of_records_ever_leaves_an_intent_without_room(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    writer = JournalWriter(tmp_path_factory.mktemp("room"), "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    written: list[int] = []
    for step, size in steps:
        lost = writer.lost_records
        if step == "i":
            try:
                writer.intent(bytes(size))
            except GatewayError:
                continue
            written.append(INTENT)
        elif step == "s" and writer.open_intents:
            writer.settled(bytes(size % MAX_SETTLED_BODY_BYTES))
            written.append(SETTLED)
            assert writer.lost_records == lost
        elif step == "c":
            writer.call_end(bytes(size))
            written += [CALL_END] * (writer.lost_records == lost)
    while writer.open_intents:
        writer.settled(bytes(MAX_SETTLED_BODY_BYTES))
        written.append(SETTLED)
    assert writer.trouble == ""
    assert [kind for kind, _ in read_all(writer.folder)] == written
    writer.close()


def test_a_settled_record_beyond_its_slot_keeps_its_numbers(writer: JournalWriter, bodies: Bodies) -> None:
    intent, settled = bodies(1, raw_usage=b"u" * SLOT_BYTES)
    writer.intent(intent)
    writer.settled(settled)
    written = decode_settled(read_all(writer.folder)[1][1])
    assert (written.cost_nanousd, written.output_tokens, written.raw_usage) == (7, 1, b"")


def test_an_intent_larger_than_a_record_may_be_is_refused(writer: JournalWriter) -> None:
    with pytest.raises(GatewayError, match="Nothing was sent"):
        writer.intent(bytes(70_000))
    assert read_all(writer.folder) == []


# --- records of one turn ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("iscrf"), st.integers(0, 30_000)), max_size=120))
def test_held_records_stand_in_their_order_once_flushed(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[str, int]]
) -> None:
    """Some are held, some not; now and then leases move, which waits for nothing."""
    writer = JournalWriter(tmp_path_factory.mktemp("held"), "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    written: list[tuple[int, int]] = []

    def write(step: str, size: int) -> bool:
        lost = writer.lost_records
        if step == "i":
            writer.intent(bytes(size))
        elif step == "s":
            writer.settled(bytes(size))
        elif step == "c":
            writer.call_end(bytes(size))
        else:
            return writer.move_leases(RETURNED, [(1, "2026-11", size)])
        return writer.lost_records == lost

    for step, size in steps:
        writer.holds = lambda size=size: size % 3 > 0
        kind = {"i": INTENT, "s": SETTLED, "c": CALL_END, "r": RETURNED}.get(step)
        if kind is None:
            writer.flush()
            assert len(read_all(writer.folder)) == len(written)
        elif kind != SETTLED or writer.open_intents:
            size %= MAX_SETTLED_BODY_BYTES
            with suppress(GatewayError):
                if write(step, size):
                    written.append((kind, size))
            if written and written[-1][0] == RETURNED:
                assert len(read_all(writer.folder)) == len(written)
    writer.close()
    assert writer.trouble == "closed"
    records = [(kind, len(body)) for kind, body in read_all(writer.folder)]
    assert [(kind, size) if kind != RETURNED else kind for kind, size in records] == [
        (kind, size) if kind != RETURNED else kind for kind, size in written
    ]


def test_a_held_record_is_not_in_the_file_before_the_flush(writer: JournalWriter) -> None:
    writer.holds = lambda: True
    writer.intent(b"one")
    writer.settled(b"two")
    assert read_all(writer.folder) == []
    writer.flush()
    assert read_all(writer.folder) == [(INTENT, b"one"), (SETTLED, b"two")]


@pytest.mark.parametrize("room", range(0, 141, 5))
def test_of_a_flush_cut_anywhere_whole_records_stand_and_only_the_other_intents_are_refused(tmp_path: Path, room: int) -> None:
    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    for _ in range(2):
        writer.intent(b"running")
    begin = SEGMENT_HEADER_BYTES + 2 * (FRAME_HEAD_BYTES + 7)
    writer.holds = lambda: True
    refused: list[tuple[int, GatewayError]] = []
    for number in range(2):
        writer.settled(b"the end %d" % number)
        writer.intent(b"intent %d" % number + b"." * 20, lambda error, number=number: refused.append((number, error)))
    writer.call_end(b"no money")
    with files_at_most(begin + room):
        writer.flush()
    assert writer.trouble and not writer.healthy
    with pytest.raises(GatewayError, match="Nothing was sent"):
        writer.intent(b"later")
    records = read_all(writer.folder)[2:]
    intents = [body for kind, body in records if kind == INTENT]
    assert len(intents) + len(refused) == 2 and len(intents) == writer.open_intents
    assert [number for number, _ in refused] == list(range(len(intents), 2))
    assert all((error.status, error.code) == (503, "ledger_unavailable") for _, error in refused)
    ends = [body for kind, body in records if kind == SETTLED]
    assert len(ends) + writer.lost_records == 3  # the call's end gives way, the attempts' ends were written again where there was room
    assert ends == [b"the end 0", b"the end 1"][: len(ends)]
    writer.close()


def test_ends_of_attempts_in_a_flush_that_failed_are_written_into_their_room(writer: JournalWriter) -> None:
    for _ in range(2):
        writer.intent(b"running")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer.holds = lambda: True
    writer.intent(b"the disk has room again when this is refused", lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, limits))
    for number in range(2):
        writer.settled(b"the end %d" % number)
    resource.setrlimit(resource.RLIMIT_FSIZE, (SEGMENT_HEADER_BYTES + 100, limits[1]))
    writer.flush()
    assert (writer.lost_records, writer.open_intents) == (0, 0)
    assert read_all(writer.folder)[2:] == [(SETTLED, b"the end 0"), (SETTLED, b"the end 1")]


# --- failing disks ------------------------------------------------------------------------------------------------------


def test_a_short_write_stops_intents_for_good_while_running_attempts_settle(writer: JournalWriter) -> None:
    writer.intent(b"running")
    with files_at_most(SEGMENT_HEADER_BYTES + 100), pytest.raises(GatewayError, match="bytes were written"):
        writer.intent(b"cut short" * 20)
    with pytest.raises(GatewayError, match="bytes were written"):
        writer.intent(b"later")
    assert not writer.healthy
    writer.settled(b"it ends well")
    assert writer.lost_records == 0
    assert read_all(writer.folder) == [(INTENT, b"running"), (SETTLED, b"it ends well")]


def test_a_refused_write_stops_intents_and_a_settled_record_that_is_lost_is_counted(writer: JournalWriter) -> None:
    writer.intent(b"running")
    with files_at_most(SEGMENT_HEADER_BYTES):
        with pytest.raises(GatewayError, match="write failed"):
            writer.intent(b"refused")
        writer.settled(b"lost")
    assert (writer.lost_records, writer.healthy) == (1, False)


def test_a_full_disk_refuses_intents_until_there_is_space_again(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(disk)]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system is not allowed here")
    try:
        _fill_and_free(disk)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def _fill_and_free(disk: Path) -> None:
    writer = JournalWriter(disk / "journals", "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)  # two fit, a third does not
    (disk / "other").write_bytes(bytes(20_000))
    count = fill_with_intents(writer, b"i" * 1000)
    asyncio.run(writer.keep_up())
    assert not writer.healthy
    with pytest.raises(GatewayError, match="journal is full"):
        writer.intent(b"i")
    for _ in range(count):
        writer.settled(b"s" * 1000)
    assert writer.lost_records == 0
    assert len(read_all(writer.folder)) == 2 * count
    assert fill_with_intents(writer, b"i") >= 0
    subprocess.run(["mount", "-o", "remount,size=4m", str(disk)], check=True)
    asyncio.run(writer.keep_up())
    assert writer.healthy
    writer.intent(b"again")
    writer.close()


def test_a_failed_sync_stops_intents_and_is_never_tried_again(tmp_path: Path) -> None:
    syncs: list[int] = []

    def fail(fd: int) -> None:
        syncs.append(fd)
        raise OSError(5, "Input/output error")

    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES, sync=fail)
    writer.intent(b"running")
    asyncio.run(writer.keep_up())
    with pytest.raises(GatewayError, match=r"sync failed \(Input/output error\)"):
        writer.intent(b"refused")
    writer.settled(b"running ends")
    asyncio.run(writer.keep_up())
    writer.close()
    assert len(syncs) == 1
    assert read_all(writer.folder) == [(INTENT, b"running"), (SETTLED, b"running ends")]


def test_only_what_was_written_since_is_synced(tmp_path: Path) -> None:
    syncs: list[int] = []
    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES, sync=syncs.append)
    asyncio.run(writer.keep_up())
    assert syncs == []
    for _ in range(5):
        writer.call_end(bytes(40_000))
    asyncio.run(writer.keep_up())
    assert len(syncs) == 2  # the full segment, and the one being written
    asyncio.run(writer.keep_up())
    assert len(syncs) == 2
    writer.close()


# --- the lock, and sudden death -----------------------------------------------------------------------------------------


def test_the_journal_is_locked_as_long_as_its_writer_lives(writer: JournalWriter) -> None:
    assert not lock_is_free(writer.folder)
    writer.close()
    writer.close()
    assert lock_is_free(writer.folder)
    with pytest.raises(GatewayError, match="closed"):
        writer.intent(b"too late")


def test_a_journal_is_never_visible_unlocked_or_empty(tmp_path: Path) -> None:
    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    assert [entry.name for entry in tmp_path.iterdir()] == ["jrn_a"]
    assert oct(writer.folder.stat().st_mode & 0o777) == "0o700"
    with pytest.raises(OSError):
        JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    assert not lock_is_free(writer.folder)
    writer.close()


KILLS = 20
CHILD = """
import asyncio, mmap, os, struct, sys
from aigate.journal.writer import JournalWriter

async def main(folder, journal_id, counter):
    counter = mmap.mmap(os.open(counter, os.O_RDWR), 8)
    writer = JournalWriter(folder, journal_id, segment_bytes=1 << 20)
    n = 0
    while True:
        for _ in range(50):
            writer.intent(b"intent %d " % n + bytes(n % 700))
            writer.settled(b"settled %d " % n + bytes(n % 3000))
            n += 1
            struct.pack_into("<Q", counter, 0, n)
        await writer.keep_up()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize("seed", range(KILLS))
def test_whatever_was_appended_before_a_sigkill_is_read(tmp_path: Path, seed: int) -> None:
    print("seed", seed)
    rng = random.Random(seed)
    counter_file = tmp_path / "counter"
    counter_file.write_bytes(bytes(8))
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path / "journals", "jrn_a", counter_file])
    wanted = rng.randint(1, 3000)
    with counter_file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as counter:
        while struct.unpack_from("<Q", counter)[0] < wanted:
            assert child.poll() is None
            os.sched_yield()
        child.send_signal(signal.SIGKILL)
        child.wait()
        (done,) = struct.unpack_from("<Q", counter)
    records = read_all(tmp_path / "journals" / "jrn_a")
    expected = [record for n in range(done + 1) for record in (
        (INTENT, b"intent %d " % n + bytes(n % 700)), (SETTLED, b"settled %d " % n + bytes(n % 3000)))]  # fmt: skip
    assert records == expected[: len(records)]
    assert len(records) >= 2 * done
    assert lock_is_free(tmp_path / "journals" / "jrn_a")


def test_the_journals_task_syncs_after_each_burst_and_sleeps_between(tmp_path: Path) -> None:
    async def write_in_bursts() -> None:
        synced = asyncio.Event()
        loop = asyncio.get_running_loop()

        def sync(_fd: int) -> None:
            loop.call_soon_threadsafe(synced.set)

        writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES, sync=sync)
        task = loop.create_task(writer.run_sync(0.0))
        for _ in range(3):
            writer.intent(b"i")
            writer.settled(b"s")
            await asyncio.wait_for(synced.wait(), 10)
            synced.clear()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.close()

    asyncio.run(write_in_bursts())
