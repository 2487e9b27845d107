"""The wire rules of the listener, each against raw bytes on a real socket."""

from __future__ import annotations

import asyncio
import socket

import msgspec
import pytest

from aigate.worker.exchange import Exchange
from tests.worker.raw_client import Server, serve, until

ECHO = b"POST /v1/echo HTTP/1.1\r\nHost: gate\r\nContent-Length: 5\r\n\r\nhello"


def told(body: bytes) -> dict:
    return msgspec.json.decode(body)


def refused(data: bytes, status: int, **limits: object) -> bytes:
    """The request is refused with `status` in our envelope, and the connection closed. Returns the reply's head."""
    heads = []

    async def scenario(server: Server) -> None:
        client = await server.client()
        got, head, body = await client.ask(data)
        assert got == status, body
        assert told(body)["error"]["status"] == status
        assert b"\r\nx-request-id: req_" in head and b"\r\nconnection: close\r\n" in head and b"\r\ncontent-type: application/json" in head
        assert await client.rest() == b""
        heads.append(head)

    assert serve(scenario, **limits).problems == []
    return heads[0]


def answered(data: bytes, **limits: object) -> dict:
    """What a handler saw of the request; the connection must still be usable afterwards."""
    seen = []

    async def scenario(server: Server) -> None:
        client = await server.client()
        status, head, body = await client.ask(data)
        assert status == 200, body
        seen.append(told(body))
        assert (await client.ask(ECHO))[0] == 200

    serve(scenario, **limits)
    return seen[0]


# --- heads ---


def test_a_request_reaches_its_handler_with_frozen_lower_case_headers():
    seen = answered(b"POST /v1/echo/?a=1&b=%2F HTTP/1.1\r\nHost: gate\r\nX-Two: a\r\nx-two: b \t\r\nContent-Length: 2\r\n\r\nhi")
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/v1/echo", "a=1&b=%2F", "hi")
    assert seen["headers"] == {"host": "gate", "x-two": "a, b", "content-length": "2"}


def test_paths_are_not_percent_decoded_and_lose_one_trailing_slash_only():
    assert answered(b"GET /v1/models/a%2Fb// HTTP/1.1\r\nHost: gate\r\n\r\n")["path"] == "/v1/models/a%2Fb/"


def test_an_absolute_target_gives_its_path_and_its_host():
    seen = answered(b"POST http://real:80/v1/echo?x=1 HTTP/1.1\r\nHost: other\r\nContent-Length: 0\r\n\r\n")
    assert (seen["path"], seen["query"], seen["headers"]["host"]) == ("/v1/echo", "x=1", "real:80")


@pytest.mark.parametrize("lead", [b"\r\n", b"\r\n\r\n\r\n"])
def test_empty_lines_before_a_request_are_skipped(lead):
    assert answered(lead + ECHO)["body"] == "hello"


def test_a_head_cut_anywhere_is_the_same_head():
    async def scenario(server: Server) -> None:
        for cut in range(1, len(ECHO)):
            client = await server.client()
            client.writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await client.send(ECHO[:cut])
            await asyncio.sleep(0)
            status, _, body = await client.ask(ECHO[cut:])
            assert (status, told(body)["body"]) == (200, "hello")
            client.close()

    serve(scenario)


def test_heads_arriving_byte_by_byte_are_read():
    async def scenario(server: Server) -> None:
        client = await server.client()
        seen = len(server.listener._connections)
        for at in range(len(ECHO) - 1):
            await client.send(ECHO[at : at + 1])
        status, _, body = await client.ask(ECHO[-1:])
        assert (status, told(body)["body"], seen) == (200, "hello", 1)

    serve(scenario)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nX: one\r\n two\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nX: one\rtwo\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nX : one\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nX: nul\0\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\n\r\n",
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
        b"POST /v1/\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST gate/v1/echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\nHost: a\n\n",
        b"hello there\r\n\r\n",
    ],
)
def test_malformed_or_ambiguous_heads_are_400(head):
    refused(head, 400)


def test_unknown_methods_codings_and_versions_are_named_as_such():
    refused(b"BREW /v1/echo HTTP/1.1\r\nHost: a\r\n\r\n", 501)
    refused(b"CONNECT gate:443 HTTP/1.1\r\nHost: a\r\n\r\n", 501)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 501)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501)
    refused(b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505)
    refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)
    refused(b"GET /\r\n\r\n", 505)


def test_large_heads_are_431_and_long_targets_414():
    refused(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 128 + b"\r\n", 431)
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (64 << 10) + b"\r\n\r\n", 431)
    refused(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * (70 << 10), 431)  # and without waiting for its end
    refused(b"GET /" + b"y" * (17 << 10) + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414)


def test_128_header_lines_are_allowed():
    many = b"".join(b"X-%d: y\r\n" % number for number in range(127))
    assert len(answered(b"GET / HTTP/1.1\r\nHost: a\r\n" + many + b"\r\n")["headers"]) == 128


def test_a_wrong_method_is_405_and_told_what_is_allowed():
    assert b"\r\nallow: post\r\n" in refused(b"GET /v1/echo HTTP/1.1\r\nHost: a\r\n\r\n", 405)


