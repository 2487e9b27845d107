"""A small HTTP/1.1 server of the simulated provider's own, so that it can misbehave at every byte.

Parses requests and hands them over one at a time, in order; knows nothing of models. It does not use the gateway's listener:
what checks the gateway must not share its mistakes.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable

import httptools
import msgspec

MAX_BODY_BYTES = 256 << 20
WRITE_HIGH_BYTES = 256 << 10  # a reader this far behind pauses the reply


class Request(msgspec.Struct):
    """A request, whole. Headers as they arrived, in order."""

    method: str
    target: str
    version: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    keeps_alive: bool

    def header(self, name: bytes) -> str:
        """The last value of a header, "" if absent; `name` in lower case."""
        for key, value in reversed(self.headers):
            if len(key) == len(name) and key.lower() == name:
                return value.decode("latin-1")
        return ""


class Connection(asyncio.Protocol):
    """One client connection. The handler of a request writes bytes and then calls `finish`, `close` or `reset`."""

    def __init__(self, handle: Callable[[Connection, Request], None], connections: set[Connection]) -> None:
        self._handle = handle
        self._connections = connections
        self._waiting: deque[Request] = deque()
        self._drained: asyncio.Future[None] | None = None
        self._is_paused = False
        self._is_closing = False
        self.request: Request | None = None
        self.on_gone: Callable[[], None] | None = None  # set by the handler: the client left before `finish`

    # --- replying

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    async def drained(self) -> None:
        """Waits while the client is far behind; lets others run in any case, and the news arrive that the client left."""
        if self._is_paused:
            self._drained = asyncio.get_running_loop().create_future()
            await self._drained
        else:
            await asyncio.sleep(0)

    def finish(self) -> None:
        """The reply is complete: the next request, or the end."""
        request, self.request, self.on_gone = self.request, None, None
        if request is None or self._is_closing or not request.keeps_alive:
            self.close()
        elif self._waiting:
            asyncio.get_running_loop().call_soon(self._begin, self._waiting.popleft())

    def close(self) -> None:
        """What was written goes out, then the end."""
        self.on_gone = None
        self.transport.close()

    def reset(self) -> None:
        """RST where there is one (TCP); what was not read yet may be lost."""
        self.on_gone = None
        sock = self.transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def finish_and_close(self) -> None:
        """Drain: no further request on this connection."""
        self._is_closing = True
        if self.request is None:
            self.transport.close()

    # --- transport

    def connection_made(self, transport: asyncio.Transport) -> None:
        self.transport = transport
        transport.set_write_buffer_limits(high=WRITE_HIGH_BYTES)
        self._parser = httptools.HttpRequestParser(self)
        self._connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        on_gone, self.on_gone = self.on_gone, None
        if on_gone is not None:
            on_gone()

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        drained, self._drained = self._drained, None
        if drained is not None and not drained.done():
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._refuse(b"501 Not Implemented")
        except httptools.HttpParserError:
            self._refuse(b"400 Bad Request")

    def _refuse(self, status: bytes) -> None:
        self.write(b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        self.close()

    # --- parser

    def on_message_begin(self) -> None:
        self._target = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._body: list[bytes] = []
        self._body_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        for name, value in self._headers:
            if len(name) == 6 and name.lower() == b"expect" and value.lower() == b"100-continue":
                self.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, data: bytes) -> None:
        self._body_bytes += len(data)
        if self._body_bytes <= MAX_BODY_BYTES:
            self._body.append(data)
        elif not self.transport.is_closing():
            self._refuse(b"413 Content Too Large")

    def on_message_complete(self) -> None:
        if self.transport.is_closing():
            return
        parser = self._parser
        request = Request(
            method=parser.get_method().decode(),
            target=self._target.decode("latin-1"),
            version=parser.get_http_version(),
            headers=self._headers,
            body=b"".join(self._body),
            keeps_alive=parser.should_keep_alive(),
        )
        if self.request is None and not self._waiting:
            self._begin(request)
        else:
            self._waiting.append(request)

    def _begin(self, request: Request) -> None:
        if self.transport.is_closing():
            return
        self.request = request
        self._handle(self, request)
