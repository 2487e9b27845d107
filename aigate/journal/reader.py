"""Reads one journal, living or dead, from any position. Owns how records are found across segments; never writes, never locks.

A reader may run while the writer appends: a record that is not whole yet is simply not there yet. Whether the journal is over is
known only to the holder of its lock, who asks `tail()` after the last `read`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from aigate.journal.segment import (
    MAX_RECORD_BYTES,
    SEGMENT_HEADER_BYTES,
    BadSegment,
    check_segment_header,
    find_frame,
    is_torn,
    scan_frames,
    segment_name,
    segment_number,
)

READ_BYTES = 128 << 10  # more than any record

Record = tuple[int, bytes, int, int]  # kind, body, and where it begins: segment, offset


class Position(NamedTuple):
    segment: int
    offset: int


START = Position(1, SEGMENT_HEADER_BYTES)


class JournalReader:
    """Keeps the current segment open between reads. `position`: after the last record given out. `damage`: what had to be skipped."""

    def __init__(self, folder: str | os.PathLike[str], position: Position = START):
        self.folder = Path(folder)
        self.position = position
        self.damage = ""
        self._fd = -1
        self._size_bytes = 0
        self._next_seq = -1  # -1: take the first one met

    def has_news(self) -> bool:
        """Whether a read may give something: one small system call, for pollers."""
        if not self._open():
            return False
        if any(os.pread(self._fd, 4, self.position.offset)):
            return True
        # The writer only goes on to the next segment where a record may not fit this one.
        return self._size_bytes - self.position.offset < MAX_RECORD_BYTES and self._is_begun(self.position.segment + 1)

    def read(self, limit_bytes: int = 1 << 20) -> list[Record]:
        """The records from `position` on, about `limit_bytes` of them; [] when there are none (yet). Raises BadSegment."""
        records: list[Record] = []
        seen_bytes = 0
        while seen_bytes < limit_bytes and self._open():
            got_bytes = self._read_chunk(records)
            if not got_bytes:
                if not self._is_begun(self.position.segment + 1):
                    break
                got_bytes = self._read_chunk(records)  # the writer may have been here between our two looks; it never comes back
                if not got_bytes:
                    self._go_to(Position(self.position.segment + 1, SEGMENT_HEADER_BYTES))
            seen_bytes += got_bytes
        return records

    def tail(self) -> str:
        """For a journal that nobody writes any more, read to its end: "end", "torn" (a crash cut the last record) or "damaged"
        (whole records lie beyond what cannot be read: `skip_damage` goes there)."""
        if self._first_beyond() is not None:
            return "damaged"
        return "torn" if self._open() and is_torn(self._rest(), 0) else "end"

    def skip_damage(self) -> None:
        beyond = self._first_beyond()
        if beyond is not None:
            self._note_damage(f"unreadable from {self.position.segment}:{self.position.offset} to {beyond.segment}:{beyond.offset}")
            self._go_to(beyond)
            self._next_seq = -1

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    # --- inside -------------------------------------------------------------------------------------------------------------

    def _open(self) -> bool:
        if self._fd >= 0:
            return True
        number = self.position.segment
        try:
            fd = os.open(self.folder / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            check_segment_header(os.pread(fd, SEGMENT_HEADER_BYTES, 0), self.folder.name, number)
        except BadSegment:
            os.close(fd)
            raise
        self._fd = fd
        self._size_bytes = os.fstat(fd).st_size
        return True

    def _read_chunk(self, records: list[Record]) -> int:
        """Appends what one read gives; returns how many bytes of records that was."""
        segment, offset = self.position
        data = os.pread(self._fd, READ_BYTES, offset)
        at, next_seq = 0, self._next_seq
        for seq, kind, body, end in scan_frames(data):
            if seq != next_seq and next_seq >= 0:
                if at or offset != SEGMENT_HEADER_BYTES or seq < next_seq:
                    break  # left over from a write that failed: not ours to read
                self._note_damage(f"records {next_seq} to {seq - 1} are missing before segment {segment}")
            records.append((kind, body, segment, offset + at))
            at, next_seq = end, seq + 1
        self._next_seq = next_seq
        self.position = Position(segment, offset + at)
        return at

    def _go_to(self, position: Position) -> None:
        if position.segment != self.position.segment:
            self.close()
        self.position = position

    def _note_damage(self, words: str) -> None:
        self.damage = f"{self.damage}; {words}".lstrip("; ")[:1000]

    def _rest(self) -> bytes:
        return os.pread(self._fd, self._size_bytes, self.position.offset)

    def _first_beyond(self) -> Position | None:
        """Where the next whole record lies, past whatever stands at `position`."""
        if self._open() and (at := find_frame(self._rest(), 0)) >= 0:
            return Position(self.position.segment, self.position.offset + at)
        for number in self._numbers():
            if number > self.position.segment and self._is_begun(number):
                return Position(number, SEGMENT_HEADER_BYTES)
        return None

    def _is_begun(self, number: int) -> bool:
        try:
            fd = os.open(self.folder / segment_name(number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            return any(os.pread(fd, 4, SEGMENT_HEADER_BYTES))
        finally:
            os.close(fd)

    def _numbers(self) -> list[int]:
        return sorted(number for name in os.listdir(self.folder) if (number := segment_number(name)) is not None)
