"""Responses kept by the keeper: finished ones are handed over, earlier ones fetched for the calls that go on from them. Shell.

Handing over costs the call no wait. What the keeper has not confirmed is said again on a new connection, for a minute and within bounds;
what is lost after that is not found later (404), and counted. Which caller sees what is core/account.py's `tenant_of`.
"""

from __future__ import annotations

import asyncio
from functools import partial
from math import inf

from aigate.core.account import tenant_of
from aigate.core.call import Call
from aigate.dialects.openai_responses_kept import prepare
from aigate.errors import ClientError
from aigate.messages import MAX_KEPT_BYTES, FindResponse, FoundResponse, KeepResponse, KeptResponse
from aigate.worker.link import KeeperLink
from aigate.worker.questions import Questions
from aigate.worker.run import Run

CONFIRMED_S = 60.0
MAX_HELD_BYTES = 64 << 20  # not confirmed yet
SMALL_BYTES = 64 << 10
MAX_ID_CHARS = 200

_FIELD = "previous_response_id"


class KeptResponses:
    """Takes over the keeper's KeptResponse and FoundResponse on `link`. `lost`: how many were not kept that should have been."""

    def __init__(self, link: KeeperLink, loop: asyncio.AbstractEventLoop, *, is_on: bool):
        self.lost = 0
        self._link = link
        self._loop = loop
        self._is_on = is_on
        self._questions = Questions(link, loop)
        self._held: dict[int, tuple[float, KeepResponse]] = {}  # number → until when, and what
        self._held_bytes = 0
        link.handlers[KeptResponse] = self._confirmed
        link.handlers[FoundResponse] = self._questions.answer
        link.on_opened.append(self._say_again)

    async def enter(self, run: Run) -> Call:
        """The call with what was said before it. `run` is told to hand its reply over, where that is wanted and possible."""
        call, owner = run.call, tenant_of(run.principal)
        given = bytes(call.pairs["input"])
        earlier = None
        if call.previous_response:
            earlier = await self._fetch(owner, call.previous_response)
        is_kept = call.is_kept and self._is_on and len(given) < MAX_KEPT_BYTES
        if is_kept:
            run.keep = partial(self._keep, owner, call.previous_response or None, given)
        return prepare(call, is_kept=is_kept, earlier=earlier)

    async def begin(self, run: Run, body: bytes, response_id: str) -> tuple[str, str, str]:
        """A response that will be made in the background: kept as begun once this returns. What it is known by."""
        call, owner = run.call, tenant_of(run.principal)
        given = bytes(call.pairs["input"])
        if not self._is_on or len(given) + len(body) > MAX_KEPT_BYTES:
            why = "its input is too large to be kept" if self._is_on else "this gateway keeps no responses"
            raise ClientError(f"background is not possible here: {why}; leave `background` out", param="background", code="unsupported_parameter")
        message = KeepResponse(self._questions.next_number(), *owner, call.previous_response or None, given, body)
        await self._questions.ask(message, "The response cannot be kept, so it is not begun")
        return (*owner, response_id)

    def end(self, key: tuple[str, str, str], body: bytes) -> bool:
        """What it has become. False where that is more than can be handed over."""
        return self._hand_over(KeepResponse(self._questions.next_number(), *key[:2], None, b"", body, is_end=True))

    def tick(self, now: float) -> None:
        """Each second: the keeper may be unable to keep anything."""
        for number, (until, _) in list(self._held.items()):
            if until <= now:
                self._drop(number)
                self.lost += 1

    # --- handing over ---

    def _keep(self, owner: tuple[str, str], previous_id: str | None, given: bytes, sent: bytes) -> None:
        self._hand_over(KeepResponse(self._questions.next_number(), *owner, previous_id, given, sent))

    def _hand_over(self, message: KeepResponse) -> bool:
        size = len(message.input) + len(message.sent)
        is_small = message.is_end and size <= SMALL_BYTES  # one that is never said to have ended would be waited for without end
        if size > MAX_KEPT_BYTES or (self._held_bytes + size > MAX_HELD_BYTES and not is_small):
            self.lost += not message.is_end
            return False
        self._held[message.number] = inf if message.is_end else self._loop.time() + CONFIRMED_S, message
        self._held_bytes += size
        self._link.send(message)
        return True

    def _confirmed(self, message: KeptResponse) -> None:
        if message.number in self._held:
            self._drop(message.number)
        else:
            self._questions.answer(message)

    def _drop(self, number: int) -> None:
        message = self._held.pop(number)[1]
        self._held_bytes -= len(message.input) + len(message.sent)

    def _say_again(self) -> None:
        for _, message in self._held.values():
            self._link.send(message)

    # --- fetching ---

    async def _fetch(self, owner: tuple[str, str], response_id: str) -> bytes:
        if not self._is_on:
            words = f"{_FIELD} is not possible here: this gateway keeps no responses; send the earlier items in `input`"
            raise ClientError(words, param=_FIELD, code="unsupported_parameter")
        found = FoundResponse(0, None, response_id)
        if len(response_id) <= MAX_ID_CHARS:
            asked = FindResponse(self._questions.next_number(), *owner, response_id)
            found = await self._questions.ask(asked, "The previous response cannot be fetched")
        if found.items is not None:
            return found.items
        if found.is_running:
            words = f"{_FIELD}: {response_id!r} is still being made; ask for it until it has ended"
            raise ClientError(words, param=_FIELD, code="response_in_progress")
        if not found.missing_id:
            words = f"{_FIELD}: the conversation is longer than {MAX_KEPT_BYTES} bytes; begin a new one with what matters of it"
            raise ClientError(words, param=_FIELD, code="context_length_exceeded")
        gone = found.missing_id[:MAX_ID_CHARS]
        words = f"Previous response with id {gone!r} not found: it was never kept, was deleted or is too old; send its items in `input`"
        raise ClientError(words, status=404, param=_FIELD, code="previous_response_not_found")
