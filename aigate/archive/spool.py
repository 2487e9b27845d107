"""A worker's spools: ended calls, written many at a time, off every path that a client waits on. Shell.

One spool a retention (days), so that what is to go together lies together. A spool is held by an OS lock as long as its writer lives or
has not gone on to the next: who gets the lock has all of it. Nothing is synced and nothing fails a call: what cannot be written is counted.
A write costs as much as all the rest, so calls wait for each other, a second at most, unless they must be there at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from aigate.archive.records import ArchivedCall, add_frame

ROLL_BYTES = 16 << 20
ROLL_S = 600.0
WRITE_BYTES = 64 << 10  # waiting for `tick`, until this is full
SUFFIX = ".spool"


class Spool:
    """`name`: of the writer, unlike any other's in the folder. `lost`: calls that should have been kept and are not."""

    def __init__(self, folder: Path, name: str, *, roll_bytes: int = ROLL_BYTES, roll_s: float = ROLL_S):
        self.lost = 0
        self._folder = folder
        self._name = name
        self._roll_bytes = roll_bytes
        self._roll_s = roll_s
        self._number = 0
        self._open: dict[int, tuple[int, int, float]] = {}  # days → file, bytes in it, when it was begun
        self._now = 0.0
        self._waiting: dict[int, _Waiting] = {}  # days → what is not written yet

    def keep(self, call: ArchivedCall, days: int, at_once: bool = False) -> None:
        waiting = self._waiting.get(days)
        if waiting is None:
            waiting = self._waiting[days] = _Waiting()
        add_frame(waiting.frames, call)
        waiting.calls += 1
        if at_once or len(waiting.frames) >= WRITE_BYTES:
            self.flush()

    def flush(self) -> None:
        """What waits is in its spool when this returns, or counted as lost."""
        waiting, self._waiting = self._waiting, {}
        for days, each in waiting.items():
            self._write(days, each.frames, each.calls)

    def _write(self, days: int, frames: bytearray, calls: int) -> None:
        try:
            file, size, begun = self._open.get(days) or self._begin(days)
            if os.write(file, frames) != len(frames):
                raise OSError("short write")
        except OSError:
            self.lost += calls
            self._close(days)  # half a frame ends a spool; the next one is whole
            return
        size += len(frames)
        self._open[days] = file, size, begun
        if size >= self._roll_bytes:
            self._close(days)

    def tick(self, now: float) -> None:
        """Each second: what waits is written, and a spool that is old is left to its reader."""
        self._now = now
        self.flush()
        for days, (_, _, begun) in list(self._open.items()):
            if now - begun >= self._roll_s:
                self._close(days)

    def close(self) -> None:
        self.flush()
        for days in list(self._open):
            self._close(days)

    def _begin(self, days: int) -> tuple[int, int, float]:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._number += 1
        path = self._folder / f"{days}d-{self._name}-{self._number:06d}{SUFFIX}"
        draft = path.with_suffix(".draft")  # it becomes a spool once it is locked
        file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            draft.rename(path)
        except OSError:
            os.close(file)
            raise
        opened = self._open[days] = file, 0, self._now
        return opened

    def _close(self, days: int) -> None:
        opened = self._open.pop(days, None)
        if opened is not None:
            with contextlib.suppress(OSError):  # its bytes are written, and the lock goes all the same
                os.close(opened[0])


class _Waiting:
    __slots__ = ("frames", "calls")

    def __init__(self) -> None:
        self.frames = bytearray()
        self.calls = 0  # in them


def days_of(name: str) -> int | None:
    """Retention of a spool by its file name; None of what is no spool."""
    days, mark, _ = name.partition("d-")
    return int(days) if mark and days.isdigit() and name.endswith(SUFFIX) else None
