"""The pipe against a real server on a Unix socket: what it re-writes, how it streams, how it fails."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import msgspec

from aigate.worker.pipe import Pipe
from tests.worker.raw_client import RawClient, Server, finished, serve, until

GET = b"GET /v1/models?x=1 HTTP/1.1\r\nHost: gate\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Keeper = Callable[[RawClient], Coroutine[Any, Any, None]]


def piped(keeper: Keeper, scenario: Callable[[Server], Coroutine[Any, Any, None]], *, patience_s: float = 60.0, **limits: Any) -> Server:
    """Runs the scenario against a listener whose pipe leads to `keeper`, called once per connection."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/control.sock"

        async def run(server: Server) -> None:
            calls: list[asyncio.Task[None]] = []

            async def on_connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                calls.append(asyncio.current_task())
                try:
                    await keeper(RawClient(reader, writer))
                finally:
                    writer.close()

            unix_server = await asyncio.start_unix_server(on_connection, path)
            try:
                await scenario(server)
            finally:
                unix_server.close()
                for call in calls:
                    call.cancel()
                await asyncio.gather(*calls, return_exceptions=True)

        return serve(run, fallback=Pipe(path, patience_s=patience_s), **limits)


def answering(reply: bytes, heads: list[bytes] | None = None) -> Keeper:
    async def keeper(connection: RawClient) -> None:
        head = await connection.head()
        if heads is not None:
            heads.append(head)
        await connection.send(reply)

    return keeper


def test_a_request_is_re_written_for_its_hop_and_our_request_id_put_in():
    heads: list[bytes] = []

    async def scenario(server: Server) -> None:
        status, head, body = await server.ask(
            b"GET /v1/models/?x=1 HTTP/1.1\r\nHost: gate\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n"
            b"X-AIG-Request-Id: forged\r\nX-Request-Id: mine\r\nProxy-Authorization: p\r\nAccept: */*\r\n\r\n"
        )
        request_id = head.split(b"x-request-id: ")[1].split(b"\r\n")[0]
        assert (status, body) == (200, b"ok")
        assert heads[0].split(b"\r\n")[:-2] == [
            b"GET /v1/models?x=1 HTTP/1.1",
            b"host: gate",
            b"accept: */*",
            b"x-aig-request-id: " + request_id,
            b"connection: close",
        ]

    piped(answering(OK, heads), scenario)


def test_a_reply_loses_its_hop_fields_and_carries_our_request_id():
    reply = (
        b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nDate: then\r\n"
        b"X-Request-Id: theirs\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\nok"
    )

    async def scenario(server: Server) -> None:
        status, head, body = await server.ask(GET)
        assert (status, body) == (201, b"ok")
        assert head.count(b"x-request-id: req_") == head.count(b"x-request-id") == head.count(b"\r\ndate: ") == 1
        assert b"x-hop" not in head and b"keep-alive" not in head and b"connection" not in head
        assert head.count(b"set-cookie: ") == 2

    piped(answering(reply), scenario)


