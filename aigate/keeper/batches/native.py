"""Lines of one batch at providers' own batch endpoints: divided once, submitted once, polled, taken over. Only where the operator wants it.

Money: each line is an attempt like any other, held when the batch is divided (an `unsettled` row) and settled with its result. A submission
whose reply was lost is looked for by our id where the provider has one to look for; else nobody knows, and its lines say so.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Protocol

import msgspec

from aigate.batchdialects import BatchDialect
from aigate.batchdialects.dialect import MAX_PART_BYTES, MAX_PART_LINES, Entry, Outcome, State
from aigate.core.batch import VALIDATING, Batch, LineError, line_of_call, native_call_id
from aigate.core.batch_lines import Cutter, Request, error_line, read_line
from aigate.core.call import Principal
from aigate.core.refusal import owners_of
from aigate.core.target import Target
from aigate.errors import ClientError, GateError, ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest
from aigate.journal.records import Intent
from aigate.keeper.batches.native_ends import NativeEnds
from aigate.keeper.batches.native_plan import NativeLine, Resolve, dialect_of, plan_line, price_of, surface_of
from aigate.keeper.batches.spool import ERRORS
from aigate.keeper.db.engine import Database
from aigate.keeper.db.native_parts import (
    DONE,
    NEW,
    SUBMITTING,
    UNKNOWN,
    WAITING,
    Part,
    add_parts,
    change_part,
    held_calls,
    hold_lines,
    parts_of,
)  # fmt: skip
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.client import NotSent, ProviderClient
from aigate.keeper.outage import patiently

log = logging.getLogger("aigate.keeper")

HOLDS_AT_ONCE = 100  # lines a transaction
MAX_PARTS = 50  # of one batch; the lines of further models go the usual way
FIRST_PAUSE_S, LAST_PAUSE_S, PAUSE_FACTOR = 2.0, 60.0, 1.5
LOOK_AGAIN_S = 10.0  # a part that was not found is looked for once more before it is sent again
GIVE_UP_MS = 3_600_000  # after the batch's window: what is not over then never will be
MAX_RESULTS_BYTES, MAX_RESULT_BYTES = 1 << 30, 1 << 26  # of a part, of a line

Lines = AsyncIterator[tuple[int, bytes | None]]


class Pace(msgspec.Struct, frozen=True):
    """How long to wait; tests have no time."""

    first_s: float = FIRST_PAUSE_S
    last_s: float = LAST_PAUSE_S
    look_again_s: float = LOOK_AGAIN_S


class Native(msgspec.Struct, frozen=True, kw_only=True):
    """What the lines of every batch share."""

    database: Database
    resolve: Resolve  # model, endpoint → target
    client: ProviderClient
    holds: HoldDesk
    principal: Callable[[str], Awaitable[Principal | None]]
    default_max_output_tokens: int
    is_on: bool  # some provider's own batches are wanted
    submitting: asyncio.Semaphore = msgspec.field(default_factory=lambda: asyncio.Semaphore(2))
    pace: Pace = Pace()


class Host(Protocol):
    """The batch's run (run.py)."""

    def lines(self) -> Lines:
        """Those without a result."""

    def all_lines(self) -> Lines: ...
    async def write(self, kind: str, number: int, line: bytes) -> None: ...
    def is_done(self, number: int) -> bool: ...


