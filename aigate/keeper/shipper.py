"""Ships journals into the ledger: owns which records are in the tables, and the sealing and clearing of journals nobody holds.

Rows and the journal's offset move in one transaction, conditional on the old offset: a record is in the tables once, whatever dies
when. After any failure what is known of a journal is dropped and read again from the database's own offset; there is no other recovery.
A journal whose lock is free is dead: it is read to its end, its open intents become unsettled rows, and it is sealed.
Measured on SQLite: 12 microseconds of CPU a call of one attempt (reading 1, decoding and building rows 3, inserting and commit 8), and half
a millisecond a batch; one to two more where it was held on four budgets.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from sqlalchemy import Connection, select
from sqlalchemy.exc import DataError, SQLAlchemyError

from aigate.journal.reader import START, JournalReader, Position, Record
from aigate.journal.records import (
    ADOPTED,
    CALL_END,
    INTENT,
    RESTATED,
    RETURNED,
    SETTLED,
    Intent,
    Settled,
    decode_call_end,
    decode_intent,
    decode_leases,
    decode_settled,
)
from aigate.journal.segment import BadSegment, segment_name, segment_number
from aigate.keeper.db.balances import Balances
from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import AlreadyThere, Batch, driver_sql, write_batch
from aigate.keeper.db.tables import journals

log = logging.getLogger("aigate.shipper")

BATCH_BYTES = 512 << 10  # of journal, about 1,000 calls
SHORT_BATCH_BYTES = 128 << 10  # where grants need the database's writing thread too: some milliseconds of it
GRANTING_S = 60.0  # after the last ask for a grant
TURN_S = 0.002
POLL_S = 0.5  # few large batches cost less a row than many small ones; who asks for usage is shipped for at once
LOOK_AROUND_S = 1.0
AFTER_FAILURE_S = 1.0
KEEP_S = 7 * 86_400

_MOVE_OFFSET = (
    "UPDATE journals SET shipped_segment = ?, shipped_offset = ?, replay_segment = ?, replay_offset = ?, sealed_ms = ?, damage = ?"
    " WHERE id = ? AND shipped_segment = ? AND shipped_offset = ? AND sealed_ms IS NULL"
)

# Runs at the end of the transaction that ships a batch; `is_seal`: the journal's last one.
Hook = Callable[[Connection, str, Batch, bool], None]


class ShipperStatus(msgspec.Struct, frozen=True):
    living: int
    shipped_rows: int  # by this process
    problems: dict[str, str]  # journal id, or "database" → what keeps it from being shipped


class OffsetMoved(Exception):
    """Somebody else shipped this journal meanwhile."""


class BadRecord(Exception):
    """A whole record that this release cannot read: a newer worker wrote it. Shipping of that journal stops there, loudly."""


class _Journal:
    """What is known of one unsealed journal. Good until the first failure."""

    def __init__(self, folder: Path, shipped: Position, replay: Position):
        self.id = folder.name
        self.reader = JournalReader(folder, replay)
        self.shipped = shipped
        self.open: dict[str, tuple[Intent, int, int]] = {}  # attempt id → intent and its place, oldest first

    def make_batch(self, records: list[Record]) -> Batch:
        batch = Batch()
        shipped_segment, shipped_offset = self.shipped
        open_intents = self.open
        for kind, body, segment, offset in records:
            is_shipped = segment < shipped_segment or (segment == shipped_segment and offset < shipped_offset)
            try:
                if kind == INTENT:
                    intent = decode_intent(body)
                    open_intents[intent.attempt_id] = (intent, segment, offset)
                elif kind == SETTLED:
                    settled = decode_settled(body)
                    begun = open_intents.pop(settled.attempt_id, None)
                    if not is_shipped:
                        batch.add_attempt(begun[0] if begun else _lost_intent(settled), settled)
                        if settled.call is not None:
                            batch.add_call(settled.call)
                elif kind == CALL_END:
                    if not is_shipped:
                        batch.add_call(decode_call_end(body))
                elif kind in (RETURNED, ADOPTED, RESTATED):
                    if not is_shipped:
                        batch.add_leases(kind, decode_leases(body).leases)
                else:
                    raise BadRecord(f"record of kind {kind} at {segment}:{offset}; this release knows 1 to {RESTATED}")
            except msgspec.DecodeError as error:
                raise BadRecord(f"record at {segment}:{offset}: {error}") from error
        return batch

    def replay_position(self, end: Position) -> Position:
        for _, segment, offset in self.open.values():
            return Position(segment, offset)
        return end


def _lost_intent(settled: Settled) -> Intent:
    """Its intent was in a damaged part: the money is known, the rest as far as the call tells."""
    call = settled.call
    if call is None:
        return Intent(settled.attempt_id, "", 0, 0, "", "", 0, "", "", "", None, None)
    slug = call.served_by
    owner = (call.account_id, call.key_id, call.sub_account_id, call.tag)
    return Intent(settled.attempt_id, call.call_id, call.attempts, call.started_ms, slug.partition("/")[0], slug, 0, "", *owner)


class Shipper:
    """One per data directory. `ship` and all below it run on the database's writing thread."""

    def __init__(
        self,
        database: Database,
        folder: str | os.PathLike[str],
        *,
        keep_s: float = KEEP_S,
        after_failure_s: float = AFTER_FAILURE_S,
        hook: Hook | None = None,
        on_shipped: Callable[[Batch], None] | None = None,
    ):
        self.folder = Path(folder)
        self._database = database
        self._keep_s = keep_s
        self._after_failure_s = after_failure_s
        self._hook = hook
        self._on_shipped = on_shipped
        self._balances = Balances()
        self._journals: dict[str, _Journal] = {}
        self._present: set[str] = set()
        self._sealed: set[str] = set()
        self._problems: dict[str, str] = {}
        self._shipped_rows = 0
        self._granting_until = 0.0
        self._next_look = 0.0
        self._next_clearing = 0.0
        self._seen_folder_ns = 0
        self._turn = asyncio.Lock()

    @property
    def status(self) -> ShipperStatus:
        return ShipperStatus(len(self._journals), self._shipped_rows, dict(self._problems))

    def note_grant(self) -> None:
        """Somebody waits for a grant: batches are short for a while."""
        self._granting_until = time.monotonic() + GRANTING_S

    def unsealed(self) -> set[str]:
        """Journals that may still be written, or were not read to their end yet; without those that cannot be read."""
        return self._present - self._sealed - self._problems.keys()

    def not_read_out(self) -> set[str]:
        """Journals that may still be written or hold something that is not in the tables."""
        return self._present - self._sealed

    async def run(self) -> None:
        """Until cancelled. A database that is away is waited for: nothing is lost meanwhile, the journals grow."""
        while True:
            try:
                await self.catch_up()
                pause_s = POLL_S
            except (SQLAlchemyError, OSError) as error:
                self._note("database", str(error))
                pause_s = self._after_failure_s
            await asyncio.sleep(pause_s)

    async def catch_up(self, *, looks_around: bool = False) -> None:
        """Everything that is in the journals now is in the tables when this returns. `looks_around`: those of workers that have just died
        are sealed."""
        if looks_around:
            self._next_look = 0.0
        has_more = True
        while has_more:
            async with self._turn:
                has_more = self._has_news() and await self._database.on_write_thread(self.ship)

    async def finish(self, timeout_s: float) -> bool:
        """Ships until every journal is sealed (its worker has gone) or the time is up; whether all were."""
        deadline = time.monotonic() + timeout_s
        while True:
            self._next_look = 0.0
            await self.catch_up()
            if not self._journals or time.monotonic() > deadline:
                return not self._journals
            await asyncio.sleep(POLL_S / 4)

    def _has_news(self) -> bool:
        return self._is_time_to_look() or any(journal.reader.has_news() for journal in self._journals.values())

    def _is_time_to_look(self) -> bool:
        """A worker's death is seen at the next round, a new journal at once."""
        return time.monotonic() >= self._next_look or _changed_ns(self.folder) != self._seen_folder_ns

    # --- on the writing thread ----------------------------------------------------------------------------------------------

    def ship(self) -> bool:
        """One batch of each journal, or of as many as a turn allows: a grant may wait for the thread. Whether there may be more.
        Problems of one journal do not hold up the others."""
        if self._is_time_to_look():
            self._next_look = time.monotonic() + LOOK_AROUND_S
            self._seen_folder_ns = _changed_ns(self.folder)
            self._look_around()
        has_more = False
        turn_ends = time.monotonic() + TURN_S
        for journal in list(self._journals.values()):
            if time.monotonic() > turn_ends:
                return True
            with self._watching(journal.id):
                has_more |= self._ship_batch(journal)
                self._journals[journal.id] = self._journals.pop(journal.id)  # the others come first next time
        self._problems.pop("database", None)
        return has_more

    def _ship_batch(self, journal: _Journal) -> bool:
        start = journal.reader.position
        batch_bytes = SHORT_BATCH_BYTES if time.monotonic() < self._granting_until else BATCH_BYTES
        records = journal.reader.read(batch_bytes)
        if not records:
            return False
        self._commit(journal, journal.make_batch(records), sealed_ms=None)
        end = journal.reader.position
        return end.segment != start.segment or end.offset - start.offset >= batch_bytes

    def _seal(self, journal: _Journal) -> None:
        """The journal's lock is ours: nobody writes it any more."""
        while True:
            while self._ship_batch(journal):
                pass
            tail = journal.reader.tail()
            if tail != "damaged":
                break
            journal.reader.skip_damage()
        batch = Batch()
        for intent, _, _ in journal.open.values():
            batch.add_unsettled(intent)
        journal.open.clear()
        self._commit(journal, batch, sealed_ms=_now_ms())
        self._sealed.add(journal.id)
        del self._journals[journal.id]
        if journal.reader.damage:
            log.error("journal %s is damaged and kept: %s", journal.id, journal.reader.damage)
        elif tail == "end":
            self._give_back_room(journal)
        journal.reader.close()

    def _commit(self, journal: _Journal, batch: Batch, *, sealed_ms: int | None) -> None:
        try:
            written = self._database.write_now(self._write, journal, batch, sealed_ms=sealed_ms, is_careful=False)
        except (AlreadyThere, DataError, OverflowError):
            written = self._database.write_now(self._write, journal, batch, sealed_ms=sealed_ms, is_careful=True)
        journal.shipped = max(journal.shipped, journal.reader.position)
        self._shipped_rows += len(written.attempts) + len(written.calls)
        if self._on_shipped is not None:
            self._on_shipped(written)

    def _write(self, connection: Connection, journal: _Journal, batch: Batch, *, sealed_ms: int | None, is_careful: bool) -> Batch:
        end = max(journal.shipped, journal.reader.position)
        replay = journal.replay_position(end)
        values = (*end, *replay, sealed_ms, journal.reader.damage, journal.id, *journal.shipped)
        moved = connection.exec_driver_sql(driver_sql(connection, _MOVE_OFFSET), values)
        if moved.rowcount != 1:
            raise OffsetMoved(journal.id)
        written = write_batch(connection, batch, is_careful=is_careful)
        # What a damaged journal spent is not all known: its leases stay, until an operator writes them off.
        is_end = sealed_ms is not None and not journal.reader.damage
        self._balances.write(connection, journal.id, written, now_ms=_now_ms(), is_seal=is_end)
        if self._hook is not None:
            self._hook(connection, journal.id, batch, sealed_ms is not None)
        return written

    # --- journals come and go ---------------------------------------------------------------------------------------------

    def _look_around(self) -> None:
        if not self._seen_folder_ns:
            return  # no worker has started here yet
        names = [entry.name for entry in os.scandir(self.folder) if entry.is_dir() and not entry.name.startswith(".")]
        self._present = set(names)
        for name in names:
            if name not in self._sealed:
                with self._watching(name):
                    self._visit(name)
        if time.monotonic() >= self._next_clearing:
            self._next_clearing = time.monotonic() + 600
            for name in names:
                with self._watching(name):
                    self._clear(name)

    def _visit(self, name: str) -> None:
        journal = self._journals.get(name) or self._load(name)
        if journal is None:
            return
        lock_fd = os.open(self.folder / name / "lock", os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._seal(journal)
        except BlockingIOError:
            pass  # a living worker holds it
        finally:
            os.close(lock_fd)

    def is_living(self, journal_id: str) -> bool:
        """Whether a worker still writes this journal: it holds the lock as long as it lives, whatever its connection does."""
        try:
            lock_fd = os.open(self.folder / journal_id / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False  # no such journal here, or not any more
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock_fd)
        return False

    def _load(self, name: str) -> _Journal | None:
        shipped, replay, is_sealed = self._database.write_now(_register, name)
        if is_sealed:
            self._sealed.add(name)
            return None
        journal = self._journals[name] = _Journal(self.folder / name, shipped, replay)
        return journal

    def _clear(self, name: str) -> None:
        """Removes what was shipped long ago. A damaged journal is kept for whoever can read it."""
        folder, oldest_s = self.folder / name, time.time() - self._keep_s
        row = self._database.read_now(_row, name)
        if row.sealed_ms is not None and not row.damage and row.sealed_ms < oldest_s * 1000:
            shutil.rmtree(folder)
            self._sealed.discard(name)
        elif row.sealed_ms is None:
            for entry in list(os.scandir(folder)):
                number = segment_number(entry.name)
                if number is not None and number < row.replay_segment and entry.stat().st_mtime < oldest_s:
                    os.unlink(entry.path)

    def _give_back_room(self, journal: _Journal) -> None:
        """A sealed journal needs no preallocated room."""
        segment, offset = journal.reader.position
        os.truncate(journal.reader.folder / segment_name(segment), offset)
        for entry in list(os.scandir(journal.reader.folder)):
            number = segment_number(entry.name)
            if entry.name.endswith(".new") or (number is not None and number > segment):
                os.unlink(entry.path)

    @contextmanager
    def _watching(self, name: str) -> Iterator[None]:
        """The boundary of one journal's troubles: they are noted, what is known of it is dropped, the next look around begins again.
        A database that is away concerns all journals and goes on up."""
        try:
            yield
        except (BadSegment, BadRecord, OffsetMoved, OSError) as error:
            self._forget(name)
            self._note(name, f"{type(error).__name__}: {error}")
        except SQLAlchemyError:
            self._forget(name)
            self._next_look = 0.0
            raise
        else:
            self._problems.pop(name, None)

    def _note(self, name: str, problem: str) -> None:
        if self._problems.get(name) != problem:
            self._problems[name] = problem
            log.error("shipping %s: %s", name, problem)

    def _forget(self, name: str) -> None:
        journal = self._journals.pop(name, None)
        if journal is not None:
            journal.reader.close()


def _now_ms() -> int:
    return int(time.time() * 1000)


def _changed_ns(folder: Path) -> int:
    """When something came into the folder or left it; 0 = there is no folder."""
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:
        return 0


def _row(connection: Connection, name: str) -> object:
    return connection.execute(select(journals).where(journals.c.id == name)).one()


def _register(connection: Connection, name: str) -> tuple[Position, Position, bool]:
    """(shipped, replay, is sealed) of a journal, its row made if it is new."""
    row = connection.execute(select(journals).where(journals.c.id == name)).one_or_none()
    if row is not None:
        shipped, replay = Position(row.shipped_segment, row.shipped_offset), Position(row.replay_segment, row.replay_offset)
        return shipped, replay, row.sealed_ms is not None
    start = dict(shipped_segment=START.segment, shipped_offset=START.offset, replay_segment=START.segment, replay_offset=START.offset)
    connection.execute(journals.insert().values(id=name, node="", created_ms=_now_ms(), sealed_ms=None, damage="", **start))
    return START, START, False
