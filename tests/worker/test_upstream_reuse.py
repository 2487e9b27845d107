"""When a connection to a provider may be used again: only where nothing speaks against it. Against real sockets."""

from __future__ import annotations

import asyncio

import pytest

from tests.worker.raw_provider import (
    CHUNKED,
    OK,
    REQUEST,
    ClockedLoop,
    Peer,
    answers,
    ask,
    call,
    failure,
    pool,
    provider,
    run,
    start_stream,
    until,
)  # fmt: skip


@pytest.mark.parametrize(
    "reply, body",
    [
        (OK, b"ok"),
        (CHUNKED + b"1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: 1\r\nx-other: 2\r\n\r\n", b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked \r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_a_framed_and_whole_reply_leaves_a_connection_to_use_again(reply: bytes, body: bytes) -> None:
    async def main() -> None:
        async with provider(answers(reply, OK)) as origin, pool() as outbound:
            _, first, used = await call(outbound, origin)
            assert not used.is_close_delimited
            status, second, again = await call(outbound, origin)
            assert (first, status, second) == (body, 200, b"ok")
            assert again is used and again.is_reused and outbound.stats() == (1, 1, 1)

    run(main)


@pytest.mark.parametrize(
    "reply, request_, body",
    [
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", REQUEST, b"ok"),
        (b"HTTP/1.1 200 OK\r\nconnection: Keep-Alive, Close\r\ncontent-length: 2\r\n\r\nok", REQUEST, b"ok"),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", REQUEST, b"ok"),
        (OK + b"!", REQUEST, b"ok"),
        (OK + b"H", REQUEST, b"ok"),
        (OK + OK, REQUEST, b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n" + OK, REQUEST, b"ok"),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n", b"HEAD / HTTP/1.1\r\nhost: p\r\n\r\n", b""),
    ],
)
def test_after_a_reply_that_leaves_doubt_the_connection_is_closed(reply: bytes, request_: bytes, body: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)
        assert await peer.closed()

    async def main() -> None:
        async with provider(script, answers(OK)) as origin, pool() as outbound:
            status, received, connection = await call(outbound, origin, request_)
            assert (status, received) == (200, body)
            assert connection.is_closed and outbound.stats() == (0, 0, 1)
            assert not (await call(outbound, origin))[2].is_reused

    run(main)


def test_bytes_or_eof_on_an_idle_connection_close_it() -> None:
    async def talks(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await told.wait()
        await peer.send(OK)  # an answer to nothing
        await peer.closed()

    async def leaves(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await told.wait()

    async def main() -> None:
        nonlocal told
        for script in (talks, leaves):
            told = asyncio.Event()
            async with provider(script) as origin, pool() as outbound:
                _, _, connection = await call(outbound, origin)
                assert outbound.stats() == (1, 1, 1)
                told.set()
                await until(lambda: connection.is_closed)
                assert outbound.stats() == (0, 0, 1) and outbound.take(origin) is None

    told = asyncio.Event()
    run(main)


def test_bytes_before_the_request_are_no_answer_to_it() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(OK)
        await peer.closed()

    async def main() -> None:
        async with provider(script) as origin, pool() as outbound:
            connection = await outbound.connect(origin)
            await until(lambda: connection.is_closed)
            connection.send(REQUEST)
            assert (await failure(connection.head(5))).kind == "reset"

    run(main)


def test_a_reply_ahead_of_the_request_is_taken_and_the_connection_closed() -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)  # no more than `limit` of the rest is ever read
        await peer.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await done.wait()

    async def main() -> None:
        nonlocal done
        done = asyncio.Event()
        async with provider(script, limit=1024) as origin, pool() as outbound:
            status, body, connection = await call(outbound, origin, REQUEST + bytes(32 << 20))
            assert (status, body) == (413, b"no") and connection.is_closed
            done.set()

    done = asyncio.Event()
    run(main)


def test_an_aborted_connection_is_closed_and_wakes_who_waits() -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        assert await peer.closed()

    async def main() -> None:
        async with provider(silent) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            waiting = asyncio.ensure_future(connection.head(5))
            await asyncio.sleep(0)
            connection.abort()
            connection.release()  # too late, and harmless
            assert (await failure(waiting)).kind == "cut" and outbound.stats() == (0, 0, 1)

    run(main)


def test_a_call_cancelled_before_the_reply_leaves_nothing_to_use_again() -> None:
    async def main() -> None:
        async with provider(answers(OK)) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            waiting = asyncio.ensure_future(connection.head(5))
            await asyncio.sleep(0)
            waiting.cancel()
            connection.release()
            assert connection.is_closed and outbound.stats() == (0, 0, 1)

    run(main)


def test_releasing_twice_does_not_lend_a_connection_twice() -> None:
    async def main() -> None:
        async with provider(answers(OK, OK)) as origin, pool() as outbound:
            _, _, connection = await call(outbound, origin)
            connection.release()
            assert outbound.take(origin) is connection and outbound.take(origin) is None

    run(main)


def test_an_idle_connection_is_closed_when_its_time_is_over() -> None:
    async def main() -> None:
        loop = ClockedLoop()
        async with provider(answers(OK)) as origin, pool(loop=loop, idle_s=30) as outbound:
            _, _, connection = await call(outbound, origin)
            loop.shift_s += 29
            outbound.sweep()
            assert outbound.stats().idle == 1
            loop.shift_s += 2
            await until(lambda: connection.is_closed)
            assert outbound.stats() == (0, 0, 1)

    run(main)


def test_a_reply_that_came_whole_has_no_deadline_left() -> None:
    async def main() -> None:
        loop = ClockedLoop()
        async with provider(answers(OK)) as origin, pool(loop=loop) as outbound:
            connection = await ask(outbound, origin)
            await connection.head(5)
            loop.shift_s += 60
            outbound.sweep()
            assert await connection.body(100, 5) == b"ok"
            connection.release()
            assert connection.is_idle

    run(main)


def test_a_busy_connection_outlives_the_idle_time() -> None:
    async def main() -> None:
        loop = ClockedLoop()
        async with provider(answers(OK)) as origin, pool(loop=loop, idle_s=30) as outbound:
            await call(outbound, origin)
            connection = outbound.take(origin)
            loop.shift_s += 31
            outbound.sweep()
            assert connection is not None and not connection.is_closed

    run(main)


def test_a_stream_released_before_the_end_of_its_framing_is_kept_when_only_that_follows() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"6\r\n[DONE]\r\n")
        await released.wait()
        await peer.send(b"0\r\n\r\n")
        assert await peer.request() == REQUEST
        await peer.send(CHUNKED + b"6\r\n[DONE]\r\n")
        await released.wait()
        await peer.send(b"4\r\nmore\r\n0\r\n\r\n")
        assert await peer.closed()

    async def main() -> None:
        nonlocal released
        async with provider(script) as origin, pool() as outbound:
            for kept in (1, 0):
                released = asyncio.Event()
                connection = await ask(outbound, origin)
                stream = await start_stream(connection)
                await stream.until(lambda: stream.pieces != [])
                connection.release()
                released.set()
                await until(lambda: connection.is_idle or connection.is_closed)
                assert outbound.stats() == (kept, kept, 1) and stream.ends == []

    released = asyncio.Event()
    run(main)
