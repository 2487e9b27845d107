"""The worker's end of `run/keeper.sock`: key look-ups, key changes and health, over one connection that comes back by itself.

Owns the connection and what waits for its answers. It keeps no keys: whatever the keeper says of a key goes to `on_keys`
in the order it came, so that an answer to a look-up can never overtake a revocation. After each connect the keeper makes
the worker forget what it knew (Push with `is_reset`), so that nothing missed while apart can stay alive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aigate.core.call import Principal
from aigate.errors import GatewayError
from aigate.messages import Ack, Found, Health, Hello, LookUp, Message, Push, decode_frames, encode_frame

Keys = tuple[tuple[bytes, Principal | None], ...]

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0
RESTART_S = 2.0  # a keeper that was restarted is back by then
MAX_WAITING = 1_000  # look-ups of different keys at a time; more is a flood of guesses


class KeeperLink:
    """`is_stale`: the keeper has been silent for more than `max_staleness_s`; what it said must not be trusted any longer."""

    def __init__(
        self,
        path: str,
        hello: Hello,
        *,
        health: Callable[[], Health],
        max_staleness_s: float = 300.0,
        health_interval_s: float = 5.0,
        look_up_timeout_s: float = 2.0,
    ):
        self.on_keys: Callable[[Keys, bool], None] = lambda keys, is_reset: None
        self.on_provider_keys: Callable[[tuple[str, ...], bool], None] = lambda key_ids, is_reset: None
        self.hello: Callable[[], Hello] = lambda: hello
        self.handlers: dict[type, Callable[[Any], None]] = {}  # what is said of money and rates goes to whom it concerns
        self.on_opened: list[Callable[[], None]] = []  # after each Hello
        self.is_stale = False
        self.is_connected = False
        self.lost_at = 0.0  # loop time of the last connection's end
        self.last_seen = 0.0  # loop time of the keeper's last word
        self._path = path
        self._health = health
        self._max_staleness_s = max_staleness_s
        self._health_interval_s = health_interval_s
        self._look_up_timeout_s = look_up_timeout_s
        self._wire: _Wire | None = None
        self._last_number = 0
        self._waiting: dict[int, tuple[bytes, asyncio.Future[Principal | None]]] = {}
        self._number_of: dict[bytes, int] = {}  # digest → its look-up under way

    async def run(self) -> None:
        """Keeps the connection up until cancelled."""
        loop = asyncio.get_running_loop()
        self.last_seen = self.lost_at = loop.time()
        retry_s = FIRST_RETRY_S
        try:
            while True:
                try:
                    _, wire = await loop.create_unix_connection(lambda: _Wire(self), self._path)
                except OSError:
                    self._check_staleness(loop.time())
                    await asyncio.sleep(retry_s)
                    retry_s = min(retry_s * 2, LAST_RETRY_S)
                    continue
                retry_s = FIRST_RETRY_S
                await self._talk(wire)
                await asyncio.sleep(FIRST_RETRY_S)  # a keeper that refuses us at once must not make us spin
        finally:
            if self._wire is not None:
                self._wire.close()

    def send(self, message: Message) -> None:
        """Lost where there is no connection: what must be said again is said in `on_opened`."""
        if self._wire is not None:
            self._wire.send(message)

    def is_away(self, now: float) -> bool:
        """The keeper is not about to come back: nobody should wait for it."""
        return not self.is_connected and now - self.lost_at > RESTART_S

    async def look_up(self, digest: bytes) -> Principal | None:
        """The keeper's word on a key; 503 where it gives none in time. Look-ups of one key share one question."""
        number = self._number_of.get(digest)
        if number is None:
            number = self._ask(digest)
        # Shielded: a caller that goes away must not take the answer from the others that wait for it.
        return await asyncio.shield(self._waiting[number][1])

    def _ask(self, digest: bytes) -> int:
        if len(self._waiting) >= MAX_WAITING:
            raise _no_answer()
        loop = asyncio.get_running_loop()
        self._last_number = number = self._last_number + 1
        self._waiting[number] = (digest, loop.create_future())
        self._number_of[digest] = number
        loop.call_later(self._look_up_timeout_s, self._give_up, number)
        if self._wire is not None:
            self._wire.send(LookUp(number, digest))
        return number

    def _give_up(self, number: int) -> None:
        if number in self._waiting:
            future = self._end_look_up(number)
            future.set_exception(_no_answer())
            future.exception()  # seen: perhaps nobody waits any more

    def _end_look_up(self, number: int) -> asyncio.Future[Principal | None]:
        digest, future = self._waiting.pop(number)
        del self._number_of[digest]
        return future

    async def _talk(self, wire: _Wire) -> None:
        loop = asyncio.get_running_loop()
        while not wire.closed.done():
            wire.send(self._health())
            await asyncio.wait((wire.closed,), timeout=self._health_interval_s)
            self._check_staleness(loop.time())

    def _check_staleness(self, now_s: float) -> None:
        self.is_stale = now_s - self.last_seen > self._max_staleness_s

    # --- called by the wire ---------------------------------------------------------------------------------------------

    def opened(self, wire: _Wire) -> None:
        self._wire = wire
        self.is_connected = True
        wire.send(self.hello())
        for number, (digest, _) in self._waiting.items():
            wire.send(LookUp(number, digest))
        for opened in self.on_opened:
            opened()

    def closed(self) -> None:
        if self.is_connected:
            self.lost_at = asyncio.get_running_loop().time()
        self._wire = None
        self.is_connected = False

    def heard(self, messages: list[Message], wire: _Wire) -> None:
        self.last_seen = asyncio.get_running_loop().time()
        self.is_stale = False
        for message in messages:
            if isinstance(message, Push):
                self.on_keys(message.keys, message.is_reset)
                self.on_provider_keys(message.provider_keys, message.is_reset)
                wire.send(Ack(message.number))
            elif isinstance(message, Found):
                if message.number in self._waiting:
                    digest = self._waiting[message.number][0]
                    self.on_keys(((digest, message.principal),), False)
                    self._end_look_up(message.number).set_result(message.principal)
            else:
                handler = self.handlers.get(type(message))
                if handler is not None:
                    handler(message)


class _Wire(asyncio.Protocol):
    """One connection: bytes ↔ messages."""

    def __init__(self, link: KeeperLink):
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._link = link
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._link.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            messages = decode_frames(self._buffer)
        except ValueError:  # not our keeper's words: start again on a fresh connection
            self.close()
            return
        self._link.heard(messages, self)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._link.closed()
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, message: Message) -> None:
        if self._transport is not None:
            self._transport.write(encode_frame(message))

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


def _no_answer() -> GatewayError:
    return GatewayError(
        "The key could not be checked: the keeper does not answer.",
        status=503,
        code="capacity_exceeded",
        retryable=True,
        retry_after_s=1,
    )
