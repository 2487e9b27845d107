"""Model calls for durable work: each sent at most once for its id, and its answer found again after a crash. Shell.

Through the node's own data plane (data_plane.py), for a key as it is now, always archived: so a caller that died and comes back with the
same id gets the answer that was given, or is told that nobody knows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import msgspec

from aigate.core.call import Principal
from aigate.errors import GatewayError
from aigate.keeper.archive import Archive
from aigate.keeper.data_plane import DataPlane, InnerOptions, InnerReply, NotSent, OutcomeUnknown
from aigate.keeper.db.engine import Database
from aigate.keeper.db.fates import ENDED, UNSETTLED, Fate, read_fate
from aigate.keeper.db.principals import principal_of_key

AGAIN_S = 0.5
BUSY_TRIES = 8  # of a call that is told to come again
BUSY_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: bytes
    cost_nanousd: int
    latency_ms: int
    retry_after_s: float | None = None


class Replied(Protocol):
    """An answer, as far as it matters whether to ask again."""

    status: int
    retry_after_s: float | None


A = TypeVar("A", bound=Replied)


async def until_free(ask: Callable[[int], Awaitable[A]]) -> tuple[int, A]:
    """(number of the try, its answer): what a rate limit or a busy provider puts off is asked again, each time under another number."""
    wait_s = BUSY_WAIT_S
    for number in range(BUSY_TRIES):
        answer = await ask(number)
        if answer.status not in (429, 503) or number == BUSY_TRIES - 1:
            break
        await asyncio.sleep(min(answer.retry_after_s or wait_s, LONGEST_WAIT_S))
        wait_s *= 2
    return number, answer


def error_words(body: bytes) -> str:
    """What the envelope of an error says, in whichever format."""
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError):
        return "no reason was given"


class Once:
    def __init__(self, database: Database, data_plane: DataPlane, archive: Archive):
        self._database = database
        self._data_plane = data_plane
        self._archive = archive

    async def principal(self, key_id: str) -> Principal | None:
        """Whom the key stands for now; None: nobody any more."""
        return await self._database.read(principal_of_key, key_id, time.time())

    async def ask_once(self, principal: Principal, path: str, body: bytes, *, call_id: str, tag: str | None) -> Answer:
        """Raises GateError where nobody can say how the call ended, or what it answered is not to be found."""
        options = InnerOptions(tag=tag, must_archive=True)
        while True:
            try:
                return _answer(await self._data_plane.call(principal, path, body, call_id=call_id, options=options))
            except NotSent:
                await asyncio.sleep(AGAIN_S)
            except OutcomeUnknown:
                fate = await self._data_plane.final_fate(call_id)
                if fate.state == ENDED:
                    return await self._found(call_id, fate)
                if fate.state == UNSETTLED:
                    raise GatewayError("its worker died in the middle: nobody can say how this call ended", status=502) from None

    async def recall(self, call_id: str) -> tuple[int, bytes] | None:
        """(status, body) of a call that has ended; None where its reply was not kept."""
        fate = await self._database.read(read_fate, call_id)
        archived = None if fate is None else await self._archive.find(call_id, fate.started_ms)
        return None if archived is None or archived.is_cut else (archived.status, archived.reply)

    async def _found(self, call_id: str, fate: Fate) -> Answer:
        archived = await self._archive.find(call_id, fate.started_ms)
        if archived is None or archived.is_cut:
            raise GatewayError("it was answered, and the answer is lost: too large to be archived, or its worker died just then", status=502)
        return Answer(archived.status, archived.reply, fate.cost_nanousd, fate.latency_ms)


def _answer(reply: InnerReply) -> Answer:
    retry_after = reply.headers.get("retry-after", "")
    return Answer(reply.status, reply.body, reply.cost_nanousd or 0, reply.latency_ms, float(retry_after) if retry_after.isdigit() else None)
