"""The wire rules of a connection to a provider, each against a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.errors import ProviderError
from aigate.worker.client import Origin, Pool
from aigate.worker.upstream_connection import MAX_HEAD_BYTES, Connection
from tests.worker.raw_provider import REQUEST, ClockedLoop, Peer, answers, pool, provider, run

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
MEGABYTE = 1 << 20


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


# --- reuse ---


@pytest.mark.parametrize(
    "reply, body",
    [
        (OK, b"ok"),
        (CHUNKED + b"1\r\no\r\n1;a=b\r\nk\r\n0\r\n\r\n", b"ok"),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: 1\r\nx-other: 2\r\n\r\n", b"ok"),
        (b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
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
            status, second, again = await call(outbound, origin)
            assert (first, status, second) == (body, 200, b"ok")
            assert again is used and again.is_reused and outbound.stats() == (1, 1, 1)
            assert not again.is_close_delimited

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
def test_a_reply_that_leaves_doubt_is_fine_and_its_connection_closed(reply: bytes, request_: bytes, body: bytes) -> None:
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


# --- heads ---


def test_a_head_has_lower_case_names_and_joined_fields() -> None:
    async def main() -> None:
        reply = b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nX-a: 3\r\ncontent-length: 0\r\n\r\n"
        async with provider(answers(reply)) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            head = await connection.head(5)
            assert head.status == 429 and connection.is_complete
            assert head.headers == {b"retry-after": b"3", b"x-a": b"1, 2, 3", b"content-length": b"0"}

    run(main)


def test_trailers_and_a_second_reply_do_not_touch_the_head() -> None:
    async def main() -> None:
        reply = CHUNKED + b"0\r\nx-late: 1\r\n\r\nHTTP/1.1 500 No\r\nx-later: 1\r\ncontent-length: 0\r\n\r\n"
        async with provider(answers(reply)) as origin, pool() as outbound:
            head = await (await ask(outbound, origin)).head(5)
            assert head.status == 200 and head.headers == {b"transfer-encoding": b"chunked"}

    run(main)


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>502 Bad Gateway</html>",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 What\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nfolded: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nlong: " + b"a" * MAX_HEAD_BYTES + b"\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 103 Hint\r\n\r\n" * 4000 + OK,
    ],
)
def test_what_is_not_a_usable_head_is_a_bad_reply(reply: bytes) -> None:
    async def main() -> None:
        async with provider(answers(reply)) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            error = await failure(connection.head(5))
            assert (error.kind, error.status, error.is_stale) == ("bad_reply", 502, False)
            assert connection.is_closed

    run(main)


def test_a_large_body_beside_a_small_head_is_not_a_large_head() -> None:
    async def main() -> None:
        body = bytes(300_000)
        async with provider(answers(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + body)) as origin, pool() as outbound:
            assert (await call(outbound, origin))[:2] == (200, body)

    run(main)


# --- the provider goes away ---


def test_closing_before_any_byte_is_stale_only_on_a_kept_connection() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()

    async def leaves(peer: Peer) -> None:
        await peer.request()

    async def main() -> None:
        async with provider(script, leaves) as origin, pool() as outbound:
            await call(outbound, origin)
            kept = await failure((await ask(outbound, origin)).head(5))
            fresh = await failure((await ask(outbound, origin)).head(5))
            assert (kept.kind, kept.is_stale, kept.status) == ("reset", True, 502)
            assert (fresh.kind, fresh.is_stale) == ("reset", False)
            assert "127.0.0.1" in kept.message

    run(main)


@pytest.mark.parametrize("first_bytes", [b"H", b"HTTP/1.1 100 Continue\r\n\r\n"])
def test_a_kept_connection_that_sent_a_byte_is_not_stale(first_bytes: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(first_bytes)

    async def main() -> None:
        async with provider(script) as origin, pool() as outbound:
            await call(outbound, origin)
            error = await failure((await ask(outbound, origin)).head(5))
            assert (error.kind, error.is_stale) == ("reset", False)

    run(main)


def test_a_kept_connection_that_closes_late_is_not_stale() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await late.wait()

    async def main() -> None:
        nonlocal late
        late = asyncio.Event()
        loop = ClockedLoop()
        async with provider(script) as origin, pool(loop=loop) as outbound:
            await call(outbound, origin)
            connection = await ask(outbound, origin)
            loop.shift_s += 1.5
            late.set()
            error = await failure(connection.head(50))
            assert (error.kind, error.is_stale) == ("reset", False)

    late = asyncio.Event()
    run(main)


def test_a_connection_lost_between_take_and_send_is_stale() -> None:
    async def main() -> None:
        async with provider(answers(OK)) as origin, pool() as outbound:
            await call(outbound, origin)
            connection = outbound.take(origin)
            assert connection is not None
            connection.eof_received()  # as the loop would say it
            connection.send(REQUEST)
            assert (await failure(connection.head(5))).is_stale

    run(main)


@pytest.mark.parametrize("is_reset", [False, True])
@pytest.mark.parametrize(
    "reply", [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nok\r\n0\r\n"]
)
def test_a_framed_body_that_breaks_off_is_cut(reply: bytes, is_reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(reply)
        await delivered.wait()
        if is_reset:
            peer.reset()

    async def main() -> None:
        nonlocal delivered
        async with provider(script) as origin, pool() as outbound:
            delivered = asyncio.Event()
            stream = await start_stream(await ask(outbound, origin))
            await stream.until(lambda: stream.pieces != [])
            delivered.set()
            await stream.until(lambda: stream.ends != [])
            assert stream.pieces == [b"ok"] and [end and end.kind for end in stream.ends] == ["cut"]

            connection = await ask(outbound, origin)
            await connection.head(5)
            assert (await failure(connection.body(100, 5))).kind == "cut" and not connection.is_complete

    delivered = asyncio.Event()
    run(main)


@pytest.mark.parametrize("is_reset", [False, True])
def test_a_close_delimited_body_ends_well_by_eof_and_badly_by_reset(is_reset: bool) -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(UNTIL_CLOSE + b"data: 1\n\n")
        await delivered.wait()
        if is_reset:
            peer.reset()

    async def main() -> None:
        nonlocal delivered
        delivered = asyncio.Event()
        async with provider(script) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            stream = await start_stream(connection)
            assert connection.is_close_delimited and not connection.is_complete
            await stream.until(lambda: stream.pieces != [])
            delivered.set()
            await stream.until(lambda: stream.ends != [])
            assert [end and end.kind for end in stream.ends] == (["cut"] if is_reset else [None])
            assert connection.is_closed and stream.pieces == [b"data: 1\n\n"]

    delivered = asyncio.Event()
    run(main)


# --- deadlines ---


@pytest.mark.parametrize("reply", [b"", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: "])
def test_no_head_in_time_is_a_timeout(reply: bytes) -> None:
    async def main() -> None:
        async with provider(answers(reply)) as origin, pool() as outbound:
            error = await failure((await ask(outbound, origin)).head(0.02))
            assert (error.kind, error.status, error.code) == ("timeout", 504, "provider_timeout")
            assert "0.02 s" in error.message and outbound.stats().open == 0

    run(main)


def test_a_body_that_stalls_is_a_timeout_and_keeps_what_came() -> None:
    async def main() -> None:
        async with provider(answers(CHUNKED + b"2\r\nok\r\n")) as origin, pool() as outbound:
            stream = await start_stream(await ask(outbound, origin), idle_timeout_s=0.02)
            await stream.until(lambda: stream.ends != [])
            assert stream.pieces == [b"ok"] and [end and end.kind for end in stream.ends] == ["timeout"]

            connection = await ask(outbound, origin)
            await connection.head(5)
            assert (await failure(connection.body(100, 0.02))).kind == "timeout"

    run(main)


def test_the_idle_deadline_stands_still_while_paused() -> None:
    async def main() -> None:
        loop = ClockedLoop()
        async with provider(answers(CHUNKED + b"2\r\nok\r\n")) as origin, pool(loop=loop) as outbound:
            connection = await ask(outbound, origin)
            stream = await start_stream(connection, idle_timeout_s=30)
            await stream.until(lambda: stream.pieces != [])
            connection.pause()
            loop.shift_s += 60
            outbound.sweep()
            assert stream.ends == [] and not connection.is_closed
            connection.resume()
            loop.shift_s += 60
            await stream.until(lambda: stream.ends != [])
            assert [end and end.kind for end in stream.ends] == ["timeout"]

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


# --- bodies and streams ---


def test_a_body_over_the_cap_is_a_bad_reply_and_closes() -> None:
    async def later(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n")
        await head_read.wait()
        await peer.send(bytes(2000))
        assert await peer.closed()

    async def main() -> None:
        nonlocal head_read
        head_read = asyncio.Event()
        async with provider(answers(OK), later) as origin, pool() as outbound:
            whole = await ask(outbound, origin)
            await whole.head(5)
            slow = await ask(outbound, origin)
            await slow.head(5)
            reading = asyncio.ensure_future(slow.body(1000, 5))
            head_read.set()
            for error in (await failure(whole.body(1, 5)), await failure(reading)):
                assert error.kind == "bad_reply" and "longer than" in error.message
            assert whole.is_closed and slow.is_closed

    head_read = asyncio.Event()
    run(main)


def test_what_arrives_in_one_read_is_one_delivery() -> None:
    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"1\r\na\r\n1\r\nb\r\n")
        await first.wait()
        await peer.send(b"1\r\nc\r\n1\r\nd\r\n0\r\n\r\n")
        await peer.closed()

    async def main() -> None:
        nonlocal first
        first = asyncio.Event()
        async with provider(script) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            stream = await start_stream(connection)
            assert stream.pieces == [b"ab"]  # what came with the head is delivered at once
            first.set()
            await stream.until(lambda: stream.ends != [])
            assert stream.pieces == [b"ab", b"cd"] and stream.ends == [None] and connection.is_complete
            connection.release()
            assert outbound.stats().idle == 1

    first = asyncio.Event()
    run(main)


def test_garbage_in_the_framing_ends_a_stream_after_what_was_good() -> None:
    async def main() -> None:
        async with provider(answers(CHUNKED + b"2\r\nok\r\nzz\r\n")) as origin, pool() as outbound:
            stream = await start_stream(await ask(outbound, origin))
            await stream.until(lambda: stream.ends != [])
            assert stream.pieces == [b"ok"] and [end and end.kind for end in stream.ends] == ["bad_reply"]

    run(main)


def test_a_stream_aborted_from_within_ends_once() -> None:
    async def main() -> None:
        async with provider(answers(CHUNKED + b"2\r\nok\r\n")) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            await connection.head(5)
            stream = Stream()

            def on_data(data: bytes) -> None:
                stream.on_data(data)
                connection.abort()

            connection.stream(on_data, stream.on_end, 5)
            await stream.until(lambda: stream.ends != [])
            connection.abort()
            assert stream.pieces == [b"ok"] and [end and end.kind for end in stream.ends] == ["cut"]

    run(main)


def test_a_paused_stream_is_not_read_and_holds_the_provider_back() -> None:
    size = 64 << 20

    async def script(peer: Peer) -> None:
        await peer.request()
        peer.writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size))
        await asyncio.sleep(0)
        queued.append(peer)
        await peer.closed()

    async def main() -> None:
        async with provider(script) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            stream = await start_stream(connection)
            connection.pause()
            before = len(stream.pieces)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(stream.pieces) == before
            assert queued[0].writer.transport.get_write_buffer_size() > size // 2
            connection.resume()
            await stream.until(lambda: stream.ends != [])
            assert sum(map(len, stream.pieces)) == size and stream.ends == [None]

    queued: list[Peer] = []
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
        await peer.send(b"4\r\nmore\r\n")
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


REPLIES = [
    (OK, 200, b"ok"),
    (CHUNKED + b"3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\nt: 1\r\n\r\n", 200, b"abc0123456789"),
    (b"HTTP/1.1 103 Early\r\nlink: <x>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nX-A: b\r\n\r\n\r\n\r\n", 404, b"\r\n\r\n"),
]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(REPLIES), st.data())
def test_a_reply_means_the_same_however_it_is_sliced(reply: tuple[bytes, int, bytes], data: st.DataObject) -> None:
    raw, status, body = reply
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1))))
    slices = [raw[start:end] for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True)]

    async def main() -> None:
        async with provider(answers()) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            for piece in slices:
                connection.data_received(piece)
            assert (await connection.head(5)).status == status
            assert connection.is_complete and await connection.body(100, 5) == body
            connection.release()
            assert connection.is_idle

    run(main)
