"""Rate limits at the worker: permits for each call of a limited key, mostly from those taken ahead (core/rate.py). Step 5, `admit`.

A call waits for the keeper where none are left; the keeper's "none" is a 429. Which permits exist, the keeper alone decides.
"""

from __future__ import annotations

import asyncio
from math import ceil

from aigate.core.call import Call, Principal
from aigate.core.rate import REQUESTS, STREAMS, TOKENS, Purse, Rate, Share, Want
from aigate.errors import ClientError, GatewayError
from aigate.messages import GiveBack, InUse, Permits, Permitted
from aigate.worker.heads import FieldBlock
from aigate.worker.link import KeeperLink
from aigate.worker.run import Run

WAIT_S = 2.0  # for the keeper's word on one call
BYTES_PER_TOKEN = 4  # a guess at the input, made good by what was used

_SAID = {REQUESTS: "requests a minute", TOKENS: "tokens a minute", STREAMS: "streams at a time"}

Refusal = tuple[Want, Share]


class _Ask:
    """`wants` of the call that waits, none where nobody does; `asked` of the keeper."""

    __slots__ = ("wants", "asked", "asked_at", "future")

    def __init__(self, wants: tuple[Want, ...], asked: tuple[Want, ...], asked_at: float, future: asyncio.Future[Refusal | None] | None):
        self.wants = wants
        self.asked = asked
        self.asked_at = asked_at
        self.future = future


class RateGate:
    """`enter` before a call's first attempt, `leave` at its end. Takes over the keeper's answers on `link`."""

    def __init__(self, link: KeeperLink, loop: asyncio.AbstractEventLoop):
        self._link = link
        self._loop = loop
        self._now = loop.time
        self._purse = Purse()
        self._number = 0
        self._asks: dict[int, _Ask] = {}
        link.handlers[Permitted] = self._permitted
        link.on_opened.append(self._opened)

    async def enter(self, run: Run, principal: Principal) -> None:
        """Permits under every limit of the call, or none. Raises 429, or 503 where the keeper does not answer."""
        assert run.call is not None
        wants = _wants(principal.rates, run.call)
        now = self._now()
        short = self._purse.take(wants, now)
        if short:
            refusal = await self._ask(wants, short, now)
            if refusal is not None:
                run.rate_fields = self._fields(wants, now)
                raise _refused(*refusal)
        run.permits = wants
        run.rate_fields = self._fields(wants, now)
        ahead = self._purse.thirsty(wants, now)
        if ahead:
            self._send(_Ask((), tuple(ahead), now, None))

    def leave(self, run: Run) -> None:
        """What a call did not use goes back; what it used beyond what it took is owed."""
        back: list[tuple[Rate, int]] = []
        for want in run.permits:
            back += self._purse.end(want, run.tokens if want.rate.kind == TOKENS else 0)
        run.permits = ()
        self._give_back(back)

    def tick(self, now: float) -> None:
        """Each second: permits past their time go back."""
        self._give_back(self._purse.sweep(now))

    # --- asking the keeper ------------------------------------------------------------------------------------------------------

    async def _ask(self, wants: tuple[Want, ...], short: list[Want], now: float) -> Refusal | None:
        """None: all of `wants` is taken. Else which of them the keeper does not give, and when it would."""
        if self._link.is_away(now):
            raise _no_word()
        future: asyncio.Future[Refusal | None] = self._loop.create_future()
        ask = _Ask(wants, tuple(self._purse.ahead(want, now) for want in short), now, future)
        self._send(ask)
        await asyncio.wait((future,), timeout=WAIT_S)
        if not future.done():
            ask.wants = ()  # what comes after all goes into the slices
            raise _no_word()
        return future.result()

    def _send(self, ask: _Ask) -> None:
        self._number += 1
        self._asks[self._number] = ask
        self._link.send(Permits(self._number, ask.asked))

    def _permitted(self, message: Permitted) -> None:
        ask = self._asks.pop(message.number, None)
        if ask is None:
            return  # the answer to the same question on an earlier connection came first
        now = self._now()
        back: list[tuple[Rate, int]] = []
        refusal = None
        for want, share in zip(ask.asked, message.shares, strict=True):
            back += self._purse.add(want, share, ask.asked_at, now)
            if share.given < want.need:
                refusal = refusal or (want, share)
        self._give_back(back)
        if not ask.wants:
            return
        assert ask.future is not None
        short = self._purse.take(ask.wants, now)
        if not short:  # perhaps with what came ahead of calls
            ask.future.set_result(None)
        elif refusal is not None:
            ask.future.set_result(refusal)
        else:  # others took what its other limits had, or the answer was slow
            ask.asked, ask.asked_at = tuple(self._purse.ahead(want, now) for want in short), now
            self._send(ask)

    def _opened(self) -> None:
        in_use = self._purse.in_use(self._now())
        if in_use:
            self._link.send(InUse(tuple(in_use)))
        for number, ask in self._asks.items():
            self._link.send(Permits(number, ask.asked))

    def _give_back(self, permits: list[tuple[Rate, int]]) -> None:
        if permits:
            self._link.send(GiveBack(tuple(permits)))

    def _fields(self, wants: tuple[Want, ...], now: float) -> FieldBlock:
        """x-ratelimit-* of the limit that is nearest: of requests where there is one."""
        best = None
        for want in wants:
            if want.rate.kind == REQUESTS:
                limit, remaining, reset_s = self._purse.standing(want.rate, now)
                if best is None or remaining < best[1]:
                    best = limit, remaining, reset_s
        if best is None:
            return b""
        return b"\r\nx-ratelimit-limit-requests: %d\r\nx-ratelimit-remaining-requests: %d\r\nx-ratelimit-reset-requests: %d" % best


def _wants(rates: tuple[Rate, ...], call: Call) -> tuple[Want, ...]:
    wants = []
    for rate in rates:
        if rate.kind == REQUESTS:
            wants.append(Want(rate, 1))
        elif rate.kind == TOKENS:
            tokens = call.body_bytes // BYTES_PER_TOKEN + (call.max_output_tokens or 0) * max(call.n, 1)
            wants.append(Want(rate, max(1, min(tokens, rate.limit))))
        elif call.is_stream:
            wants.append(Want(rate, 1))
    return tuple(wants)


def _refused(want: Want, share: Share) -> ClientError:
    rate = want.rate
    return ClientError(
        f"The limit of {rate.limit} {_SAID[rate.kind]} of {rate.owner_id} is reached; try again in {ceil(share.wait_s)} s",
        status=429,
        type="rate_limit_error",
        code="rate_limited",
        origin="rate_limit",
        retryable=True,
        retry_after_s=ceil(share.wait_s),
    )


def _no_word() -> GatewayError:
    return GatewayError(
        "The rate limit cannot be checked: the keeper does not answer.", status=503, code="capacity_exceeded", retryable=True, retry_after_s=1
    )
