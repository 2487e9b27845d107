"""Pipes what is not an inference route to the keeper's HTTP server on its Unix socket, streamed both ways. Shell.

One connection a request: control-plane calls are few, and a fresh socket can leave nothing behind for the next one. Both heads
are re-written: hop-by-hop fields go, our request id is put in. A 101 turns both connections into a tunnel.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket

import httptools

from aigate.errors import ClientError, GatewayError
from aigate.worker.exchange import BodyStream, Exchange
from aigate.worker.heads import Fields, request_head

PATIENCE_S = 60.0  # for a keeper that takes nothing of the request, or does not begin its reply

_READ_BYTES = 64 << 10
_REPEATABLE = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})  # twice is the same as once
_HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization", b"te", b"trailer",
        b"transfer-encoding", b"upgrade", b"content-length", b"host", b"expect", b"date", b"x-request-id", b"x-aig-request-id",
    }
)  # fmt: skip


class Pipe:
    """A listener's fallback."""

    def __init__(self, socket_path: str, *, patience_s: float = PATIENCE_S):
        self._socket_path = socket_path
        self._patience_s = patience_s

    async def __call__(self, exchange: Exchange, body: BodyStream) -> None:
        if exchange.is_gone:
            return
        task = asyncio.current_task()
        exchange.on_gone = task.cancel
        try:
            reader, writer, sender = await _connect(self._socket_path)
        except OSError:
            raise _unavailable("the control plane is not reachable", is_repeatable=True) from None
        patience = _Patience(writer.transport, self._patience_s)
        upload = asyncio.create_task(_upload(exchange, body, sender, patience))
        try:
            await self._relay(exchange, reader, writer, patience)
        except (OSError, httptools.HttpParserError) as problem:
            if upload.done() and isinstance(upload.exception(), ClientError):
                raise upload.exception() from None
            how = "did not answer in time" if patience.has_ended else "ended the connection before its reply was whole"
            raise _unavailable(f"the control plane {how}", is_repeatable=exchange.method in _REPEATABLE) from problem
        finally:
            patience.stop()
            upload.cancel()
            writer.transport.abort()
            await asyncio.gather(upload, return_exceptions=True)
            sender.close()

    async def _relay(
        self, exchange: Exchange, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, patience: _Patience
    ) -> None:
        reply = _Reply(exchange)
        room = _Room(exchange)
        while not exchange.is_ended:
            data = await reader.read(_READ_BYTES)
            if not data:
                reply.close()
                return
            try:
                reply.feed(data)
            except httptools.HttpParserUpgrade as upgrade:
                await _tunnel(exchange, reply.fields, data[upgrade.args[0] :], (reader, writer))
                return
            if exchange.is_started:
                patience.stop()
            await room.wait()


async def _connect(path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, socket.socket]:
    """A connection to the keeper and, for the request, a second handle on it. A keeper that answers before it has read the whole request
    closes under our writing; a stream whose write fails forgets what it has not read yet, and its answer would be lost."""
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    try:
        sock.connect(path)  # to a Unix socket this never waits: it is done or refused
    except OSError:
        sock.close()
        raise
    sender = sock.dup()
    return *await asyncio.open_unix_connection(sock=sock, limit=_READ_BYTES), sender


class _Patience:
    """Cuts the connection to a keeper that lets us wait too long. Once stopped, it does not start again."""

    def __init__(self, transport: asyncio.BaseTransport, patience_s: float):
        self.has_ended = False
        self._transport = transport
        self._patience_s = patience_s
        self._timer: asyncio.TimerHandle | None = None
        self._is_stopped = False

    def start(self) -> None:
        self.pause()
        if not self._is_stopped:
            self._timer = asyncio.get_running_loop().call_later(self._patience_s, self._end)

    def pause(self) -> None:
        """While it is the client who keeps us waiting."""
        if self._timer is not None:
            self._timer.cancel()

    def stop(self) -> None:
        self._is_stopped = True
        self.pause()

    def _end(self) -> None:
        self.has_ended = True
        self._transport.abort()  # type: ignore[attr-defined]


class _Room:
    """Waits until the client has taken most of what was sent to it."""

    def __init__(self, exchange: Exchange):
        self._exchange = exchange
        self._drained = asyncio.Event()
        exchange.on_drain = self._drained.set

    async def wait(self) -> None:
        if self._exchange.is_full:
            self._drained.clear()
            await self._drained.wait()