class NativeLines:
    """`numbers`: the lines that are no longer the run's own, once `divide` has returned."""

    def __init__(self, batch: Batch, native: Native, host: Host):
        self.numbers: frozenset[int] = frozenset()
        self._batch = batch
        self._native = native
        self._host = host
        self._parts: list[Part] = []
        self._ends = NativeEnds(batch, native.database, host)
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Asks the providers to begin no further line; what is done there is taken over."""
        self._stopping.set()

    async def divide(self) -> None:
        read = self._native.database.read
        if self._batch.is_divided:
            self._parts = await patiently(read, parts_of, self._batch.id)
        elif self._native.is_on and surface_of(self._batch.endpoint) is not None:
            self._parts = await self._make_parts()
            await patiently(self._native.database.write, add_parts, self._batch.id, self._parts)
        self.numbers = frozenset(number for part in self._parts for number in part.lines)
        if self._batch.status != VALIDATING:
            held = await patiently(read, held_calls, self._batch.id)
            strays = {line_of_call(called) for called, _ in held} - self.numbers
            await self._ends.free(strays)  # held before a crash, and since then their model goes another way

    async def run(self) -> None:
        await asyncio.gather(*[self._carry(part) for part in self._parts if part.state not in (DONE, UNKNOWN)])

    # --- dividing ---

    async def _make_parts(self) -> list[Part]:
        batch, native = self._batch, self._native
        principal = await native.principal(batch.key_id)
        if principal is None or self._stopping.is_set():
            return []
        piles = _Piles(batch.id)
        pending: list[tuple[int, NativeLine]] = []
        async for number, line in self._host.lines():
            found = read_line(line, number, batch.endpoint)
            if not isinstance(found, Request):
                continue
            planned = plan_line(found.body, batch.endpoint, principal, native.resolve, native.default_max_output_tokens)
            if planned is not None and piles.has_room(planned.target.slug):
                pending.append((number, planned))
            if len(pending) >= HOLDS_AT_ONCE:
                await self._hold(principal, pending, piles)
                pending = []
        if pending:
            await self._hold(principal, pending, piles)
        return piles.parts()

    async def _hold(self, principal: Principal, lines: list[tuple[int, NativeLine]], piles: _Piles) -> None:
        """What does not fit the budgets goes the usual way, where each line is judged alone."""
        batch = self._batch
        tag = batch.tag or principal.default_tag
        now_ms = int(time.time() * 1000)
        intents = []
        for number, line in lines:
            called = native_call_id(batch.id, number)
            price = price_of(line.target)
            intents.append(
                Intent(
                    f"att_{called[4:]}_1", called, 1, now_ms, line.target.provider.name, line.target.slug, line.hold_nanousd,
                    "" if price is None else price.id, principal.account_id, principal.key_id, principal.sub_account_id, tag,
                )
            )  # fmt: skip
        owners = owners_of(principal, tag)
        while True:
            try:
                write = partial(self._native.holds.write, what="a batch")
                await patiently(write, lambda connection, in_force: hold_lines(connection, intents, owners, in_force), now_ms)
                break
            except ClientError:
                return
            except GateError as error:  # nobody can say now
                log.warning("batch %s waits for its budgets: %s", batch.id, error.code)
            await asyncio.sleep(self._native.pace.first_s)
        for number, line in lines:
            piles.add(line.target.slug, number, len(line.body))

    # --- one part ---

    async def _carry(self, part: Part) -> None:
        """A pause between all that a provider is asked, longer each time; it ends early when the batch is to stop."""
        surface = surface_of(self._batch.endpoint)
        assert surface is not None
        pause_s = self._native.pace.first_s
        is_cancelled = False
        while part.state not in (DONE, UNKNOWN):
            try:
                target = _at_its_models(self._native.resolve(part.slug, surface[1]))
                api = dialect_of(target)
                if api is None:
                    raise ProviderError(f"{part.slug} has no batches of its own any more")
                if self._stopping.is_set() and part.state == WAITING and not is_cancelled:
                    await self._ask(target, api.cancel(part.handle))
                    is_cancelled = True
                part = await self._advance(part, target, api)
            except GateError as error:
                log.warning("part %s of %s waits: %s", part.id, self._batch.id, type(error).__name__)
            if part.state in (DONE, UNKNOWN):
                return
            if time.time() * 1000 > self._batch.expires_ms + GIVE_UP_MS:
                await self._leave_unknown(part)
                return
            await self._pause(pause_s, is_cancelled)
            pause_s = min(pause_s * PAUSE_FACTOR, self._native.pace.last_s)

    async def _pause(self, pause_s: float, is_cancelled: bool) -> None:
        if is_cancelled or self._stopping.is_set():
            await asyncio.sleep(min(pause_s, self._native.pace.first_s))
            return
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass  # time to ask again

    async def _advance(self, part: Part, target: Target, api: BatchDialect) -> Part:
        """One step further, or ProviderError: then it is tried again later."""
        if part.state == NEW:
            if self._stopping.is_set():
                await self._ends.free(self._left(part))
                return await self._change(part, state=DONE)
            return await self._submit(part, target, api)
        if part.state == SUBMITTING:  # by a keeper that died
            return await self._look_up(part, target, api)
        reply = await self._ask(target, api.poll(part.handle))
        if reply.status == 404:
            return await self._leave_unknown(part)
        _refuse(reply)
        state = api.read_state(reply)
        return await self._take_over(part, target, api, state) if state.is_over else part

    async def _submit(self, part: Part, target: Target, api: BatchDialect) -> Part:
        async with self._native.submitting:  # a part is written in memory
            return await self._send(part, target, api)

    async def _send(self, part: Part, target: Target, api: BatchDialect) -> Part:
        entries = await self._entries(part)
        upload = api.upload(part.id, entries, target)
        if upload is not None and not part.uploaded:
            reply = await self._ask(target, upload)
            if _is_refused(reply):
                return await self._refused(part, reply, target)
            _refuse(reply)
            part = await self._change(part, uploaded=api.read_upload(reply))
        request = api.submit(part.id, entries, target, part.uploaded)
        part = await self._change(part, state=SUBMITTING)
        try:
            reply = await self._ask(target, request)
            if not 200 <= reply.status < 500:
                return await self._refused(part, reply, target) if _is_refused(reply) else await self._change(part, state=NEW)
            _refuse(reply)
            return await self._change(part, state=WAITING, handle=api.read_state(reply).handle)
        except NotSent:
            return await self._change(part, state=NEW)
        except ProviderError:
            return await self._look_up(part, target, api)

    async def _look_up(self, part: Part, target: Target, api: BatchDialect) -> Part:
        """Of a part whose submission may have been taken."""
        if not api.can_look_up:
            return await self._leave_unknown(part)
        for is_last in (False, True):
            reply = await self._ask(target, api.look_up(part.id))
            _refuse(reply)
            found = api.read_look_up(reply, part.id)
            if found is not None:
                return await self._change(part, state=WAITING, handle=found.handle)
            if not is_last:
                await asyncio.sleep(self._native.pace.look_again_s)
        return await self._change(part, state=NEW)

    async def _refused(self, part: Part, reply: HttpReply, target: Target) -> Part:
        """The provider takes no such batch: that is every line's answer, and costs nothing."""
        await self._ends.refuse(target, reply.status, reply.body, await self._names(part))
        return await self._change(part, state=DONE)

    async def _take_over(self, part: Part, target: Target, api: BatchDialect, state: State) -> Part:
        known = await self._names(part)
        for request in state.results:
            async with self._native.client.fetch(target, request, MAX_RESULTS_BYTES) as media:
                if media.reply.status != 200:
                    raise ProviderError("the results cannot be read", provider_status=media.reply.status)
                outcomes: list[Outcome] = []
                async for outcome in _outcomes(media.pieces, api):
                    outcomes.append(outcome)
                    if len(outcomes) >= HOLDS_AT_ONCE:
                        await self._ends.settle(outcomes, target, known)
                        outcomes = []
                await self._ends.settle(outcomes, target, known)
        await self._ends.close(self._left(part), known, state.problem, is_stopped=self._stopping.is_set())
        return await self._change(part, state=DONE)

    async def _leave_unknown(self, part: Part) -> Part:
        for number, (custom_id, _) in (await self._names(part)).items():
            words = f"Line {number} was sent to the provider's own batches, and what became of it is unknown. It is not sent again."
            line = error_line(self._batch.id, number, custom_id, LineError("outcome_unknown", words, number))
            await self._host.write(ERRORS, number, line)
        return await self._change(part, state=UNKNOWN)

    # --- what it needs ---

    def _left(self, part: Part) -> set[int]:
        return {number for number in part.lines if not self._host.is_done(number)}

    async def _change(self, part: Part, **values: str) -> Part:
        await patiently(self._native.database.write, change_part, part.id, **values)
        return msgspec.structs.replace(part, **values)

    async def _ask(self, target: Target, request: HttpRequest) -> HttpReply:
        return await self._native.client.ask(target, request, timeout_s=target.provider.timeout_s)

    async def _entries(self, part: Part) -> list[Entry]:
        """The bodies, made again from the input. A key that is gone by now changes nothing of what was divided."""
        batch, native = self._batch, self._native
        principal = await native.principal(batch.key_id) or Principal(key_id=batch.key_id, account_id=batch.account_id)
        entries = []
        async for number, found in self._requests(part):
            planned = plan_line(found.body, batch.endpoint, principal, native.resolve, native.default_max_output_tokens)
            if planned is not None:
                entries.append(Entry(native_call_id(batch.id, number), planned.body))
        return entries

    async def _names(self, part: Part) -> dict[int, tuple[str, str]]:
        """number → (custom_id, model as it was asked for), of the lines without a result."""
        return {number: (found.custom_id, _read_asked(found.body).model) async for number, found in self._requests(part)}

    async def _requests(self, part: Part) -> AsyncIterator[tuple[int, Request]]:
        wanted = self._left(part)
        async for number, line in self._host.all_lines():
            if number in wanted:
                found = read_line(line, number, self._batch.endpoint)
                if isinstance(found, Request):
                    yield number, found


