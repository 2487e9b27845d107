"""The journal of one worker process: owns its folder, its lock and the order of its records. Called only from the event loop.

Records are appended by `pwrite` at our own offset into preallocated room; where `holds` says so, all records of a turn of the loop in
one, by `flush`. Every open intent has a slot reserved for its settled record, so running attempts settle when the disk is full: only
intents are refused. Spare segments are made and data is synced by `run_sync` in a thread. A failed write or sync is never retried in
place: it stops intents for the life of the process.
Not for network file systems (locks and syncs mean nothing there).
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from zlib import crc32

from aigate.core.budget import Lease
from aigate.errors import GatewayError, ledger_unavailable
from aigate.journal.records import (
    ADOPTED,
    CALL_END,
    INTENT,
    MAX_LEASES,
    RESTATED,
    SETTLED,
    Leases,
    encode_record,
    fit_call_end,
    fit_settled,
)
from aigate.journal.segment import (
    FRAME_HEAD_BYTES,
    FRAME_INNER,
    FRAME_PREFIX,
    MAX_BODY_BYTES,
    MAX_RECORD_BYTES,
    MAX_SETTLED_BODY_BYTES,
    SEGMENT_HEADER_BYTES,
    SLOT_BYTES,
    segment_header,
    segment_name,
)

MIN_SEGMENT_BYTES = 2 * MAX_RECORD_BYTES
_pack_prefix, _pack_inner, _pwrite = FRAME_PREFIX.pack, FRAME_INNER.pack, os.pwrite

Refuse = Callable[[GatewayError], None]
_Held = tuple[int, bytes, Refuse | None]  # kind, body, and for an intent who is told that it could not be written


class JournalWriter:
    """`intent` may raise GatewayError (503 ledger_unavailable), or say so later by `refuse`, and then nothing may be sent; `settled` and
    `call_end` never raise: what they could not write is counted in `lost_records` and said by `trouble`.

    `holds`: asked before each record; True promises a `flush` before anything is sent that relies on the record."""

    __slots__ = (
        "folder", "journal_id", "segment_bytes", "trouble", "lost_records", "open_intents", "is_closed", "holds", "_held", "_written_to",
        "_lock_fd", "_fd", "_offset", "_seq", "_spares", "_spare_slots", "_slots_per_segment", "_retired", "_is_dirty", "_next_number",
        "_sync_file", "_written",
    )  # fmt: skip

    def __init__(
        self,
        folder: str | os.PathLike[str],
        journal_id: str,
        *,
        segment_bytes: int = 16 << 20,
        sync: Callable[[int], None] = os.fdatasync,
    ):
        if segment_bytes < MIN_SEGMENT_BYTES:
            raise ValueError(f"segment_bytes is {segment_bytes}; at least {MIN_SEGMENT_BYTES} is needed")
        self.journal_id = journal_id
        self.segment_bytes = segment_bytes
        self._sync_file = sync
        self.trouble = ""  # why intents are refused for good; "" = they are not
        self.lost_records = 0
        self.open_intents = 0
        self.is_closed = False
        self.holds: Callable[[], bool] = lambda: False
        self._held: list[_Held] = []
        self._seq = 0  # of the next record that is written
        self._next_number = 1
        self._spares: deque[int] = deque()
        self._slots_per_segment = (segment_bytes - SEGMENT_HEADER_BYTES) // SLOT_BYTES
        self._spare_slots = 0
        self._retired: list[int] = []  # full segments that may hold unsynced records
        self._is_dirty = False
        self._written = asyncio.Event()  # set by the first record since the last sync
        self.folder = Path(folder) / journal_id
        self._lock_fd = self._create_folder()
        self._fd = self._create_segment()
        self._offset = self._written_to = SEGMENT_HEADER_BYTES  # where the next record goes; where those held begin
        self._add_spare(self._create_segment())

    # --- records ----------------------------------------------------------------------------------------------------------

    @property
    def healthy(self) -> bool:
        return not self.trouble and self._free_slots() > self.open_intents

    @property
    def reason(self) -> str:
        """Why it is not healthy; "" when it is."""
        if self.trouble or self.healthy:
            return self.trouble
        return "no room in the journal for another settled record"

    def intent(self, body: bytes, refuse: Refuse | None = None) -> None:
        """On disk's way before the attempt is sent; reserves the room of its settled record."""
        size = FRAME_HEAD_BYTES + len(body)
        if self.trouble:
            raise self._refusal()
        if size > MAX_RECORD_BYTES:
            raise ledger_unavailable(f"The attempt's record has {size} bytes, at most {MAX_RECORD_BYTES} fit the journal. Nothing was sent.")
        # Almost always each spare slot suffices and the record fits the segment; else it is counted exactly.
        is_plenty = self.open_intents < self._spare_slots and self._offset + size <= self.segment_bytes
        if not is_plenty and not self._has_room(size, self.open_intents + 1):
            raise ledger_unavailable("The ledger's journal is full. Nothing was sent; retry shortly.")
        if not self._append(INTENT, body, refuse):
            raise self._refusal()
        self.open_intents += 1

    def settled(self, body: bytes) -> None:
        """Goes into the room its intent reserved. Too large a record loses its raw usage and warnings, never its numbers."""
        if len(body) > MAX_SETTLED_BODY_BYTES:
            body = fit_settled(body, MAX_SETTLED_BODY_BYTES)
        self.open_intents -= 1
        if not self._append(SETTLED, body):
            self.lost_records += 1

    def call_end(self, body: bytes) -> None:
        """The end of a call that never reached an attempt: no money, so it gives way when only reserved room is left."""
        if len(body) > MAX_BODY_BYTES:
            body = fit_call_end(body, MAX_BODY_BYTES)
        size = FRAME_HEAD_BYTES + len(body)
        if self.trouble or not self._has_room(size, self.open_intents) or not self._append(CALL_END, body):
            self.lost_records += 1

    def move_leases(self, kind: int, leases: Sequence[Lease]) -> bool:
        """RETURNED, ADOPTED or RESTATED, in as many records as it takes. False where they are not all written: nobody may rely on them.
        They are not held: the keeper is told of them at once."""
        for start in range(0, max(len(leases), 1), MAX_LEASES):
            body = encode_record(Leases(tuple(leases[start : start + MAX_LEASES])))
            size = FRAME_HEAD_BYTES + len(body)
            if start and kind == RESTATED:
                kind = ADOPTED  # a second RESTATED would void the first
            if self.trouble or not self._has_room(size, self.open_intents) or not self._append(kind, body, may_wait=False):
                return False
        return True

    def _has_room(self, size: int, open_intents: int) -> bool:
        """Whether a record of `size` leaves a slot for each open intent. A slot never spans two segments, so each counts whole ones."""
        left = self.segment_bytes - self._offset - size
        if left >= 0:
            return left // SLOT_BYTES + self._spare_slots >= open_intents
        return bool(self._spares) and self._spare_slots - -(-size // SLOT_BYTES) >= open_intents

    def _append(self, kind: int, body: bytes, refuse: Refuse | None = None, *, may_wait: bool = True) -> bool:
        """False: it is not written, and never will be. True: it is, or it is held."""
        size = FRAME_HEAD_BYTES + len(body)
        if self._offset + size > self.segment_bytes and not self._rotate():
            return False
        if may_wait and self.holds():
            self._held.append((kind, body, refuse))
            self._offset += size
            return True
        self.flush()
        return self._write(((kind, body, None),), size) == size

    def flush(self) -> None:
        """Writes what is held."""
        held = self._held
        if held:
            self._held = []
            size = self._offset - self._written_to
            self._offset = self._written_to
            written = self._write(held, size)
            if written != size:
                self._write_rest(held, written)

    def _write(self, records: Sequence[_Held], size: int) -> int:
        """How many of the `size` bytes of the records' frames were written at the offset, which moves on if it was all of them."""
        seq, offset = self._seq, self._offset
        frames = []
        for kind, body, _ in records:
            inner = _pack_inner(seq, kind) + body
            length = len(inner)
            frames.append(_pack_prefix(length, crc32(inner, length)))
            frames.append(inner)
            seq += 1
        try:
            written = _pwrite(self._fd, b"".join(frames), offset)
        except OSError as error:
            self._fail(f"write failed ({error.strerror})")
            return 0
        if written != size:  # the offset stands: a later settled record overwrites the torn one
            self._fail(f"only {written} of {size} bytes were written")
            return written
        self._offset = self._written_to = offset + size
        self._seq = seq
        if not self._is_dirty:
            self._is_dirty = True
            self._written.set()
        return size

    def _write_rest(self, held: list[_Held], written: int) -> None:
        """After a write that came short: the records that are whole stand, intents behind them are refused, ends of attempts are
        written again into their reserved room."""
        for kind, body, refuse in held:
            size = FRAME_HEAD_BYTES + len(body)
            written -= size
            if written >= 0:
                self._seq += 1
                self._offset = self._written_to = self._offset + size
            elif kind == INTENT:
                self.open_intents -= 1
                if refuse is not None:
                    refuse(self._refusal())
            elif kind != SETTLED or self._write(((kind, body, None),), size) != size:
                self.lost_records += 1

    def _refusal(self) -> GatewayError:
        return ledger_unavailable(f"The ledger's journal cannot be written: {self.trouble}. Nothing was sent; retry later.")

    def _rotate(self) -> bool:
        """To the next prepared segment. There is one whenever a slot is reserved (`_has_room`)."""
        self.flush()
        if not self._spares:
            return self._fail("no prepared segment is left")
        self._retired.append(self._fd)
        self._fd = self._spares.popleft()
        self._spare_slots -= self._slots_per_segment
        self._offset = self._written_to = SEGMENT_HEADER_BYTES
        return True

    def _fail(self, trouble: str) -> bool:
        self.trouble = self.trouble or trouble
        return False

    def _free_slots(self) -> int:
        return (self.segment_bytes - self._offset) // SLOT_BYTES + self._spare_slots

    # --- upkeep: off the event loop -----------------------------------------------------------------------------------------

    async def run_sync(self, interval_s: float) -> None:
        """Group sync and spare segments until cancelled. The only task of the journal; asleep while nothing is written."""
        while True:
            if not self._is_dirty and not self._needs_spare():
                self._written.clear()
                await self._written.wait()
            await asyncio.sleep(interval_s)
            await self.keep_up()

    async def keep_up(self) -> None:
        """One turn: a spare segment where one is due, then everything written so far onto the disk."""
        loop = asyncio.get_running_loop()
        if self._needs_spare() and not self.trouble:
            try:
                self._add_spare(await loop.run_in_executor(None, self._create_segment))
            except OSError:
                pass  # said by `healthy` and by `intent` once the room is used up; tried again at the next turn
        if self._is_dirty and not self.trouble:
            self._is_dirty = False
            retired, self._retired = self._retired, []
            try:
                await loop.run_in_executor(None, self._sync, retired, self._fd)
            except OSError as error:
                # What the kernel did with the dirty pages is unknown now: a second sync could lie.
                self._fail(f"sync failed ({error.strerror})")

    def _needs_spare(self) -> bool:
        return not self._spares or self._free_slots() < self.open_intents + self._slots_per_segment // 2

    def _add_spare(self, fd: int) -> None:
        self._spares.append(fd)
        self._spare_slots += self._slots_per_segment

    def _create_segment(self) -> int:
        """A preallocated file, header and directory entry on disk. Made under another name, so a reader never meets a half."""
        number = self._next_number
        final = self.folder / segment_name(number)
        fd = os.open(f"{final}.new", os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, self.segment_bytes)
            header = segment_header(self.journal_id, number)
            if os.pwrite(fd, header, 0) != len(header):
                raise OSError(28, "segment header cut short")
            os.fsync(fd)
            os.rename(f"{final}.new", final)
            _sync_folder(self.folder)
        except OSError:
            os.close(fd)
            os.unlink(f"{final}.new")
            raise
        self._next_number += 1
        return fd

    def _create_folder(self) -> int:
        """The journal's folder, locked before any reader can see it: an unlocked journal is a dead one."""
        hidden = self.folder.with_name(f".{self.journal_id}.new")
        hidden.mkdir(mode=0o700, parents=True)
        fd = os.open(hidden / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        hidden.rename(self.folder)
        _sync_folder(self.folder.parent)
        return fd

    def _sync(self, retired: list[int], current: int) -> None:
        """The full segments first, each then closed for good; they are never written again."""
        while retired:
            self._sync_file(retired[-1])
            os.close(retired.pop())
        self._sync_file(current)

    def close(self) -> None:
        """Syncs what was written and lets the lock go: from now on the journal may be replayed and sealed."""
        if self.is_closed:
            return
        self.is_closed = True
        self.flush()
        try:
            if not self.trouble:
                self._sync(self._retired, self._fd)
        finally:
            self.trouble = self.trouble or "closed"
            os.close(self._fd)
            for fd in self._spares:
                os.close(fd)
            os.close(self._lock_fd)


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
