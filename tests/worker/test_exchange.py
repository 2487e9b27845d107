"""Replies, streams and the ends of a client connection: slow readers, clients that leave, handlers that fail, the drain."""

from __future__ import annotations

import asyncio

import pytest

from aigate.errors import ClientError
from aigate.worker.exchange import Exchange
from tests.worker.raw_client import Server, echo, finished, serve, until

ECHO = b"POST /v1/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\nhello"

# --- streams ---


def test_streams_are_chunked_for_1_1_and_cut_by_the_close_for_1_0():
    async def stream(exchange: Exchange) -> None:
        exchange.start(200, [(b"content-type", b"text/event-stream")])
        exchange.send(b"one")
        exchange.send(b"")
        exchange.end_with(b"two")

    async def scenario(server: Server) -> None:
        client = await server.client()
        for _ in range(2):
            await client.send(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            await client.head()
            assert [await client.chunk() for _ in range(3)] == [b"one", b"two", b""]
        client = await server.client()
        _, head, body = await client.ask(b"POST /s HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert body == b"onetwo" and b"\r\nconnection: close" in head and b"transfer-encoding" not in head

    serve(scenario, {("POST", "/s"): stream})


def test_a_slow_reader_fills_the_exchange_and_draining_is_told():
    told_at: list[str] = []

    async def stream(exchange: Exchange) -> None:
        drained = asyncio.Event()
        exchange.on_drain = drained.set
        exchange.start(200, ())
        while not exchange.is_full:
            exchange.send(b"x" * 65536)
            await asyncio.sleep(0)
        told_at.append("full")
        await drained.wait()
        assert not exchange.is_full
        exchange.end()

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: told_at == ["full"])
        status, _, body = await client.reply()
        assert status == 200 and len(body) % 65536 == 0

    assert serve(scenario, {("POST", "/s"): stream}).problems == []


def test_a_client_that_takes_nothing_is_aborted():
    gone = asyncio.Event()

    async def stream(exchange: Exchange) -> None:
        exchange.on_gone = gone.set
        exchange.start(200, ())
        while not exchange.is_full:
            exchange.send(b"x" * 65536)
            await asyncio.sleep(0)
        await gone.wait()

    async def scenario(server: Server) -> None:
        client = await server.client()
        client.writer.transport.pause_reading()
        await client.send(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await finished(gone.wait())
        await until(lambda: not server.listener._connections)

    serve(scenario, {("POST", "/s"): stream}, stall_s=0.1)


@pytest.mark.parametrize("version", [b"1.1", b"1.0"])
def test_an_aborted_stream_looks_cut(version):
    async def stream(exchange: Exchange) -> None:
        exchange.start(200, ())
        exchange.send(b"half")
        await asyncio.sleep(0)
        exchange.abort()
        exchange.send(b"nothing more")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /s HTTP/%b\r\nHost: a\r\nContent-Length: 0\r\n\r\n" % version)
        if version == b"1.1":
            assert (await client.rest()).endswith(b"\r\n\r\n4\r\nhalf\r\n")
        else:
            with pytest.raises(ConnectionResetError):
                await client.rest()

    serve(scenario, {("POST", "/s"): stream})


# --- ends ---


@pytest.mark.parametrize("sent", [1, 20, len(ECHO) - 5, len(ECHO) - 1])
def test_a_client_that_leaves_while_sending_leaves_nothing_behind(sent):
    async def scenario(server: Server) -> None:
        for piped in (False, True):
            client = await server.client()
            await client.send((ECHO.replace(b"/v1/echo", b"/v1/pipe") if piped else ECHO)[:sent])
            await until(lambda: len(server.listener._connections) == 1)
            client.close()
            await until(lambda: not server.listener._connections and not server.listener._tasks and not server.listener._drives)

    serve(scenario)


@pytest.mark.parametrize("is_started", [False, True])
def test_a_client_that_leaves_during_a_call_is_told_once_and_writes_are_dropped(is_started):
    exchanges: list[Exchange] = []
    told: list[bool] = []

    async def wait(exchange: Exchange) -> None:
        gone = asyncio.Event()

        def on_gone() -> None:
            told.append(exchange.is_gone)
            gone.set()

        exchange.on_gone = on_gone
        if is_started:
            exchange.start(200, ())
        exchanges.append(exchange)
        await gone.wait()
        if is_started:
            exchange.send(b"to nobody")
            exchange.end()
        else:
            exchange.reply(200, (), b"to nobody")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /w HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: bool(exchanges))
        client.close()
        await until(lambda: not server.listener._tasks and not server.listener._drives and not server.listener._connections)
        assert told == [True]

    assert serve(scenario, {("POST", "/w"): wait}).problems == []


def test_a_handler_that_raises_is_a_500_or_a_cut_stream_and_is_reported():
    async def raise_early(exchange: Exchange) -> None:
        raise RuntimeError("secret detail")

    async def raise_late(exchange: Exchange) -> None:
        exchange.start(200, ())
        raise RuntimeError("secret detail")

    async def forget(exchange: Exchange) -> None:
        pass

    async def refuse(exchange: Exchange) -> None:
        raise ClientError("not so", status=409)

    async def scenario(server: Server) -> None:
        client = await server.client()
        request = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
        for path, expected in ((b"/early", 500), (b"/forget", 500), (b"/refuse", 409)):
            status, head, body = await client.ask(request % path)
            assert status == expected and b"secret" not in body and b"x-request-id: req_" in head
        await client.send(request % b"/late")
        await client.head()
        assert await client.rest() == b""
        assert len(server.problems) == 3

    serve(
        scenario,
        {("POST", "/early"): raise_early, ("POST", "/late"): raise_late, ("POST", "/forget"): forget, ("POST", "/refuse"): refuse},
    )


def test_an_unsafe_reply_field_becomes_a_500_instead_of_a_split_reply():
    async def split(exchange: Exchange) -> None:
        exchange.reply(200, [(b"x-echo", b"a\r\nset-cookie: evil")], b"")

    async def scenario(server: Server) -> None:
        status, head, _ = await server.ask(b"POST /split HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert status == 500 and b"evil" not in head

    serve(scenario, {("POST", "/split"): split})


def test_draining_closes_idle_connections_and_lets_running_calls_end():
    gate = asyncio.Event()
    running: list[Exchange] = []

    async def slow(exchange: Exchange) -> None:
        running.append(exchange)
        await gate.wait()
        await echo(exchange)

    async def scenario(server: Server) -> None:
        idle, busy = await server.client(), await server.client()
        await busy.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: bool(running) and len(server.listener._connections) == 2)
        draining = asyncio.ensure_future(server.listener.drain(5.0))
        assert await idle.rest() == b""
        assert not draining.done()
        gate.set()
        status, head, _ = await busy.reply()
        assert status == 200 and b"connection: close" in head
        await finished(draining)

    serve(scenario, {("POST", "/slow"): slow})


def test_draining_cuts_what_does_not_end_in_time():
    ended: list[str] = []

    async def endless(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("told")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /endless HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        await until(lambda: bool(server.listener._tasks or server.listener._drives))
        await finished(server.listener.drain(0.05))
        assert ended == ["told"] and await client.rest() == b""

    serve(scenario, {("POST", "/endless"): endless})


def test_a_drain_that_begins_in_the_turn_of_a_reply_does_not_eat_it():
    drains: list[asyncio.Future[None]] = []

    async def reply_and_drain(exchange: Exchange) -> None:
        exchange.reply(200, [(b"content-type", b"text/plain")], b"whole")
        drains.append(asyncio.ensure_future(servers[0].listener.drain(5.0)))
        for connection in list(servers[0].listener._connections):  # as the drain does first, before the turn's end
            connection.close_if_idle()

    async def scenario(server: Server) -> None:
        servers.append(server)
        status, _, body = await server.ask(b"POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert (status, body) == (200, b"whole")
        await drains[0]

    servers: list[Server] = []
    assert serve(scenario, {("POST", "/s"): reply_and_drain}).problems == []