class _Piles:
    """Lines by model, cut into parts that a provider takes."""

    def __init__(self, batch_id: str):
        self._batch_id = batch_id
        self._piles: list[tuple[str, list[int]]] = []
        self._open: dict[str, tuple[list[int], int]] = {}  # slug → (its newest pile, bytes in it)

    def has_room(self, slug: str) -> bool:
        return slug in self._open or len(self._piles) < MAX_PARTS

    def add(self, slug: str, number: int, size: int) -> None:
        pile, taken = self._open.get(slug, ([], 0))
        if not pile or len(pile) >= MAX_PART_LINES or taken + size > MAX_PART_BYTES:
            pile, taken = [], 0
            self._piles.append((slug, pile))
        pile.append(number)
        self._open[slug] = pile, taken + size

    def parts(self) -> list[Part]:
        now_ms = int(time.time() * 1000)
        stem = self._batch_id.removeprefix("batch_")
        return [
            Part(id=f"part_{stem}{place:02x}", batch_id=self._batch_id, slug=slug, lines=tuple(pile), created_ms=now_ms)
            for place, (slug, pile) in enumerate(self._piles)
        ]


class _Asked(msgspec.Struct):
    model: str = ""


_read_asked = msgspec.json.Decoder(_Asked).decode


async def _outcomes(pieces: AsyncIterator[bytes], api: BatchDialect) -> AsyncIterator[Outcome]:
    cutter = Cutter(MAX_RESULT_BYTES)
    async for piece in pieces:
        for line in cutter.feed(piece):
            if line:
                yield api.read_outcome(line)
    for line in cutter.end():
        if line:
            yield api.read_outcome(line)


def _at_its_models(target: Target) -> Target:
    """Batches are where the models are, wherever its jobs may be."""
    return msgspec.structs.replace(target, provider=msgspec.structs.replace(target.provider, jobs_base_url=""))


def _is_refused(reply: HttpReply) -> bool:
    return 400 <= reply.status < 500 and reply.status not in (401, 403, 408, 409, 425, 429)


def _refuse(reply: HttpReply) -> None:
    if not 200 <= reply.status < 300:
        raise ProviderError(f"the provider answered {reply.status}", provider_status=reply.status)
