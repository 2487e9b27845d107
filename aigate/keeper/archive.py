"""The archive of bodies: spools of the workers become compressed segments, calls are found in both, and what is old is deleted.

Owns `archive/` of the data directory: `spool/` and a folder for each retention in days. Runs in a thread of its own; whoever finds a call
must have seen from the ledger that it is the caller's.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from aigate.archive.records import FRAME_HEAD_BYTES, ArchivedCall, decode_call, read_frames
from aigate.archive.segment import BadSegment, find_call, segment_name, span_of, write_segment
from aigate.archive.spool import SUFFIX as SPOOL_SUFFIX
from aigate.archive.spool import days_of

log = logging.getLogger("aigate.keeper")

SWEEP_S = 2.0
WRITTEN_S = 1.5  # so late after its end a call may come into its spool
RECENT_MS = 3_600_000  # a call that began earlier has long been written
PAUSE_S = 0.1
EXPIRE_S = 600.0
DAY_MS = 86_400_000
CLOCK_SLACK_MS = 60_000  # between what the ledger and the archive say of a call's start
DAMAGED = ".damaged"


class Archive:
    """`kept`: calls that were put into segments."""

    def __init__(self, folder: Path):
        self.spools = folder / "spool"
        self.kept = 0
        self._folder = folder
        self._thread = ThreadPoolExecutor(1, "archive")
        self._places: dict[str, int] | None = None  # how far each spool was read, while somebody follows the traffic
        self._left: list[ArchivedCall] = []  # of spools that were taken over before they were read to their ends

    async def run(self) -> None:
        """Until cancelled."""
        expired_at = 0.0
        while True:
            try:
                await self._in_thread(self.take_over)
                if time.monotonic() - expired_at > EXPIRE_S:
                    expired_at = time.monotonic()
                    await self._in_thread(self.expire, int(time.time() * 1000))
            except OSError as error:
                log.error("the archive cannot be written: %s", error.strerror)
            await asyncio.sleep(SWEEP_S)

    async def find(self, call_id: str, started_ms: int) -> ArchivedCall | None:
        """Waits for one that its worker may not have written yet."""
        deadline = time.monotonic() + WRITTEN_S
        while True:
            found = await self._in_thread(self.find_now, call_id, started_ms)
            if found is not None or time.monotonic() > deadline or time.time() * 1000 - started_ms > RECENT_MS:
                return found
            await asyncio.sleep(PAUSE_S)

    async def follow(self, is_on: bool) -> list[ArchivedCall]:
        """Calls that were kept since it was asked last: none the first time, and none once `is_on` is False."""
        return await self._in_thread(self.follow_now, is_on)

    def close(self) -> None:
        self._thread.shutdown()

    async def _in_thread(self, work: Callable, *args: object):  # type: ignore[no-untyped-def,type-arg]
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *args)

    # --- in the thread ---

    def take_over(self) -> int:
        """How many spools that nobody writes any more became segments."""
        done = 0
        for path in self._spool_files():
            with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # its writer goes on
                self._take_over(path, file.read())
                done += 1
        return done

    def _take_over(self, path: Path, data: bytes) -> None:
        days = days_of(path.name)
        assert days is not None
        if self._places is not None:
            self._left += self._read_on(path)
            self._places.pop(path.name, None)
        if next(read_frames(data), None) is not None:
            folder = self._folder / f"{days}d"
            folder.mkdir(mode=0o700, exist_ok=True)
            draft = folder / f"{secrets.token_hex(8)}.draft"
            try:
                with draft.open("xb") as file:
                    count, span = write_segment(file, data)
                    file.flush()
                    os.fsync(file.fileno())
                # Named after the spool: one that was taken over before, and not deleted, is not there twice.
                draft.rename(folder / segment_name(span, path.name.removesuffix(SPOOL_SUFFIX)))
            finally:
                draft.unlink(missing_ok=True)
            self.kept += count
        path.unlink(missing_ok=True)

    def find_now(self, call_id: str, started_ms: int) -> ArchivedCall | None:
        found = None
        for path in self._spool_files():
            with contextlib.suppress(FileNotFoundError):  # it has become a segment
                for head, body in read_frames(path.read_bytes()):
                    if head.call_id == call_id:
                        found = decode_call(body)
        return found or self._find_in_segments(call_id, started_ms)

    def _find_in_segments(self, call_id: str, started_ms: int) -> ArchivedCall | None:
        for path in self._segments():
            span = span_of(path)
            if span is None or not span.first_ms - CLOCK_SLACK_MS <= started_ms <= span.last_ms + CLOCK_SLACK_MS:
                continue
            try:
                with path.open("rb") as file:
                    found = find_call(file, call_id)
            except FileNotFoundError:
                continue
            except BadSegment as error:
                log.error("%s: %s", path.name, error)
                path.rename(path.with_name(path.name + DAMAGED))
                continue
            if found is not None:
                return found
        return None

    def follow_now(self, is_on: bool) -> list[ArchivedCall]:
        if not is_on:
            self._places, self._left = None, []
            return []
        is_first = self._places is None
        self._places = self._places or {}
        found, self._left = self._left, []
        for path in self._spool_files():
            with contextlib.suppress(FileNotFoundError):
                if is_first:
                    self._places[path.name] = path.stat().st_size
                else:
                    found += self._read_on(path)
        return found

    def _read_on(self, path: Path) -> list[ArchivedCall]:
        assert self._places is not None
        begin = self._places.get(path.name, 0)
        with path.open("rb") as file:
            file.seek(begin)
            bodies = [body for _, body in read_frames(file.read())]
        self._places[path.name] = begin + sum(FRAME_HEAD_BYTES + len(body) for body in bodies)
        return [decode_call(body) for body in bodies]

    def expire(self, now_ms: int) -> int:
        """How many files were older than their retention."""
        gone = 0
        for path in self._segments():
            span = span_of(path)
            days = path.parent.name.removesuffix("d")
            if span is not None and span.last_ms < now_ms - int(days) * DAY_MS:
                path.unlink(missing_ok=True)
                gone += 1
        return gone

    def _spool_files(self) -> list[Path]:
        try:
            return sorted(path for path in self.spools.iterdir() if days_of(path.name) is not None)
        except FileNotFoundError:
            return []

    def _segments(self) -> Iterator[Path]:
        with contextlib.suppress(FileNotFoundError):
            for folder in sorted(self._folder.iterdir()):
                if folder.name.endswith("d") and folder.name[:-1].isdigit():
                    yield from sorted(folder.iterdir(), reverse=True)
