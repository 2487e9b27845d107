"""One client connection: bytes → requests, one at a time, and the order, deadlines and ends that keep that safe. Shell.

Life: a head (in pieces or whole) → its body → the handler's task → the reply → the next head. What a client sends ahead is held,
up to 64 KB; reading goes on during a call, as a paused socket never sees its client leave. Errors found here end the connection.
Deadlines are plain numbers that the listener's one sweep looks at: no timer per connection.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import TYPE_CHECKING

from aigate.errors import ClientError, GateError
from aigate.worker.exchange import BodyStream, Exchange
from aigate.worker.framing import ChunkedBody, DroppedBody, HeadBuffer, HeadMemory, RawBody, RequestHead, SizedBody
from aigate.worker.heads import error_fields, reply_head

if TYPE_CHECKING:
    from aigate.worker.listener import Handler, Listener

MAX_AHEAD_BYTES = 64 << 10  # requests sent ahead of their turn
MAX_UNSENT_BYTES = 64 << 10  # reply bytes not yet taken: `is_full`
MAX_HELD_BYTES = 16 << 10  # in one piece: more is sent at once, so that `is_full` is known at once
MIN_BODY_RATE = 64 << 10  # bytes a second that earn a body more time than its timeout
LINGER_S = 5.0  # what a refused client still sends is read and dropped this long: a reset would eat our answer


class Connection(asyncio.Protocol):
    __slots__ = (
        # for life
        "listener", "is_full", "_transport", "_turn", "_held", "_heads", "_head_buffer", "_ahead", "_deadline", "_is_closing", "_closes",
        "_is_reading_paused", "_unsent_bytes", "_unsent_since",
        # for one request
        "_exchange", "_handler", "_started_at", "_body", "_pieces", "_stream", "_body_bytes", "_body_limit", "_body_since",
    )  # fmt: skip

    def __init__(self, listener: Listener):
        self.listener = listener
        self._turn = listener.turn
        self._held: list[bytes] = []  # to be sent at the end of the turn
        self._heads = HeadMemory()
        self._head_buffer: HeadBuffer | None = None  # a head that has begun
        self._ahead = b""
        self._deadline = 0.0  # loop time; 0 = none
        self._is_closing = False
        self._closes = False  # after the reply that is under way
        self._is_reading_paused = False
        self.is_full = False
        self._unsent_bytes = 0
        self._unsent_since = 0.0
        self._exchange: Exchange | None = None
        self._started_at = 0.0
        self._body: SizedBody | ChunkedBody | RawBody | DroppedBody | None = None  # still being read
        self._body_bytes = 0
        self._pieces: list[bytes] = []
        self._stream: BodyStream | None = None  # where the pieces go instead, when piped

    # --- asyncio.Protocol ---

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
        self.listener.add(self)
        self._deadline = self.listener.now + self.listener.limits.keep_alive_s

    def data_received(self, data: bytes) -> None:
        if self._exchange is None:
            if self._ahead:
                data, self._ahead = self._ahead + data, b""
            if not self._is_closing:
                self._read_head(data)
        elif self._body is not None:
            self._read_body(data)
        else:
            self._hold(data)

    def eof_received(self) -> None:
        """A client that says it will send no more is taken to have left: that is how leaving looks while a call runs."""
        self._send_all()
        self._is_closing = True  # the transport closes itself, once what we wrote is sent
        self._deadline = 0.0
        self._leave()

    def connection_lost(self, problem: Exception | None) -> None:
        self._is_closing = True
        self._leave()
        self.listener.remove(self)

    def pause_writing(self) -> None:
        self.is_full = True

    def resume_writing(self) -> None:
        self.is_full = False
        exchange = self._exchange
        if exchange is not None and exchange.on_drain is not None:
            exchange.on_drain()

    # --- request head ---

    def _read_head(self, data: bytes) -> None:
        """`data` begins with a request: its head may be the same as the last, most often is whole, and may come in pieces."""
        heads = self._heads
        if heads.last and data.startswith(heads.last) and self._head_buffer is None:
            self._begin(heads.head, self.listener.time(), data, len(heads.last))
            return
        if not self._started_at:
            self._started_at = self.listener.time()
        end = data.find(b"\r\n\r\n")
        if end <= 0 or self._head_buffer is not None or data[0] < 0x21:
            whole = self._gather(data)
            if whole is None:
                return
            data = whole
            end = data.find(b"\r\n\r\n")
        end += 4
        try:
            head = heads.read(data if end == len(data) else data[:end])
        except ClientError as error:
            self._refuse(error)
            return
        started_at, self._started_at = self._started_at, 0.0
        self._begin(head, started_at, data, end)

    def _begin(self, head: RequestHead, started_at: float, data: bytes, end: int) -> None:
        """The request whose head is read: `data[end:]` is what has come of its body."""
        listener = self.listener
        self._exchange = exchange = Exchange(self, head, listener.next_id(), started_at)
        try:
            handler = head.handler or listener.route(exchange)
        except ClientError as error:
            self._refuse(error)
            return
        length = head.length
        if handler is not None and length == len(data) - end and length <= listener.limits.max_body_bytes:
            self._deadline = 0.0  # the common case: one request, whole, in one read
            exchange.body = data[end:]
            listener.run(handler, exchange)
        else:
            self._begin_body(exchange, handler, length)
            if self._body is not None:
                self._read_body(data[end:])

    def _gather(self, data: bytes) -> bytes | None:
        """All bytes from the start of the head on, once it is whole."""
        if self._head_buffer is None:
            data = data.lstrip(b"\r\n")  # empty lines before a request are allowed, and are none yet
            if not data:
                self._started_at = 0.0
                return None
            self._head_buffer = HeadBuffer()
            self._deadline = self._started_at + self.listener.limits.header_timeout_s
        try:
            whole = self._head_buffer.add(data)
        except ClientError as error:
            self._refuse(error)
            return None
        if whole is not None:
            self._head_buffer = None
        return whole

    # --- request body ---

    def _begin_body(self, exchange: Exchange, handler: Handler | None, length: int | None) -> None:
        listener = self.listener
        limits = listener.limits
        self._body_limit = limits.max_upload_bytes if handler is None else limits.max_body_bytes
        if length is not None and length > self._body_limit:
            self._refuse(self._too_large())
            return
        self._body = ChunkedBody() if length is None else SizedBody(length)
        self._body_bytes = 0
        self._body_since = listener.now
        self._deadline = self._body_since + limits.body_timeout_s
        self._handler = handler
        if handler is None:
            self._stream = BodyStream(self, length)
            listener.run_fallback(exchange, self._stream)
        if b"expect" in exchange.headers and length != 0 and not exchange.head.is_http_1_0:
            self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _read_body(self, data: bytes) -> None:
        body = self._body
        try:
            piece = body.feed(data)
            self._body_bytes += len(piece)
            if self._body_bytes > self._body_limit:
                raise self._too_large()
        except ClientError as error:
            self._fail_body(error)
            return
        if piece:
            if self._stream is not None:
                self._stream.put(piece)
            else:
                self._pieces.append(piece)
        if body.is_complete:
            self._end_body(body.rest)

    def _end_body(self, rest: bytes) -> None:
        self._body = None
        self._deadline = 0.0
        exchange, stream = self._exchange, self._stream
        if rest:
            self._hold(rest)
        if stream is not None:
            self._stream = None
            stream.end()
            self.resume_reading()  # during the call nothing is paused
        else:
            exchange.body = b"".join(self._pieces)
            self._pieces = []
            self.listener.run(self._handler, exchange)

    def _fail_body(self, error: ClientError) -> None:
        if self._stream is None:
            self._refuse(error)
        else:
            self._stream.end(error)  # its handler answers; a body that is not complete ends the connection
            self._stream = None
            self._body = DroppedBody()
            self._deadline = 0.0
            self.resume_reading()

    def _too_large(self) -> ClientError:
        return ClientError(
            f"the request body is larger than the {self._body_limit} bytes allowed here", status=413, code="payload_too_large"
        )

    def _hold(self, data: bytes) -> None:
        self._ahead += data
        if len(self._ahead) > MAX_AHEAD_BYTES:
            self._ahead = self._ahead[:MAX_AHEAD_BYTES]  # and no more: what is cut is never read as a request
            self._closes = True

    # --- for the exchange and its stream ---

    def write(self, data: bytes) -> None:
        """Sent in its order, at the latest at the end of the turn."""
        if len(data) > MAX_HELD_BYTES:
            self._turn.flush()
            self._transport.write(data)
        elif self._held or self._turn.takes(self):
            self._held.append(data)
        else:
            self._transport.write(data)

    def send_held(self) -> None:
        held = self._held
        if held:
            data = held[0] if len(held) == 1 else b"".join(held)
            held.clear()
            if not self._transport.is_closing():
                self._transport.write(data)

    def _send_all(self) -> None:
        """Before the connection ends: what is held is sent, behind the records that go before it."""
        if self._held:
            self._turn.flush()

    def option(self, exchange: Exchange, must_close: bool = False) -> bytes:
        """The Connection field of the reply head that is about to be written; decides what becomes of the connection."""
        if not exchange.head.keeps_alive or must_close or self._body is not None or self.listener.is_draining or self._closes:
            self._closes = True
            return b"close"
        return b"keep-alive" if exchange.head.is_http_1_0 else b""

    def finish(self) -> None:
        """The reply has ended: on to the next request, or the end."""
        self._exchange = None
        if self._closes or self._body is not None or self.listener.is_draining:
            self._close(lingers=self._body is not None or bool(self._ahead))
            return
        self._deadline = self.listener.now + self.listener.limits.keep_alive_s
        if self._ahead:  # soon, not now: a row of requests sent ahead must not nest their handlers
            self.listener.soon(self._read_ahead)

    def _read_ahead(self) -> None:
        if self._ahead and self._exchange is None and not self._is_closing:
            data, self._ahead = self._ahead, b""
            self._read_head(data)

    def tunnel(self, head: bytes) -> BodyStream:
        self._closes = True
        self.write(head)
        self._body = RawBody()
        self._body_limit = float("inf")
        self._stream = stream = BodyStream(self, None)
        if self._ahead:
            stream.put(self._ahead)
            self._ahead = b""
        return stream

    def pause_reading(self) -> None:
        self._is_reading_paused = True
        self._deadline = 0.0  # the time that we take is not the client's
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._is_reading_paused and not self._is_closing:
            self._is_reading_paused = False
            self._transport.resume_reading()
            if isinstance(self._body, SizedBody | ChunkedBody):
                self._body_since = self.listener.now
                self._deadline = self._body_since + self.listener.limits.body_timeout_s

    # --- ends ---

    def cut(self, is_ambiguous: bool) -> None:
        """Closes without an end to the reply; where only a reset can tell that from an end (`is_ambiguous`), by a reset."""
        self._send_all()
        self._exchange = None
        self._is_closing = True
        if is_ambiguous:
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()

    def close_if_idle(self) -> None:
        if self._exchange is None and not self._is_closing and self._head_buffer is None:
            self._send_all()
            self._is_closing = True
            self._transport.close()

    def abort(self) -> None:
        self._transport.abort()

    def check(self, now: float) -> None:
        """Called by the sweep. A client that takes nothing of what waits for it is given up; so is one past its deadline."""
        unsent_bytes = self._transport.get_write_buffer_size()
        if not unsent_bytes:
            self._unsent_since = 0.0
        elif unsent_bytes < self._unsent_bytes or not self._unsent_since:
            self._unsent_since = now
        elif now - self._unsent_since > self.listener.limits.stall_s:
            self.abort()
            return
        self._unsent_bytes = unsent_bytes
        if self._deadline and now > self._deadline:
            self._expire(now)

    def _expire(self, now: float) -> None:
        if self._is_closing:
            self.abort()
        elif self._body is not None:
            earned_until = self._body_since + self.listener.limits.body_timeout_s + self._body_bytes / MIN_BODY_RATE
            if now < earned_until:
                self._deadline = earned_until
            else:
                self._fail_body(_too_slow("body"))
        elif self._head_buffer is not None:
            self._refuse(_too_slow("head"))
        else:
            self.close_if_idle()

    def _refuse(self, error: ClientError) -> None:
        """Answers what cannot be served, and closes: what follows on the connection cannot be trusted, or will not be read."""
        exchange = self._exchange
        request_id = exchange.request_id if exchange is not None else self.listener.next_id()
        body = self.listener.write_error(error, request_id, exchange.path if exchange is not None else "")
        fields = error_fields(error, request_id)
        if error.status == 405:
            fields.append((b"allow", self.listener.allowed_methods[exchange.path]))
        head = reply_head(error.status, fields, length=len(body), connection=b"close", date=self.listener.date)
        self.write(head if exchange is not None and exchange.method == "HEAD" else head + body)
        self._exchange = None
        self._closes = True
        self._close(lingers=True)

    def _close(self, lingers: bool) -> None:
        """Once what we wrote is sent. `lingers`: what the client still sends is read out first, as a reset would eat our answer."""
        self._send_all()
        self._is_closing = True
        self._pieces = []
        transport = self._transport
        if transport.is_closing():
            return
        if not lingers:
            transport.close()
            return
        transport.write_eof()
        self._deadline = self.listener.now + LINGER_S
        if self._is_reading_paused:
            transport.resume_reading()

    def _leave(self) -> None:
        exchange, stream = self._exchange, self._stream
        self._exchange = self._stream = None
        if stream is not None:
            stream.end(ConnectionResetError("the client left"))
        if exchange is not None:
            exchange.leave()


def _too_slow(part: str) -> GateError:
    message = f"the request {part} took too long to arrive"
    return ClientError(message, status=408, type="timeout_error", code="request_timeout", retryable=True)
