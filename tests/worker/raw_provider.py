"""A provider for tests: real sockets, and a script per connection that says what bytes leave and when."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import uvloop

from aigate.errors import ProviderError
from aigate.worker.client import Origin, Pool
from aigate.worker.upstream_connection import Connection

REQUEST = b"POST /v1/chat HTTP/1.1\r\nhost: p\r\ncontent-length: 2\r\n\r\n{}"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
MEGABYTE = 1 << 20

Script = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The provider's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request, whole; b"" when the gateway has closed."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            return b""
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        return head + await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
        await self.writer.drain()

    async def closed(self) -> bool:
        """Waits until the gateway closes; True if it sent nothing more before."""
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True

    def reset(self) -> None:
        """Closes with RST instead of FIN."""
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


class ClockedLoop:
    """The running loop with a clock that tests can move, and the transports it opened."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.shift_s = 0.0
        self.transports: list[asyncio.BaseTransport] = []

    def time(self) -> float:
        return self.loop.time() + self.shift_s

    async def create_connection(self, *args, **options):  # type: ignore[no-untyped-def]
        transport, protocol = await self.loop.create_connection(*args, **options)
        self.transports.append(transport)
        return transport, protocol

    def __getattr__(self, name: str) -> object:
        return getattr(self.loop, name)


@asynccontextmanager
async def provider(*scripts: Script, **options: object) -> AsyncIterator[Origin]:
    """Serves connection n with script n (the last one serves all that follow); a script that fails, fails the test."""
    tasks: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        script = scripts[min(len(tasks), len(scripts) - 1)]
        task = asyncio.current_task()
        assert task is not None
        tasks.append(task)
        try:
            await script(Peer(reader, writer))
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)  # type: ignore[arg-type]
    try:
        yield Origin("https" if "ssl" in options else "http", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        if tasks:  # the pool has closed by now, so every script ends by itself
            _, stuck = await asyncio.wait(tasks, timeout=2)
            for task in stuck:
                task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result


@asynccontextmanager
async def pool(**options: object) -> AsyncIterator[Pool]:
    settings = {"connect_timeout_s": 5.0, "sweep_s": 0.005, "loop": asyncio.get_running_loop()} | options
    outbound = Pool(**settings)  # type: ignore[arg-type]
    try:
        yield outbound
    finally:
        outbound.close()


def answers(*replies: bytes) -> Script:
    """One reply per request, then waits for the gateway to close."""

    async def script(peer: Peer) -> None:
        for reply in replies:
            if await peer.request():
                await peer.send(reply)
        await peer.closed()

    return script


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(10):
            await test()

    uvloop.run(limited())


class Stream:
    """What a reader of a stream saw."""

    def __init__(self) -> None:
        self.pieces: list[bytes] = []
        self.ends: list[ProviderError | None] = []
        self.changed = asyncio.Event()

    def on_data(self, data: bytes) -> None:
        self.pieces.append(data)
        self.changed.set()

    def on_end(self, error: ProviderError | None) -> None:
        self.ends.append(error)
        self.changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.changed.clear()
            await self.changed.wait()


async def ask(outbound: Pool, origin: Origin, request: bytes = REQUEST) -> Connection:
    connection = await outbound.connect(origin)
    connection.send(request)
    return connection


async def call(outbound: Pool, origin: Origin, request: bytes = REQUEST) -> tuple[int, bytes, Connection]:
    """One whole plain call; the connection is released."""
    connection = await ask(outbound, origin, request)
    head = await connection.head(5)
    body = await connection.body(MEGABYTE, 5)
    connection.release()
    return head.status, body, connection


async def start_stream(connection: Connection, idle_timeout_s: float = 5) -> Stream:
    await connection.head(5)
    stream = Stream()
    connection.stream(stream.on_data, stream.on_end, idle_timeout_s)
    return stream


async def failure(awaitable: Awaitable[object]) -> ProviderError:
    with pytest.raises(ProviderError) as caught:
        await awaitable
    return caught.value


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)
