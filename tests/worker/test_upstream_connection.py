"""The wire rules of a connection to a provider, against real sockets: heads, losses, deadlines, bodies, streams."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.worker.upstream_connection import MAX_HEAD_BYTES
from tests.worker.raw_provider import (
    CHUNKED,
    OK,
    REQUEST,
    UNTIL_CLOSE,
    ClockedLoop,
    Peer,
    Stream,
    answers,
    ask,
    call,
    failure,
    pool,
    provider,
    run,
    start_stream,
)  # fmt: skip

# --- heads ---


def test_a_head_has_lower_case_names_and_joined_fields() -> None:
    async def main() -> None:
        hint = b"HTTP/1.1 103 Hint\r\nlink: x\r\n\r\n"
        reply = hint + b"HTTP/1.1 429 Slow\r\nRetry-After: 3\r\nX-A: 1\r\nx-a: 2\r\nX-a: 3\r\ncontent-length: 0\r\n\r\n"
        async with provider(answers(reply)) as origin, pool() as outbound:
            connection = await ask(outbound, origin)
            head = await connection.head(5)
            assert head.status == 429 and connection.is_complete
            assert head.headers == {b"retry-after": b"3", b"x-a": b"1, 2, 3", b"content-length": b"0"}

    run(main)


def test_empty_lines_before_a_head_are_none_of_it() -> None:
    async def main() -> None:
        reply = b"\r\nHTTP/1.1 103 Hint\r\nlink: x\r\n\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\nx-a:  b \r\n\r\n"
        async with provider(answers(reply)) as origin, pool() as outbound:
            head = await (await ask(outbound, origin)).head(5)
            assert head.headers == {b"content-length": b"0", b"x-a": b"b"}
            assert head.may_have(b"x-a") and not head.may_have(b"link")

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
        b"HTTP/1.1 103 Hint\r\ncontent-length: 3\r\n\r\nabc" + OK,
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
        reply = b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + body
        async with provider(answers(reply)) as origin, pool() as outbound:
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
    "reply",
    [b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nok", CHUNKED + b"2\r\nok\r\n", CHUNKED + b"2\r\nok\r\n0\r\n"],
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
            await connection.head(5)
            stream = Stream()

            def on_data(data: bytes) -> None:
                stream.on_data(data)
                connection.pause()

            connection.stream(on_data, stream.on_end, 30)
            await stream.until(lambda: stream.pieces != [])
            loop.shift_s += 60
            outbound.sweep()
            assert stream.ends == [] and not connection.is_closed
            connection.resume()
            loop.shift_s += 60
            await stream.until(lambda: stream.ends != [])
            assert [end and end.kind for end in stream.ends] == ["timeout"]

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


REPLIES = [
    (OK, 200, b"ok"),
    (CHUNKED + b"3\r\nabc\r\na;x=y\r\n0123456789\r\n0\r\nt: 1\r\n\r\n", 200, b"abc0123456789"),
    (b"HTTP/1.1 103 Early\r\nlink: <x>\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 4\r\n\r\n\r\n\r\n", 404, b"\r\n\r\n"),
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
            outbound.turn.flush()
            for piece in slices:
                connection.data_received(piece)
            assert (await connection.head(5)).status == status
            assert connection.is_complete and await connection.body(100, 5) == body
            connection.release()
            assert connection.is_idle

    run(main)