def test_a_head_request_on_a_routed_path_gets_no_body():
    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"HEAD /v1/echo HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 405 ")
        assert await client.rest() == b""

    serve(scenario)


def test_a_slow_head_is_408_and_an_idle_connection_is_closed_in_silence():
    refused(b"POST /v1/echo HTTP/1.1\r\nHost:", 408, header_timeout_s=0.05)

    async def scenario(server: Server) -> None:
        client = await server.client()
        assert await client.rest() == b""
        client = await server.client()
        assert (await client.ask(ECHO))[0] == 200
        assert await client.rest() == b""

    serve(scenario, keep_alive_s=0.05)


def test_compressed_bodies_are_415_and_other_expectations_417():
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n\r\nx", 415)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nExpect: tea\r\nContent-Length: 1\r\n\r\nx", 417)
    assert answered(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Encoding: identity\r\nContent-Length: 1\r\n\r\nx")["body"] == "x"


def test_foreign_hosts_are_refused_where_names_are_listed():
    names = frozenset({"gate.example"})
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: evil.example\r\nContent-Length: 0\r\n\r\n", 421, allowed_hosts=names)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: 10.0.0.1:80\r\nContent-Length: 0\r\n\r\n", 421, allowed_hosts=names)
    for host in (b"gate.example:8080", b"GATE.example", b"localhost:1", b"127.0.0.2", b"[::1]:80"):
        request = b"POST /v1/echo HTTP/1.1\r\nHost: %b\r\nContent-Length: 0\r\n\r\n" % host
        assert serve_once(request, allowed_hosts=names) == 200


def serve_once(data: bytes, **limits: object) -> int:
    statuses = []

    async def scenario(server: Server) -> None:
        statuses.append((await server.ask(data))[0])

    serve(scenario, **limits)
    return statuses[0]


# --- bodies ---


def test_chunked_bodies_are_joined_and_their_trailers_dropped():
    seen = answered(
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nhel\r\n2;ext=1\r\nlo\r\n0\r\nX-Trailer: evil\r\nHost: evil\r\n\r\n"
    )
    assert seen["body"] == "hello" and seen["headers"] == {"host": "a", "transfer-encoding": "chunked"}


