"""The worker's end of the inner lane: a listener on a Unix socket with the same routes, for calls that the keeper makes. Shell.

A call id runs here once. The same id is refused (409) while it runs and for a while after; a call that an earlier keeper sent is refused once
a later one has asked anything. So a keeper that comes back may ask (`aigate/inner.py` InnerState), read the journal, and send again what
neither knows: what its predecessor had sent, and is still on its way here, will not begin.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import os
from collections.abc import Callable

import msgspec

from aigate.errors import ClientError, GatewayError
from aigate.inner import ALREADY_SENT, HEADER, NOT_BEGUN, SECRET_HEADER, STATE_PATH, InnerCall, InnerState, decode_call, is_call_id
from aigate.worker.listener import BodyStream, Exchange, FindRoute, Handler

ENDED_KEPT = 4096  # ids of ended calls; the ledger knows the older ones


class InnerLane:
    """`wrap` makes a public route's handler one of the inner lane; `find_route` has the lane's own."""

    def __init__(self, secret: str, journal_id: str):
        self._secret = secret.encode()
        self._journal_id = journal_id
        self.is_draining = False
        self._epoch = 0
        self._running: set[str] = set()
        self._ended: dict[str, None] = {}

    def wrap(self, handler: Handler) -> Handler:
        async def run_inner(exchange: Exchange) -> None:
            call = self._admit(exchange)
            exchange.inner = call
            exchange.request_id = call.call_id
            self._running.add(call.call_id)
            try:
                await handler(exchange)
            finally:
                self._running.discard(call.call_id)
                if len(self._ended) >= ENDED_KEPT:
                    del self._ended[next(iter(self._ended))]
                self._ended[call.call_id] = None

        return run_inner

    def find_route(self, exchange: Exchange, find_public: FindRoute) -> Handler | None:
        if exchange.method == "GET" and exchange.path.startswith(STATE_PATH):
            return self._say_state
        handler = find_public(exchange)
        return None if handler is None else self.wrap(handler)

    async def refuse(self, exchange: Exchange, body: BodyStream) -> None:
        """Everything else: nothing of the inner lane is piped on."""
        raise ClientError(f"{exchange.path} is no route of the inner lane", status=404, code="not_found")

    def _admit(self, exchange: Exchange) -> InnerCall:
        self._check_secret(exchange)
        try:
            call = decode_call(exchange.headers.get(HEADER, b""))
        except ValueError:
            raise ClientError("the inner call cannot be read", param=HEADER.decode()) from None
        if not is_call_id(call.call_id):
            raise ClientError(f"{call.call_id[:80]!r} is no call id", param=HEADER.decode())
        if self.is_draining:
            raise GatewayError("this worker is ending", status=503, code=NOT_BEGUN, retryable=True)
        self._hear(call.epoch)
        if call.epoch < self._epoch or call.call_id in self._running or call.call_id in self._ended:
            raise ClientError(f"the call {call.call_id} was sent before", status=409, code=ALREADY_SENT)
        return call

    async def _say_state(self, exchange: Exchange) -> None:
        self._check_secret(exchange)
        call_id = exchange.path.removeprefix(STATE_PATH)
        epoch = exchange.headers.get(HEADER, b"")
        if not epoch.isdigit():
            raise ClientError("an epoch is a number", param=HEADER.decode())
        self._hear(int(epoch))
        state = InnerState(self._journal_id, call_id in self._running)
        exchange.reply(200, [(b"content-type", b"application/json")], msgspec.json.encode(state))

    def _hear(self, epoch: int) -> None:
        self._epoch = max(self._epoch, epoch)

    def _check_secret(self, exchange: Exchange) -> None:
        if not hmac.compare_digest(exchange.headers.get(SECRET_HEADER, b""), self._secret):
            raise ClientError("this socket is the gateway's own", status=401, code="unauthorized")


async def listen_inner(path: str, protocol: Callable[[], asyncio.Protocol], loop: asyncio.AbstractEventLoop) -> asyncio.Server:
    """In the folder of sockets, that only our own user may enter."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # of the process that held this place before: it is gone
    return await loop.create_unix_server(protocol, path)