def test_every_framing_of_a_reply_arrives_whole_and_the_connection_goes_on():
    replies = [
        (OK, b"ok"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", b"abc"),
        (b"HTTP/1.1 200 OK\r\n\r\nuntil the end", b"until the end"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n", b""),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b""),
    ]

    async def scenario(server: Server) -> None:
        client = await server.client()
        for _, expected in replies:
            assert (await client.ask(GET))[2] == expected

    remaining = [reply for reply, _ in replies]

    async def keeper(connection: RawClient) -> None:
        await answering(remaining.pop(0))(connection)

    piped(keeper, scenario)


def test_head_replies_have_no_body_and_the_connection_goes_on():
    async def scenario(server: Server) -> None:
        client = await server.client()
        for _ in range(2):
            await client.send(GET.replace(b"GET", b"HEAD"))
            assert b"content-length: 99" in await client.head()

    piped(answering(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"), scenario)


async def _read_all(connection: RawClient) -> bytes:
    head = (await connection.head()).lower()
    if b"transfer-encoding: chunked" in head:
        return await connection.chunks()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0]) if b"content-length" in head else 0
    return await connection.reader.readexactly(length)


async def _say_size(connection: RawClient) -> None:
    body = await _read_all(connection)
    await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n%08d" % len(body))


def test_bodies_are_piped_in_both_framings():
    async def scenario(server: Server) -> None:
        client = await server.client()
        head = b"POST /v1/files HTTP/1.1\r\nHost: gate\r\n"
        assert (await client.ask(head + b"Content-Length: 5\r\n\r\nhello"))[2] == b"00000005"
        assert (await client.ask(head + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3\r\n!!!\r\n0\r\n\r\n"))[2] == b"00000008"
        assert (await client.ask(head + b"Content-Length: 0\r\n\r\n"))[2] == b"00000000"
        assert (await client.ask(head + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"))[0] == 100
        assert (await client.ask(b"hi"))[2] == b"00000002"
        big = b"x" * 20_000_000
        assert (await client.ask(head + b"Content-Length: %d\r\n\r\n" % len(big) + big))[2] == b"20000000"

    piped(_say_size, scenario)


def test_a_keeper_that_reads_slowly_holds_the_client_back():
    go = asyncio.Event()

    async def keeper(connection: RawClient) -> None:
        await connection.head()
        connection.reader._transport.pause_reading()
        await go.wait()
        connection.reader._transport.resume_reading()
        await connection.reader.readexactly(30_000_000)
        await connection.send(OK)

    async def scenario(server: Server) -> None:
        client = await server.client()
        client.writer.write(b"POST /v1/files HTTP/1.1\r\nHost: gate\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        connection_set = server.listener._connections
        await until(lambda: any(connection._is_reading_paused for connection in connection_set))
        assert next(iter(connection_set))._body_bytes < 3_000_000
        go.set()
        assert (await client.reply())[2] == b"ok"

    piped(keeper, scenario)


def test_a_client_that_reads_slowly_holds_the_keeper_back():
    sent = 0
    total = 40_000_000

    async def keeper(connection: RawClient) -> None:
        nonlocal sent
        await connection.head()
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await connection.send(b"x" * 100_000)
            sent += 100_000

    async def scenario(server: Server) -> None:
        client = await server.client()
        client.writer.transport.pause_reading()
        await client.send(GET)
        await until(lambda: any(connection.is_full for connection in server.listener._connections))
        assert sent < total
        client.writer.transport.resume_reading()
        assert len((await client.reply())[2]) == total

    piped(keeper, scenario)


def test_streamed_replies_are_not_held_up():
    next_piece = asyncio.Event()

    async def keeper(connection: RawClient) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
        await next_piece.wait()
        await connection.send(b"3\r\ntwo\r\n0\r\n\r\n")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(GET)
        await client.head()
        assert await client.chunk() == b"one"
        next_piece.set()
        assert [await client.chunk(), await client.chunk()] == [b"two", b""]

    piped(keeper, scenario)


def test_an_early_reply_ends_an_upload():
    async def keeper(connection: RawClient) -> None:
        await connection.head()
        await connection.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno")

    async def scenario(server: Server) -> None:
        client = await server.client()
        status, head, body = await client.ask(b"POST /v1/files HTTP/1.1\r\nHost: gate\r\nContent-Length: 1000000\r\n\r\nsome")
        assert (status, body) == (401, b"no") and b"connection: close" in head

    piped(keeper, scenario)


HASTY = """
import socket, sys
listening = socket.socket(fileno=int(sys.argv[1]))
while True:
    connection, _ = listening.accept()
    connection.recv(4096)
    connection.sendall(b"HTTP/1.1 404 Not Found\\r\\nContent-Length: 2\\r\\n\\r\\nno")
    connection.close()
"""


def test_an_answer_that_is_quicker_than_the_body_is_not_lost_to_the_broken_upload():
    """A server of its own process that answers from the head alone, and closes, is often done between our two writes."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(f"{folder}/control.sock")
        listening.listen()
        hasty = subprocess.Popen([sys.executable, "-c", HASTY, str(listening.fileno())], pass_fds=[listening.fileno()])

        async def scenario(server: Server) -> None:
            client = await server.client()
            for _ in range(500):
                status, _, body = await client.ask(b"POST /nothing HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\n{}")
                assert (status, body) == (404, b"no")

        try:
            assert serve(scenario, fallback=Pipe(f"{folder}/control.sock")).problems == []
        finally:
            hasty.kill()
            hasty.wait()


# --- failures ---


def test_no_keeper_is_a_503_that_may_be_retried():
    async def scenario(server: Server) -> None:
        client = await server.client()
        for _ in range(2):
            status, head, body = await client.ask(GET)
            assert status == 503 and msgspec.json.decode(body)["error"]["code"] == "capacity_exceeded"
            assert b"\r\nretry-after: 1\r\n" in head and b"\r\nx-should-retry: true\r\n" in head

    assert serve(scenario, fallback=Pipe("/nonexistent/control.sock")).problems == []


def test_a_keeper_that_dies_is_a_503_before_the_reply_and_a_cut_stream_after():
    replies = [b"", b"HTTP/1.1 200", b"no http at all\r\n\r\n"]
    cut = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\none"]
    remaining = [*replies, *cut]

    async def keeper(connection: RawClient) -> None:
        await answering(remaining.pop(0))(connection)

    async def scenario(server: Server) -> None:
        for _ in replies:
            assert (await server.ask(GET))[0] == 503
        client = await server.client()
        await client.send(GET)
        await client.head()
        assert await client.rest() == b"3\r\none\r\n"
        client = await server.client()
        await client.send(GET)
        await client.head()
        assert await client.rest() == b"one"

    assert piped(keeper, scenario).problems == []


def test_what_a_keeper_may_have_done_before_it_died_is_not_to_be_sent_again():
    async def scenario(server: Server) -> None:
        client = await server.client()
        post = b"POST /v1/keys HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\n{}"
        for request, expected in ((GET, b"true"), (post, b"false"), (post.replace(b"POST", b"PATCH"), b"false"), (post.replace(b"POST", b"DELETE"), b"true")):
            status, head, _ = await client.ask(request)
            assert status == 503 and b"\r\nx-should-retry: %b\r\n" % expected in head
            assert (b"\r\nretry-after: " in head) == (expected == b"true")

    assert piped(answering(b""), scenario).problems == []


def test_a_frozen_keeper_is_a_503_once_it_has_the_request_or_takes_no_more_of_it():
    async def keeper(connection: RawClient) -> None:
        connection.reader._transport.pause_reading()
        with suppress(asyncio.CancelledError):  # the end of the test
            await asyncio.Event().wait()

    async def scenario(server: Server) -> None:
        client = await server.client()
        assert (await client.ask(GET))[0] == 503
        head = b"POST /v1/files HTTP/1.1\r\nHost: gate\r\nContent-Length: 30000000\r\n\r\n"
        client.writer.write(head + b"x" * 30_000_000)
        status, reply, body = await client.reply()
        assert status == 503 and b"\r\nx-should-retry: false\r\n" in reply and b"did not answer in time" in body

    assert piped(keeper, scenario, patience_s=0.1).problems == []


def test_a_client_that_is_slow_to_send_or_a_reply_that_is_slow_to_end_tries_nobodys_patience():
    next_piece = asyncio.Event()

    async def keeper(connection: RawClient) -> None:
        await connection.head()
        await connection.reader.readexactly(2)
        await connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nab")
        await next_piece.wait()
        await connection.send(b"cd")

    async def scenario(server: Server) -> None:
        loop = asyncio.get_running_loop()
        client = await server.client()
        await client.send(b"POST /v1/files HTTP/1.1\r\nHost: gate\r\nContent-Length: 2\r\n\r\na")
        over = loop.time() + 0.15
        await until(lambda: loop.time() > over)
        await client.send(b"b")
        over = loop.time() + 0.15
        await until(lambda: loop.time() > over)
        next_piece.set()
        assert (await client.reply())[::2] == (200, b"abcd")

    assert piped(keeper, scenario, patience_s=0.1).problems == []


def test_a_body_over_the_cap_is_413_and_the_keeper_sees_no_whole_request():
    seen: list[bool] = []

    async def keeper(connection: RawClient) -> None:
        try:
            await _read_all(connection)
        except (asyncio.IncompleteReadError, ConnectionError):
            seen.append(True)

    async def scenario(server: Server) -> None:
        client = await server.client()
        status, _, body = await client.ask(
            b"POST /v1/files HTTP/1.1\r\nHost: gate\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n100\r\n" + b"x" * 256
        )
        assert status == 413, body
        await until(lambda: seen == [True])

    assert piped(keeper, scenario, max_upload_bytes=100).problems == []


def test_a_client_that_leaves_ends_the_keepers_connection():
    asked, ended = asyncio.Event(), asyncio.Event()

    async def keeper(connection: RawClient) -> None:
        await connection.head()
        asked.set()
        await connection.reader.read()
        ended.set()

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(GET)
        await finished(asked.wait())
        client.close()
        await finished(ended.wait())

    assert piped(keeper, scenario).problems == []


# --- order and tunnels ---


def test_hot_and_piped_requests_on_one_connection_keep_their_order_and_bytes():
    async def scenario(server: Server) -> None:
        client = await server.client()
        numbers = range(60)
        for number in numbers:
            path = (b"/v1/echo", b"/v1/files")[number % 2]
            await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (path, number) + b"x" * number)
        for number in numbers:
            status, _, body = await client.reply()
            assert status == 200
            got = int(body) if number % 2 else len(msgspec.json.decode(body)["body"])
            assert got == number

    piped(_say_size, scenario)


UPGRADE = (
    b"GET /v1/realtime?model=m HTTP/1.1\r\nHost: gate\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"
    b"Sec-WebSocket-Key: abc\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: xyz\r\n\r\n"


def test_a_websocket_is_tunnelled_raw_both_ways():
    heads: list[bytes] = []

    async def keeper(connection: RawClient) -> None:
        heads.append((await connection.head()).lower())
        await connection.send(SWITCH + b"\x81first")
        while data := await connection.reader.read(65536):
            await connection.send(data)

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(UPGRADE + b"early")
        head = (await client.head()).lower()
        assert head.startswith(b"http/1.1 101 ") and b"sec-websocket-accept: xyz" in head and b"x-request-id: req_" in head
        assert head.count(b"upgrade: websocket") == head.count(b"connection: upgrade") == 1
        assert await client.reader.readexactly(11) == b"\x81firstearly"
        assert b"upgrade: websocket" in heads[0] and b"connection: upgrade" in heads[0] and b"sec-websocket-key: abc" in heads[0]
        big = bytes(range(256)) * 8000
        client.writer.write(big)
        assert await finished(client.reader.readexactly(len(big))) == big
        client.close()
        await until(lambda: not server.listener._tasks and not server.listener._drives)

    assert piped(keeper, scenario).problems == []


def test_a_tunnel_ends_when_the_keeper_ends_it():
    async def keeper(connection: RawClient) -> None:
        await connection.head()
        await connection.send(SWITCH + b"bye")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(UPGRADE)
        await client.head()
        assert await client.rest() == b"bye"

    assert piped(keeper, scenario).problems == []


def test_a_refused_upgrade_is_an_ordinary_reply():
    async def scenario(server: Server) -> None:
        client = await server.client()
        for _ in range(2):
            assert (await client.ask(UPGRADE))[:3:2] == (426, b"no")

    piped(answering(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno"), scenario)