@pytest.mark.parametrize(
    "chunks", [b"zz\r\n", b"3\r\nhello\r\n", b"3\nhel\r\n", b"-3\r\n", b"3\r\nhel\n0\r\n\r\n", b"0\r\nbad trailer\r\n\r\n", b"1" * 2000]
)
def test_malformed_chunks_are_400(chunks):
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 400)
    refused(b"POST /piped HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, 400)


def test_bodies_over_the_cap_are_413_before_they_are_read():
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413, max_body_bytes=100)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n" + b"x" * 101, 413, max_body_bytes=100)
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413, max_body_bytes=100)
    refused(b"POST /piped HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413, max_upload_bytes=100)
    refused(b"POST /piped HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n65\r\n" + b"x" * 101, 413, max_upload_bytes=100)
    assert serve_once(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 100, max_body_bytes=100) == 200


def test_a_client_that_sends_all_before_it_reads_still_gets_its_413():
    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n" + b"x" * 8_000_000)
        client.writer.write_eof()
        assert (await client.reply())[0] == 413

    serve(scenario, max_body_bytes=1000)


def test_slow_bodies_are_408_however_they_drip():
    refused(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx", 408, body_timeout_s=0.05)
    refused(b"POST /piped HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nx", 408, body_timeout_s=0.05)

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        reply = asyncio.ensure_future(client.reply())
        while not reply.done():
            await client.send(b"x")
            await asyncio.wait((reply,), timeout=0.005)
        assert reply.result()[0] == 408

    serve(scenario, body_timeout_s=0.1)


def test_a_body_that_keeps_coming_earns_time_beyond_its_timeout():
    async def scenario(server: Server) -> None:
        client = await server.client()
        loop = asyncio.get_running_loop()
        piece = b"x" * (64 << 10)
        begun = loop.time()
        await client.send(b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (8 * len(piece)))
        await client.send(piece * 7)
        connection = next(iter(server.listener._connections))
        await until(lambda: connection._body_bytes == 7 * len(piece))
        await until(lambda: loop.time() > begun + 0.2)
        assert (await client.ask(piece))[0] == 200

    serve(scenario, body_timeout_s=0.05)


def test_expect_100_continue_is_answered_before_the_body():
    async def scenario(server: Server) -> None:
        client = await server.client()
        head = b"Host: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        assert (await client.ask(b"POST /v1/echo HTTP/1.1\r\n" + head))[0] == 100
        assert told((await client.ask(b"hi"))[2])["body"] == "hi"
        assert (await client.ask(b"POST /piped HTTP/1.1\r\n" + head))[0] == 100
        assert told((await client.ask(b"hi"))[2])["body"] == "hi"
        client.close()
        client = await server.client()
        assert (await client.ask(b"POST /v1/echo HTTP/1.1\r\n" + head.replace(b" 2", b" 200")))[0] == 413

    serve(scenario, max_body_bytes=100)


@pytest.mark.parametrize("protocol", [b"h2c", b"TLS/1.0", b"websocket"])
def test_other_upgrades_are_ignored_and_the_body_read(protocol):
    seen = answered(
        b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: %b\r\n"
        b"HTTP2-Settings: AAEAAEAA\r\nContent-Length: 5\r\n\r\nhello" % protocol
    )
    assert seen["body"] == "hello"


# --- order, keep-alive, versions ---


def test_pipelined_requests_are_answered_in_order_one_at_a_time():
    gates: list[asyncio.Event] = []

    async def slow(exchange: Exchange) -> None:
        gates.append(asyncio.Event())
        await gates[-1].wait()
        exchange.reply(200, (), exchange.body)

    async def scenario(server: Server) -> None:
        client = await server.client()
        request = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n%d"
        await client.send(b"".join([request % number for number in range(5)]))
        for number in range(5):
            await until(lambda expected=number: len(gates) == expected + 1)
            gates[-1].set()
            assert (await client.reply())[2] == b"%d" % number

    serve(scenario, {("POST", "/slow"): slow})


def test_a_long_row_of_requests_sent_ahead_does_not_nest_their_handlers():
    async def at_once(exchange: Exchange) -> None:
        exchange.reply(200, (), exchange.query.encode())

    async def scenario(server: Server) -> None:
        client = await server.client()
        total = 1500
        await client.send(b"".join([b"GET /now?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(total)]))
        for number in range(total):
            assert (await client.reply())[2] == b"%d" % number

    serve(scenario, {("GET", "/now"): at_once})


def test_a_mixed_flood_of_small_requests_stays_in_order():
    async def scenario(server: Server) -> None:
        client = await server.client()
        total = 300
        for number in range(total):
            path = b"/v1/echo" if number % 3 else b"/piped"
            await client.send(b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\n%04d" % (path, number))
        for number in range(total):
            assert told((await client.reply())[2])["body"] == f"{number:04d}"

    serve(scenario)


def test_too_much_sent_ahead_closes_the_connection_after_the_reply():
    gate = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await gate.wait()
        exchange.reply(200, (), b"mine")

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n" + ECHO * 2000)
        connection = next(iter(server.listener._connections))
        await until(lambda: connection._closes)
        gate.set()
        status, head, body = await client.reply()
        assert (status, body) == (200, b"mine") and b"connection: close" in head
        assert await client.rest() == b""

    serve(scenario, {("POST", "/slow"): slow})


def test_connection_close_and_http_1_0_end_the_connection_unless_asked_to_keep_it():
    async def scenario(server: Server) -> None:
        for head in (b"POST /v1/echo HTTP/1.1\r\nHost: a\r\nConnection: Close\r\n", b"POST /v1/echo HTTP/1.0\r\n"):
            client = await server.client()
            status, head, _ = await client.ask(head + b"Content-Length: 0\r\n\r\n")
            assert status == 200 and b"\r\nconnection: close\r\n" in head
            assert await client.rest() == b""
        client = await server.client()
        for _ in range(2):
            status, head, _ = await client.ask(b"POST /v1/echo HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 0\r\n\r\n")
            assert status == 200 and b"\r\nconnection: keep-alive\r\n" in head

    serve(scenario)


def test_head_replies_say_the_length_and_have_no_body():
    async def answer(exchange: Exchange) -> None:
        exchange.reply(200, (), b"twelve bytes")

    async def stream(exchange: Exchange) -> None:
        exchange.start(200, ())
        exchange.send(b"never seen")
        exchange.end()

    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.send(b"HEAD /plain HTTP/1.1\r\nHost: a\r\n\r\nHEAD /stream HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert b"\r\ncontent-length: 12\r\n" in await client.head()
        assert b"\r\ntransfer-encoding: chunked\r\n" in await client.head()
        assert await client.rest() == b""

    serve(scenario, {("HEAD", "/plain"): answer, ("HEAD", "/stream"): stream})


def test_replies_carry_a_date_and_204_no_length():
    async def nothing(exchange: Exchange) -> None:
        exchange.reply(204, (), b"")

    async def scenario(server: Server) -> None:
        client = await server.client()
        for _ in range(2):
            status, head, _ = await client.ask(b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
            assert status == 204 and b"\r\ndate: " in head and b"content-length" not in head

    serve(scenario, {("POST", "/nothing"): nothing})


def test_request_ids_are_ours_and_never_repeat():
    async def scenario(server: Server) -> None:
        ids = set()
        for _ in range(20):
            head = (await server.ask(ECHO.replace(b"Host: gate", b"Host: gate\r\nX-Request-Id: mine")))[1]
            ids.add(head.split(b"x-request-id: ")[1].split(b"\r\n")[0])
        assert len(ids) == 20 and all(one.startswith(b"req_") and len(one) == 28 for one in ids)

    serve(scenario)


def test_small_packets_are_not_delayed():
    async def scenario(server: Server) -> None:
        client = await server.client()
        await client.ask(ECHO)
        sock = next(iter(server.listener._connections))._transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    serve(scenario)
