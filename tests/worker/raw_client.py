"""A client that speaks raw bytes to a real listener on loopback, for the tests of the listener and the pipe."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import msgspec
import uvloop

from aigate.errors import GateError
from aigate.worker.exchange import BodyStream, Exchange
from aigate.worker.listener import Handler, Limits, Listener

GIVE_UP_S = 10.0


def write_error(error: GateError, request_id: str, path: str) -> bytes:
    return msgspec.json.encode({"error": {"message": error.message, "code": error.code, "status": error.status, "path": path}})


class RawClient:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter):
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> bytes:
        return await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), GIVE_UP_S)

    async def reply(self) -> tuple[int, bytes, bytes]:
        """(status, head in lower case, body)"""
        head = (await self.head()).lower()
        status = int(head[9:12])
        if b"\r\ncontent-length: " in head:
            length = int(head.split(b"\r\ncontent-length: ")[1].split(b"\r\n")[0])
            return status, head, await asyncio.wait_for(self.reader.readexactly(length), GIVE_UP_S)
        if b"\r\ntransfer-encoding: chunked" in head:
            return status, head, await self.chunks()
        return status, head, b"" if status in (100, 101, 204, 304) else await self.rest()

    async def chunk(self) -> bytes:
        size = int(await asyncio.wait_for(self.reader.readuntil(b"\r\n"), GIVE_UP_S), 16)
        return (await asyncio.wait_for(self.reader.readexactly(size + 2), GIVE_UP_S))[:-2]

    async def chunks(self) -> bytes:
        pieces = []
        while piece := await self.chunk():
            pieces.append(piece)
        return b"".join(pieces)

    async def rest(self) -> bytes:
        """Until the server closes."""
        return await asyncio.wait_for(self.reader.read(), GIVE_UP_S)

    async def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        await self.send(data)
        return await self.reply()

    def close(self) -> None:
        self.writer.close()

    async def closed(self) -> None:
        self.writer.transport.abort()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            pass  # closed is closed


class Server:
    """A listener on a free port; what its handlers could not say is in `problems`."""

    def __init__(self, listener: Listener, port: int):
        self.listener = listener
        self.port = port
        self.problems: list[dict[str, Any]] = []
        self.clients: list[RawClient] = []

    async def client(self) -> RawClient:
        self.clients.append(RawClient(*await asyncio.open_connection("127.0.0.1", self.port)))
        return self.clients[-1]

    async def ask(self, data: bytes) -> tuple[int, bytes, bytes]:
        client = await self.client()
        try:
            return await client.ask(data)
        finally:
            client.close()


async def echo(exchange: Exchange) -> None:
    told = {
        "method": exchange.method,
        "path": exchange.path,
        "query": exchange.query,
        "headers": {name.decode(): value.decode("latin-1") for name, value in exchange.headers.items()},
        "body": exchange.body.decode("latin-1"),
    }
    exchange.reply(200, [(b"x-request-id", exchange.request_id.encode())], msgspec.json.encode(told))


async def echo_stream(exchange: Exchange, body: BodyStream) -> None:
    pieces = []
    while piece := await body.read():
        pieces.append(piece)
    exchange.body = b"".join(pieces)
    await echo(exchange)


def serve(
    scenario: Callable[[Server], Coroutine[Any, Any, None]],
    routes: dict[tuple[str, str], Handler] | None = None,
    fallback: Callable[[Exchange, BodyStream], Coroutine[Any, Any, None]] = echo_stream,
    **limits: Any,
) -> Server:
    """Runs the scenario against a listener; afterwards nothing of the listener may be left running."""

    async def run() -> Server:
        loop = asyncio.get_running_loop()
        listener = Listener(
            {("POST", "/v1/echo"): echo} if routes is None else routes,
            fallback=fallback,
            limits=Limits(**{"sweep_s": 0.02, **limits}),
            write_error=write_error,
        )
        asyncio_server = await loop.create_server(listener.protocol, "127.0.0.1", 0)
        server = Server(listener, asyncio_server.sockets[0].getsockname()[1])
        loop.set_exception_handler(lambda _, context: server.problems.append(context))
        try:
            await asyncio.wait_for(scenario(server), 3 * GIVE_UP_S)
        finally:
            asyncio_server.close()
            for client in server.clients:
                await client.closed()
            await listener.drain(1.0)
        assert not listener._tasks and not listener._drives and not listener._connections
        return server

    return uvloop.run(run())


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(GIVE_UP_S):
        while not condition():
            await asyncio.sleep(0.001)


async def finished(waiting: Awaitable[Any]) -> Any:
    return await asyncio.wait_for(waiting, GIVE_UP_S)
