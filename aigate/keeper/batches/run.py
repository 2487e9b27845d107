"""One batch from its input to its last result: lines read, sent, tried again, written. What is done is in its spool, what may have been sent
lies before its fence; the ids of its calls are made from its own. So whoever comes after a crash loses no line and sends none twice.

A line that may have been sent is asked after first: ended (its reply is in the archive), under way in a worker (waited for), unsettled (its
outcome is unknown, and it is not sent again) or never sent. Nothing is sent past the fence, which moves before it is passed.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Protocol

import msgspec

from aigate.core.batch import (
    CANCELLED,
    CANCELLING,
    CHECKPOINT_LINES,
    COMPLETED,
    EXPIRED,
    FAILED,
    FENCE_LINES,
    VALIDATING,
    Batch,
    LineError,
    call_id,
    is_worth_another_try,
    retry_delay_s,
)  # fmt: skip
from aigate.core.batch_lines import BadLine, Cutter, Request, error_line, is_blank, read_line, reply_line
from aigate.core.call import Principal
from aigate.keeper.batches.native import Native, NativeLines
from aigate.keeper.batches.slots import Slots
from aigate.keeper.batches.spool import ERRORS, OUTPUT, Spool
from aigate.keeper.blobs import MissingBlob
from aigate.keeper.data_plane import InnerOptions, InnerReply, NotSent, OutcomeUnknown
from aigate.keeper.db.batches import begin_batch, checkpoint_batch, finalize_batch, last_line_sent
from aigate.keeper.db.engine import Database
from aigate.keeper.db.fates import ENDED, NEVER_SENT, Fate
from aigate.keeper.files import FileStore, new_file_id
from aigate.keeper.outage import patiently, place_of

log = logging.getLogger("aigate.keeper")

MAX_WAITING = 256  # lines that wait for another try: with more, no further line is begun
LINES_AT_ONCE = 50
CHECKPOINT_S = 1.0  # counts are never older


class Plane(Protocol):
    """keeper/data_plane.py"""

    async def call(self, principal: Principal, path: str, body: bytes, *, call_id: str, options: InnerOptions) -> InnerReply: ...
    async def final_fate(self, call_id: str) -> Fate: ...


class Means(msgspec.Struct, frozen=True, kw_only=True):
    """What every batch works with. `recall`: (status, body) of a call that has ended; None where its reply was not kept. `settled`: waits
    until what has ended is in the ledger."""

    database: Database
    files: FileStore
    plane: Plane
    recall: Callable[[str], Awaitable[tuple[int, bytes] | None]]
    settled: Callable[[], Awaitable[object]]
    principal: Callable[[str], Awaitable[Principal | None]]  # of a key's id, as it is now
    slots: Slots  # for lines
    native: Native
    lines_at_once: int  # of one batch
    max_line_bytes: int
    delay_s: Callable[[int, float | None], float] = lambda tries, told_s: retry_delay_s(tries, told_s, random.random())
    pause_s: float = 2.0  # while no worker takes a line, or the disk no result


class _Item(msgspec.Struct):
    """A line on its way. `tries`: those that have ended. `may_be_sent`: the next of them, by an earlier keeper."""

    number: int
    request: Request
    may_be_sent: bool
    tries: int = 0


class BatchRun:
    def __init__(self, batch: Batch, means: Means, spool: Spool):
        self._batch = batch
        self._means = means
        self._spool = spool
        self._old_fence = self._fence = self._wanted_fence = max(batch.fence, 1)
        self._done: set[int] = set()
        self._completed = self._failed = self._since_checkpoint = 0
        self._ends_as = CANCELLED if batch.status == CANCELLING else ""
        self._errors: tuple[LineError, ...] = ()
        self._again: deque[_Item] = deque()
        self._waiting = 0  # lines whose next try is not due
        self._is_read = False
        self._room = asyncio.Semaphore(means.lines_at_once)
        self._running: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()  # a line may be begun, or none ever will
        self._checkpoint_due = asyncio.Event()
        self._fence_moved = asyncio.Event()
        self._divided = asyncio.Event()
        self._native = NativeLines(batch, means.native, self)

    def stop(self, ends_as: str, error: LineError | None = None) -> None:
        """No line is begun any more; those that run come to their end."""
        if not self._ends_as:
            self._ends_as = ends_as
            self._errors = () if error is None else (error,)
        self._native.stop()
        self._changed.set()
        self._fence_moved.set()

    async def run(self) -> None:
        """Until its row says finalizing. Cancelled, it leaves everything as a crash would."""
        completed, failed = await asyncio.to_thread(self._spool.open)
        self._done = completed | failed
        self._completed, self._failed = len(completed), len(failed)
        loop = asyncio.get_running_loop()
        expiry = loop.call_later(max(0.0, self._batch.expires_ms / 1000 - time.time()), self.stop, EXPIRED)
        checkpoints = loop.create_task(self._keep_checkpoints())
        native = loop.create_task(self._run_native())
        try:
            await patiently(self._means.database.write, begin_batch, self._batch.id, _now_ms())
            await self._divide()
            await self._find_fence()
            await self._send_lines()
            await native
            if self._ends_as == EXPIRED:
                await self._expire_lines()
            checkpoints.cancel()
            await asyncio.gather(checkpoints, return_exceptions=True)
            await asyncio.to_thread(self._spool.sync)
            await self._finalize()
        finally:
            expiry.cancel()
            tasks = [checkpoints, native, *self._running]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._spool.close()

    async def _divide(self) -> None:
        try:
            await self._native.divide()
        except MissingBlob:
            self._input_is_gone()
        self._divided.set()

    def _input_is_gone(self) -> None:
        self.stop(FAILED, LineError("input_file_gone", f"The input file {self._batch.input_file_id} is gone."))

    async def _run_native(self) -> None:
        await self._divided.wait()
        await self._native.run()

    async def _find_fence(self) -> None:
        """After a power cut the row may say less than was sent; the ledger, from synced journals, says what was."""
        if self._batch.status != VALIDATING:
            await patiently(self._means.settled)
            last = await patiently(self._means.database.read, last_line_sent, self._batch.id)
            self._old_fence = self._fence = self._wanted_fence = max(self._fence, last + 1)

    # --- which line is next ---

    async def _send_lines(self) -> None:
        lines = self.lines()
        slots, owner = self._means.slots, self._batch.owner_id
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            item = await self._next(lines)
            if item is None:
                break
            await self._pass_fence(item.number)
            await slots.take(owner)
            task = loop.create_task(self._run_line(item))
            self._running.add(task)
            task.add_done_callback(self._ended)
        while self._running:
            await asyncio.wait(self._running)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._means.slots.give(self._batch.owner_id)
        self._room.release()
        self._changed.set()
        if not task.cancelled() and (problem := task.exception()) is not None:  # a bug of ours: its line must not be sent in circles
            log.error("a line of %s failed: %s", self._batch.id, place_of(problem))
            self.stop(FAILED, LineError("internal_error", "Something went wrong in the gateway; its log says more."))

    async def _next(self, lines: AsyncIterator[tuple[int, bytes | None]]) -> _Item | None:
        """None: no line is begun any more. One that may have been sent is asked after even then: it may have been paid for."""
        while True:
            if self._again:
                return self._again.popleft()
            if not self._is_read and (self._ends_as or self._waiting < MAX_WAITING):
                item = await self._read(lines)
                if item is not None and (item.may_be_sent or not self._ends_as):
                    return item
                self._is_read = self._is_read or item is not None
            elif not self._running and (self._ends_as or not self._waiting):
                return None
            else:
                self._changed.clear()
                await self._changed.wait()

    async def _read(self, lines: AsyncIterator[tuple[int, bytes | None]]) -> _Item | None:
        """The next line that can be sent; those that cannot are written as errors."""
        try:
            async for number, line in lines:
                found = read_line(line, number, self._batch.endpoint)
                if isinstance(found, Request):
                    return _Item(number, found, number < self._old_fence)
                await self.write(ERRORS, number, error_line(self._batch.id, number, found.custom_id, found.error))
        except MissingBlob:
            self._input_is_gone()
        self._is_read = True
        return None

    async def lines(self) -> AsyncIterator[tuple[int, bytes | None]]:
        """Those without a result that are the run's own, with their numbers."""
        async for number, line in self.all_lines():
            if number not in self._done and number not in self._native.numbers:
                yield number, line

    async def all_lines(self) -> AsyncIterator[tuple[int, bytes | None]]:
        number = 0
        cutter = Cutter(self._means.max_line_bytes)
        pieces = await self._means.files.read(self._batch.input_file_id)
        async for piece in pieces:
            for line in cutter.feed(piece):
                number += 1
                if not is_blank(line):
                    yield number, line
        for line in cutter.end():
            if not is_blank(line):
                yield number + 1, line

    def is_done(self, number: int) -> bool:
        return number in self._done

    # --- one line ---

    async def _run_line(self, item: _Item) -> None:
        batch = self._batch
        if self._ends_as and not item.may_be_sent:
            return
        principal = await self._means.principal(batch.key_id)
        if principal is None and not item.may_be_sent:
            self.stop(FAILED, LineError("key_revoked", f"The key {batch.key_id} that made the batch was revoked or has expired."))
            return
        is_new = not item.may_be_sent
        called = call_id(batch.id, item.number, item.tries)
        outcome = await self._outcome(item, principal, called)
        if outcome is None:
            self._try_later(item, self._means.pause_s if is_new else 0.0)
            return
        if isinstance(outcome, LineError):
            await self.write(ERRORS, item.number, error_line(batch.id, item.number, item.request.custom_id, outcome))
            return
        item.tries += 1
        status, told_s, body = outcome
        if (item.may_be_sent or not self._ends_as) and is_worth_another_try(status, item.tries, is_held=status == 402 and _is_held(body)):
            self._try_later(item, 0.0 if item.may_be_sent else self._means.delay_s(item.tries, told_s))
            return
        kind = OUTPUT if 200 <= status < 300 else ERRORS
        await self.write(kind, item.number, reply_line(batch.id, item.number, item.request.custom_id, status, called, body))

    async def _outcome(self, item: _Item, principal: Principal | None, called: str) -> tuple[int, float | None, bytes] | LineError | None:
        """(status, retry-after, body), or why there is none; None: it was not sent."""
        batch = self._batch
        if not item.may_be_sent:
            assert principal is not None
            options = InnerOptions(tag=batch.tag, ignores_rate_limits=True, must_archive=True, price_variant="batch")
            try:
                reply = await self._means.plane.call(principal, batch.endpoint, item.request.body, call_id=called, options=options)
                return reply.status, _retry_after_s(reply.headers.get("retry-after")), reply.body
            except NotSent:
                return None
            except OutcomeUnknown:
                pass  # asked after, as by one who comes after a crash
        fate = await patiently(self._means.plane.final_fate, called)
        item.may_be_sent = fate.state != NEVER_SENT
        if not item.may_be_sent:
            return None
        if fate.state != ENDED:
            words = f"Line {item.number} was sent, and what became of it is unknown: the process that sent it died. It is not sent again."
            return LineError("outcome_unknown", words, item.number)
        kept = await patiently(self._means.recall, called)
        if kept is not None:
            return kept[0], None, kept[1]
        if is_worth_another_try(fate.status, item.tries + 1):
            return fate.status, None, b""
        words = f"The call of line {item.number} ended with status {fate.status}; its reply was lost in a crash. It is not sent again."
        return LineError("reply_lost", words, item.number)

    def _try_later(self, item: _Item, delay_s: float) -> None:
        self._waiting += 1
        asyncio.get_running_loop().call_later(delay_s, self._try_again, item)

    def _try_again(self, item: _Item) -> None:
        self._waiting -= 1
        self._again.append(item)
        self._changed.set()

    # --- what is written ---

    async def write(self, kind: str, number: int, line: bytes) -> None:
        while True:
            try:
                self._spool.add(kind, line)
                break
            except OSError as error:
                log.error("results of %s cannot be written: %s", self._batch.id, error.strerror or error)
                await asyncio.sleep(self._means.pause_s)
        self._done.add(number)
        if kind == OUTPUT:
            self._completed += 1
        else:
            self._failed += 1
        self._since_checkpoint += 1
        if self._since_checkpoint % LINES_AT_ONCE == 0:
            await asyncio.sleep(0)  # a file full of mistakes has nothing else to wait for
        if self._since_checkpoint >= CHECKPOINT_LINES:
            self._checkpoint_due.set()

    async def _pass_fence(self, number: int) -> None:
        if number + FENCE_LINES // 2 < self._fence:
            return
        self._wanted_fence = number + FENCE_LINES
        self._checkpoint_due.set()
        while number >= self._fence and not self._ends_as:
            self._fence_moved.clear()
            await self._fence_moved.wait()

    async def _keep_checkpoints(self) -> None:
        while True:
            try:
                async with asyncio.timeout(CHECKPOINT_S):
                    await self._checkpoint_due.wait()
            except TimeoutError:
                pass  # counts that stand still are not written again
            self._checkpoint_due.clear()
            fence = self._wanted_fence
            if fence == self._fence and not self._since_checkpoint:
                continue
            self._since_checkpoint = 0
            counts = self._completed, self._failed
            await asyncio.to_thread(self._spool.sync)
            await patiently(self._means.database.write, checkpoint_batch, self._batch.id, fence, *counts)
            self._fence = fence
            self._fence_moved.set()

    async def _expire_lines(self) -> None:
        error = LineError("batch_expired", "This request could not be made before the completion window ended.")
        async for number, line in self.all_lines():
            if number in self._done:
                continue
            found = read_line(line, number, self._batch.endpoint)
            why = found.error if isinstance(found, BadLine) else error
            await self.write(ERRORS, number, error_line(self._batch.id, number, found.custom_id, why))

    async def _finalize(self) -> None:
        now_ms = _now_ms()
        await patiently(
            self._means.database.write,
            finalize_batch,
            self._batch.id,
            now_ms,
            ends_as=self._ends_as or COMPLETED,
            errors=self._errors,
            completed=self._completed,
            failed=self._failed,
            output_file_id=new_file_id(now_ms) if self._spool.has(OUTPUT) else None,
            error_file_id=new_file_id(now_ms) if self._spool.has(ERRORS) else None,
        )


class _Held(msgspec.Struct):
    held_cents: float = 0


class _Refusal(msgspec.Struct):
    error: _Held


def _is_held(body: bytes) -> bool:
    """Whether running calls hold a part of the budget that refused this one."""
    try:
        return msgspec.json.decode(body, type=_Refusal).error.held_cents > 0
    except msgspec.DecodeError:
        return False  # the envelope of a surface that does not say


def _retry_after_s(value: str | None) -> float | None:
    return float(value) if value is not None and value.isascii() and value.isdigit() else None


def _now_ms() -> int:
    return int(time.time() * 1000)
