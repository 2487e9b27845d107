"""One request and its reply on a client connection: what handlers read, and the only way they answer.

Owns the shape of a reply (plain, streamed, tunnelled) and the piped request body. Knows nothing of routes, deadlines or what
comes next on the connection: `connection.py` does. Once the client has left, everything written is dropped in silence.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from aigate.inner import InnerCall
from aigate.worker.framing import RequestHead
from aigate.worker.heads import FieldBlock, Fields, reply_head
from aigate.worker.tape import Shelf, Tape

if TYPE_CHECKING:
    from aigate.worker.connection import Connection
    from aigate.worker.listener import Listener

MAX_HELD_BYTES = 256 << 10  # of a piped body: more pauses the client
_BODILESS = frozenset({*range(100, 200), 204, 304})


class Exchange:
    """`path`, `query` and `headers` are the head's, unless a surface took its key out of them; `headers` are frozen.
    `on_gone` is called once when the client leaves before its reply has ended, `on_drain` when `is_full` ends.
    `inner`: what the keeper says of a call of its own (worker/inner.py); no client can set it."""

    __slots__ = (
        "head", "request_id", "path", "query", "headers", "body", "started_at",
        "is_gone", "is_started", "is_ended", "on_gone", "on_drain", "inner", "status", "shelf", "tape", "whole",
        "_connection", "_is_chunked", "_is_cut_by_close", "_is_bodiless",
    )  # fmt: skip

    def __init__(self, connection: Connection, head: RequestHead, request_id: str, started_at: float):
        self.head = head
        self.request_id = request_id
        self.path = head.path
        self.query = head.query
        self.headers = head.headers
        self.body = b""
        self.started_at = started_at
        self.is_gone = self.is_started = self.is_ended = self._is_chunked = self._is_cut_by_close = self._is_bodiless = False
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.inner: InnerCall | None = None
        self.status = 0  # of the reply; 0 = there is none yet
        self.shelf: Shelf | None = None  # set where the reply is to be kept: then it ends up in one of the next two
        self.tape: Tape | None = None  # … if it is streamed
        self.whole = b""
        self._connection = connection

    @property
    def method(self) -> str:
        return self.head.method

    @property
    def is_full(self) -> bool:
        """More than 64 KB wait for the client: stop sending until `on_drain`."""
        return self._connection.is_full

    def reply(self, status: int, fields: Fields | FieldBlock, body: bytes) -> None:
        """The whole reply, in one write."""
        if self.is_started:
            raise _second_reply()
        self.status = status
        if self.shelf is not None:
            self.whole = body
        if self.is_gone:
            return
        connection = self._connection
        length = None if status in _BODILESS else len(body)
        head = reply_head(status, fields, length=length, connection=connection.option(self), date=connection.listener.date)
        self.is_started = self.is_ended = True
        connection.write(head if length is None or self.head.method == "HEAD" else head + body)
        connection.finish()

    def start(self, status: int, fields: Fields | FieldBlock, *, length: int | None = None) -> None:
        """A streamed reply: of `length` bytes where that is known, else chunked, else (HTTP/1.0) until the connection closes."""
        if self.is_started:
            raise _second_reply()
        self.status = status
        if self.shelf is not None:
            self.tape = Tape(self.shelf)
        if self.is_gone:
            return
        connection = self._connection
        has_no_body = status in _BODILESS
        is_unsized = length is None and not has_no_body
        self._is_cut_by_close = is_unsized and self.head.is_http_1_0
        self._is_chunked = is_unsized and not self.head.is_http_1_0
        head = reply_head(
            status,
            fields,
            length=None if has_no_body else length,
            is_chunked=self._is_chunked,
            connection=connection.option(self, must_close=self._is_cut_by_close),
            date=connection.listener.date,
        )
        self.is_started = True
        self._is_bodiless = has_no_body or self.method == "HEAD"
        connection.write(head)

    def send(self, data: bytes) -> bool:
        """One piece of a streamed reply, in one write. Returns `is_full`."""
        connection = self._connection
        if data and not self.is_gone and not self.is_ended and not self._is_bodiless:
            if self.tape is not None:
                self.tape.add(data)
            connection.write(b"%x\r\n%b\r\n" % (len(data), data) if self._is_chunked else data)
        return connection.is_full

    def end(self) -> None:
        self.end_with(b"")

    def end_with(self, data: bytes) -> None:
        """The last piece and the end, in one write."""
        if self.is_gone or self.is_ended:
            return
        self.is_ended = True
        if not self._is_bodiless:
            if self.tape is not None:
                self.tape.add(data)
            if self._is_chunked:
                data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
            if data:
                self._connection.write(data)
        self._connection.finish()

    def abort(self) -> None:
        """Ends the connection now, so that a reply cut short looks cut short."""
        if not self.is_gone and not self.is_ended:
            self.is_ended = True
            self._connection.cut(is_ambiguous=self._is_cut_by_close)

    def tunnel(self, fields: Fields | FieldBlock) -> BodyStream:
        """101, and from here on bytes both ways: `send` writes them as they are, the stream gives the client's."""
        if self.is_started:
            raise _second_reply()
        head = reply_head(101, fields, connection=b"Upgrade", date=self._connection.listener.date)
        self.is_started = True
        return self._connection.tunnel(head)

    def leave(self) -> None:
        """For the connection: the client is gone. A call of the gateway's own goes on: who made it will find its reply in the archive."""
        if self.inner is not None:
            self._connection = _Nobody(self._connection.listener)  # type: ignore[assignment]
            if self.on_drain is not None:
                self.on_drain()
            return
        if not self.is_gone and not self.is_ended:
            self.is_gone = True
            if self.on_gone is not None:
                self.on_gone()


class _Nobody:
    """In place of a connection that has gone."""

    __slots__ = ("listener",)
    is_full = False

    def __init__(self, listener: Listener):
        self.listener = listener

    def option(self, exchange: Exchange, must_close: bool = False) -> bytes:
        return b"close"

    def write(self, data: bytes) -> None:
        """Nobody reads it."""

    def finish(self) -> None:
        """Nothing comes next."""

    def cut(self, is_ambiguous: bool) -> None:
        """There is nothing to cut."""


def _second_reply() -> RuntimeError:
    return RuntimeError("this exchange has its reply already")


class BodyStream:
    """A request body on its way through, held to MAX_HELD_BYTES by pausing the client. `length` None: chunked, or a tunnel."""

    __slots__ = ("length", "_connection", "_pieces", "_held_bytes", "_is_ended", "_error", "_waiter")

    def __init__(self, connection: Connection, length: int | None):
        self.length = length
        self._connection = connection
        self._pieces: deque[bytes] = deque()
        self._held_bytes = 0
        self._is_ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None

    async def read(self) -> bytes:
        """The next piece, b"" at the end. ClientError where the body breaks a rule, ConnectionError where the client left."""
        while not self._pieces:
            if self._error is not None:
                raise self._error
            if self._is_ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        piece = self._pieces.popleft()
        self._held_bytes -= len(piece)
        if self._held_bytes < MAX_HELD_BYTES:
            self._connection.resume_reading()
        return piece

    def put(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held_bytes += len(piece)
        if self._held_bytes >= MAX_HELD_BYTES:
            self._connection.pause_reading()
        self._wake()

    def end(self, error: Exception | None = None) -> None:
        self._is_ended = True
        self._error = error
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