class _Reply:
    """The keeper's reply, sent on as it is parsed. The callbacks are the parser's."""

    def __init__(self, exchange: Exchange):
        self.fields: list[tuple[bytes, bytes]] = []
        self._exchange = exchange
        self._length: int | None = None
        self._is_cut_by_close = True
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def close(self) -> None:
        """The keeper's connection ended: the end of a reply without framing, too early for any other."""
        if not self._exchange.is_started or not self._is_cut_by_close:
            raise ConnectionResetError("the reply was cut")
        self._exchange.end()

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-length":
            self._length = int(value)
        elif name == b"transfer-encoding":
            self._is_cut_by_close = False
        self.fields.append((name, value))

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if status < 200:
            if status != 101:
                self.fields = []  # 100 and its like are between the keeper and us
            return
        exchange = self._exchange
        if self._length is not None:
            self._is_cut_by_close = False
        exchange.start(status, _reply_fields(self.fields, exchange), length=self._length)
        if exchange.method == "HEAD":
            exchange.end()

    def on_body(self, data: bytes) -> None:
        self._exchange.send(data)

    def on_message_complete(self) -> None:
        if self._exchange.is_started:
            self._exchange.end()


async def _upload(exchange: Exchange, body: BodyStream, sender: socket.socket, patience: _Patience) -> None:
    """The request, head and body. A body that fails takes the keeper's connection with it, so that no half request is acted on."""
    send = asyncio.get_running_loop().sock_sendall
    try:
        is_chunked = body.length is None
        await send(sender, _request_head(exchange, body.length))
        while piece := await body.read():
            patience.start()
            await send(sender, b"%x\r\n%b\r\n" % (len(piece), piece) if is_chunked else piece)
            patience.pause()
        if is_chunked:
            await send(sender, b"0\r\n\r\n")
        patience.start()
    except ClientError:
        with contextlib.suppress(OSError):  # it has closed already
            sender.shutdown(socket.SHUT_RDWR)
        raise
    except ConnectionError:
        pass  # the client left, or the keeper closed: each has its own reader who knows


def _request_head(exchange: Exchange, length: int | None) -> bytes:
    target = f"{exchange.path}?{exchange.query}" if exchange.query else exchange.path
    fields = _end_to_end(exchange.headers.items(), exchange.headers.get(b"connection", b""))
    fields.append((b"x-aig-request-id", exchange.request_id.encode()))
    if exchange.head.is_websocket:
        fields.append((b"upgrade", b"websocket"))
    return request_head(
        exchange.method.encode(),
        target.encode(),
        exchange.headers.get(b"host") or b"localhost",
        fields,
        length or None if exchange.method in ("GET", "HEAD") else length,
        is_chunked=length is None,
        connection=b"Upgrade" if exchange.head.is_websocket else b"close",
    )


def _reply_fields(fields: Fields, exchange: Exchange) -> Fields:
    connection = b",".join([value for name, value in fields if name == b"connection"])
    return [*_end_to_end(fields, connection), (b"x-request-id", exchange.request_id.encode())]


def _end_to_end(fields: Fields, connection: bytes) -> list[tuple[bytes, bytes]]:
    """Without what concerns one connection only: the known fields and those that Connection names."""
    named = {option.strip() for option in connection.lower().split(b",")}
    return [(name, value) for name, value in fields if name not in _HOP_BY_HOP and name not in named]


async def _tunnel(
    exchange: Exchange, fields: Fields, first: bytes, keeper: tuple[asyncio.StreamReader, asyncio.StreamWriter]
) -> None:
    reader, writer = keeper
    from_client = exchange.tunnel([*_reply_fields(fields, exchange), (b"upgrade", b"websocket")])
    exchange.send(first)
    upload = asyncio.create_task(_pass_on(from_client, writer))
    room = _Room(exchange)
    try:
        while data := await reader.read(_READ_BYTES):
            exchange.send(data)
            await room.wait()
    finally:
        upload.cancel()
        exchange.end()


async def _pass_on(from_client: BodyStream, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await from_client.read():
            writer.write(piece)
            await writer.drain()
    except ConnectionError:
        pass  # the client left: its exchange ends the tunnel


def _unavailable(message: str, *, is_repeatable: bool) -> GatewayError:
    """What may have been done already is not for a client to send again by itself."""
    retry_after_s = 1 if is_repeatable else None
    return GatewayError(message, status=503, code="capacity_exceeded", retryable=is_repeatable, retry_after_s=retry_after_s)
