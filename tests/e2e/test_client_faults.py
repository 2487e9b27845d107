"""Bad input and bad clients, through the real gateway: the right words, the right connection state, the right rows, nobody else harmed."""

from __future__ import annotations

import asyncio
import json
import random

import pytest

from aigate.api.boundary import MODEL_CALLS
from tests.e2e.wire import answered, chat, connect, error_of, events_of, get, is_usable, post, request_id, rows, run, said_in, shipped

ALIVE = chat("sim/echo", "still there")


def check_error(status, head, body, *, due, param=None, word=""):
    error = error_of(body)
    assert (status, error["status"]) == (due, due), error
    assert error["origin"] == "gateway" and error["retryable"] is (due in (408, 429, 503))
    assert b"\r\nx-should-retry: " + (b"true" if error["retryable"] else b"false") in head
    assert error["request_id"] == request_id(head)
    assert error["type"] and error["code"]
    if param is not None:
        assert error["param"] == param
    assert word in error["message"], error


def with_fields(**fields):
    return {**chat("sim/echo"), **fields}


# name → (body, status, param, a word of the message)
BAD_BODIES = {
    "empty": (b"", 400, None, "empty"),
    "not JSON": (b"{nope", 400, None, "not JSON"),
    "cut": (b'{"model": "sim/echo", "messages": [{"role": "us', 400, None, "ends early"),
    "a byte order mark": (b"\xef\xbb\xbf{}", 400, None, "byte order mark"),
    "not UTF-8": (b'{"model": "sim/echo", "messages": [{"role": "user", "content": "\xff"}]}', 400, None, "UTF-8"),
    "NaN": (b'{"model": "sim/echo", "messages": [], "temperature": NaN}', 400, None, "NaN"),
    "lone surrogate": (b'{"model": "sim/echo", "messages": [{"role": "user", "content": "\\ud800"}]}', 400, None, "surrogate"),
    "an array": (b"[]", 400, None, "object"),
    "a number": (b"17", 400, None, "object"),
    "null": (b"null", 400, None, "object"),
    "two values": (b"{} {}", 400, None, "not JSON"),
    "deep": (b'{"model": "sim/echo", "messages": ' + b"[" * 5000 + b"]" * 5000 + b"}", 400, None, "levels deep"),
    "very deep": (b"[" * 1_000_000, 400, None, ""),
    "no model": ({"messages": ALIVE["messages"]}, 400, "model", "model"),
    "no messages": ({"model": "sim/echo"}, 400, "messages", "messages"),
    "empty messages": (with_fields(messages=[]), 400, "messages", "at least one"),
    "messages text": (with_fields(messages="Hello"), 400, "messages", "array"),
    "messages null": (with_fields(messages=None), 400, "messages", "array"),
    "model number": (with_fields(model=3), 400, "model", "string"),
    "model empty": (with_fields(model=""), 400, "model", "empty"),
    "model list empty": (with_fields(model=[]), 400, "model", "1 to 16"),
    "model list of numbers": (with_fields(model=[1]), 400, "model", "string"),
    "model list too long": (with_fields(model=["sim/echo"] * 17), 400, "model", "16"),
    "stream text": (with_fields(stream="yes"), 400, "stream", "true or false"),
    "stream options": (with_fields(stream=True, stream_options=[]), 400, "stream_options", "include_usage"),
    "include_usage": (with_fields(stream=True, stream_options={"include_usage": "x"}), 400, "stream_options", "include_usage"),
    "max_tokens text": (with_fields(max_tokens="many"), 400, "max_tokens", "whole number"),
    "max_tokens zero": (with_fields(max_tokens=0), 400, "max_tokens", "from 1"),
    "max_tokens negative": (with_fields(max_tokens=-5), 400, "max_tokens", "from 1"),
    "max_tokens fraction": (with_fields(max_tokens=1.5), 400, "max_tokens", "whole number"),
    "max_tokens huge": (b'{"model": "sim/echo", "messages": [{}], "max_tokens": 1e999}', 400, "max_tokens", "whole"),
    "max_completion_tokens": (with_fields(max_completion_tokens=True), 400, "max_completion_tokens", "whole number"),
    "n": (with_fields(n=0), 400, "n", "from 1"),
    "n large": (with_fields(n=10_000), 400, "n", "128"),
    "reasoning_effort": (with_fields(reasoning_effort=4), 400, "reasoning_effort", "string"),
    "thinking": (with_fields(thinking="on"), 400, "thinking", "object"),
    "thinking budget": (with_fields(thinking={"type": "enabled", "budget_tokens": -1}), 400, "thinking", "budget_tokens"),
    "fallbacks": (with_fields(fallbacks="no"), 400, "fallbacks", "array"),
    "Model": ({"Model": "sim/echo", **ALIVE}, 400, "Model", "case-sensitive"),
    "MESSAGES": ({**ALIVE, "MESSAGES": []}, 400, "MESSAGES", "case-sensitive"),
    "Max_Tokens": (with_fields(Max_Tokens=5), 400, "Max_Tokens", "case-sensitive"),
    "unknown provider": (with_fields(model="nobody/model"), 404, "model", "nobody"),
    "near name": (with_fields(model="opnai/gpt-5"), 404, "model", ""),
    "bare name": (with_fields(model="echo"), 404, "model", "sim/echo"),
    "path in a name": (with_fields(model="sim/../../etc"), 404, "model", "not a model name"),
    "line break in a name": (with_fields(model="sim/echo\r\nx: y"), 404, "model", "not a model name"),
    "long name": (with_fields(model="sim/" + "x" * 100_000), 404, "model", "not a model name"),
    "a provider that is not live": (with_fields(model="openai/gpt-5.4"), 404, "model", "OPENAI_API_KEY"),
    "a fallback unknown": (with_fields(fallbacks=["nobody/x"]), 404, "fallbacks", "nobody"),
    "one of several unknown": (with_fields(model=["sim/echo", "nobody/x"]), 404, "model", "nobody"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_bad_body_is_explained_and_the_connection_goes_on(gateway, name):
    body, due, param, word = BAD_BODIES[name]

    async def exchange():
        client = await connect(gateway)
        status, head, reply = await client.ask(post(gateway, body))
        check_error(status, head, reply, due=due, param=param, word=word)
        assert await is_usable(gateway, client)
        return request_id(head)

    call, attempts = shipped(gateway, run(exchange))
    assert (call["status"], call["attempts"], call["cost_nanousd"], attempts) == (due, 0, 0, [])
    assert call["error_code"]


@pytest.mark.parametrize(
    "body, due, param",
    [
        (b"{", 400, None),
        ({"model": "sim/embed"}, 400, "input"),
        ({"input": "x"}, 400, "model"),
        ({"model": "sim/embed", "input": None}, 400, "input"),
        ({"model": "sim/embed", "input": {}}, 400, "input"),
        ({"model": "sim/embed", "input": []}, 400, "input"),
        ({"model": 7, "input": "x"}, 400, "model"),
        ({"model": "nobody/embed", "input": "x"}, 404, "model"),
        ({"Input": "x", "model": "sim/embed", "input": "x"}, 400, "Input"),
    ],
)
def test_bad_embeddings_requests_are_explained(gateway, body, due, param):
    async def exchange():
        client = await connect(gateway)
        check_error(*await client.ask(post(gateway, body, path="/v1/embeddings")), due=due, param=param)
        assert await is_usable(gateway, client)

    run(exchange)


@pytest.mark.parametrize(
    "field, due, param",
    [
        ("x-aig-tag: " + "t" * 65, 400, "x-aig-tag"),
        ("x-aig-tag: \xff\xfe", 400, "x-aig-tag"),
        ("x-aig-tag: a\tb", 400, "x-aig-tag"),
        ("x-aig-strict: maybe", 400, "x-aig-strict"),
        ("x-aig-archive: false", 400, "x-aig-archive"),
        ("content-encoding: gzip", 415, None),
        ("expect: the-unexpected", 417, None),
    ],
)
def test_bad_headers_are_explained(gateway, field, due, param):
    async def exchange():
        client = await connect(gateway)
        request = post(gateway, ALIVE).replace(b"\r\n\r\n", b"\r\n" + field.encode("latin-1") + b"\r\n\r\n", 1)
        check_error(*await client.ask(request), due=due, param=param)

    run(exchange)


@pytest.mark.parametrize(
    "given",
    ["x-nothing: 1", "authorization: Bearer nonsense", "authorization: Basic eHg=", "authorization: Bearer \xff", "x-api-key: sk-aig-" + "A" * 43],
)
def test_no_key_and_wrong_keys_are_401_without_a_row(gateway, given):
    async def exchange():
        client = await connect(gateway)
        request = post(gateway, ALIVE).split(b"\r\n")
        request[2] = given.encode("latin-1")
        status, head, body = await client.ask(b"\r\n".join(request))
        check_error(status, head, body, due=401)
        assert await is_usable(gateway, client)
        return request_id(head)

    anonymous = run(exchange)
    call, _ = shipped(gateway, run(lambda: answered(gateway)))
    assert call["status"] == 200
    assert not rows(gateway.data_dir, "calls", "call_id = ?", anonymous)


def head_of(*fields: str, line: str = "POST /v1/chat/completions HTTP/1.1") -> bytes:
    return "\r\n".join([line, "host: gateway", *fields, "", ""]).encode("latin-1")


# name → (bytes, status). All of these end the connection.
BAD_MESSAGES = {
    "two lengths": (head_of("content-length: 2", "content-length: 3") + b"{}", 400),
    "the same length twice": (head_of("content-length: 2", "content-length: 2") + b"{}", 400),
    "a length and chunks": (head_of("content-length: 2", "transfer-encoding: chunked") + b"0\r\n\r\n", 400),
    "a negative length": (head_of("content-length: -1"), 400),
    "a length in words": (head_of("content-length: two"), 400),
    "a list of lengths": (head_of("content-length: 2, 2") + b"{}", 400),
    "an endless length": (head_of("content-length: " + "9" * 40), 400),
    "too large": (head_of(f"content-length: {33 << 20}"), 413),
    "an unknown coding": (head_of("transfer-encoding: gzip, chunked"), 501),
    "chunks in HTTP/1.0": (head_of("transfer-encoding: chunked", line="POST /v1/chat/completions HTTP/1.0"), 400),
    "a chunk without size": (head_of("transfer-encoding: chunked") + b"zz\r\n", 400),
    "a chunk too long": (head_of("transfer-encoding: chunked") + b"2\r\n{}}}\r\n0\r\n\r\n", 400),
    "a huge chunk": (head_of("transfer-encoding: chunked") + b"fffffffffffffffff\r\n", 400),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400),
    "two hosts": (head_of("host: other"), 400),
    "white space before the colon": (head_of("content-length : 2") + b"{}", 400),
    "a folded header": (head_of("x-a: 1\r\n 2", "content-length: 2") + b"{}", 400),
    "a header without colon": (head_of("nonsense"), 400),
    "NUL in a header": (head_of("x-a: \0"), 400),
    "a bare line feed": (b"POST /v1/chat/completions HTTP/1.1\nhost: gateway\n\n", 400),
    "many headers": (head_of(*[f"x-{n}: 1" for n in range(200)]), 431),
    "large headers": (head_of("x-a: " + "a" * (65 << 10)), 431),
    "large headers never ending": (b"POST / HTTP/1.1\r\n" + b"x-a: " + b"a" * (70 << 10), 431),
    "a long target": (head_of(line="GET /" + "a" * 20_000 + " HTTP/1.1"), 414),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "HTTP/0.9": (b"GET /\r\n\r\n", 505),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 40, 400),
    "CONNECT": (b"CONNECT example.org:443 HTTP/1.1\r\nhost: example.org\r\n\r\n", 501),
    "an invented method": (head_of(line="BREW /coffee HTTP/1.1"), 501),
    "bytes over 127 in the target": (head_of(line="GET /v1/mod\xe9ls HTTP/1.1"), 400),
    "a websocket where there is none": (
        head_of("connection: upgrade", "upgrade: websocket", line="GET /v1/chat/completions HTTP/1.1"), 405
    ),
    "a wrong method": (head_of(line="GET /v1/chat/completions HTTP/1.1"), 405),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_message_that_breaks_http_is_refused_and_its_connection_closed(gateway, name):
    data, due = BAD_MESSAGES[name]

    async def exchange():
        client = await connect(gateway)
        await client.send(data)
        status, head, body = await client.reply()
        check_error(status, head, body, due=due)
        assert b"\r\nconnection: close" in head
        assert await client.rest() == b""

    run(exchange)


@pytest.mark.parametrize("path", MODEL_CALLS)
def test_a_wrong_method_reads_the_same_wherever_it_is_refused(gateway, path):
    async def exchange():
        for asked in (path, "/v1/usage/recent"):
            client = await connect(gateway)
            status, head, body = await client.ask(get(gateway, asked).replace(b"GET", b"DELETE"))
            check_error(status, head, body, due=405, word=f"DELETE is not possible on {asked}; use ")
            assert error_of(body)["code"] == "method_not_allowed" and b"\r\nallow: " in head

    run(exchange)


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/models/sim/echo"])
def test_a_head_is_that_of_the_get_and_the_connection_goes_on(gateway, path):
    async def exchange():
        client = await connect(gateway)
        await client.send(get(gateway, path).replace(b"GET", b"HEAD"))
        head = await client.head()
        assert head.startswith(b"HTTP/1.1 200 ") and b"\r\ncontent-length: " in head
        assert await is_usable(gateway, client)

    run(exchange)


def test_a_body_that_grows_past_the_limit_is_413(gateway):
    async def exchange():
        client = await connect(gateway)
        await client.send(head_of(f"authorization: Bearer {gateway.key}", "transfer-encoding: chunked"))
        piece = b"100000\r\n" + b" " * (1 << 20) + b"\r\n"

        async def flood():
            for _ in range(40):
                await client.send(piece)

        flooding = asyncio.create_task(flood())
        status, head, body = await client.reply()
        check_error(status, head, body, due=413)
        flooding.cancel()
        await asyncio.gather(flooding, return_exceptions=True)

    run(exchange)


def test_a_slow_sender_is_408(start):
    gateway = start("[server]\nheader_timeout_s = 0.3\nbody_timeout_s = 0.3\n")

    async def exchange():
        in_head, in_body, in_piped = [await connect(gateway) for _ in range(3)]
        await in_head.send(b"POST /v1/chat/completions HTTP/1.1\r\nho")
        await in_body.send(post(gateway, ALIVE)[:-3])
        await in_piped.send(post(gateway, ALIVE, path="/v1/keys")[:-3])
        for client in (in_head, in_body, in_piped):
            check_error(*await client.reply(), due=408)
            assert await client.rest() == b""
        assert await is_usable(gateway, await connect(gateway))

    run(exchange)


WELL_FORMED = {
    "an upgrade to h2c": (("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQ"), "HTTP/1.1"),
    "an absolute target": ((), "absolute"),
    "a query and a slash": ((), "query"),
    "HTTP/1.0": ((), "HTTP/1.0"),
    "HTTP/1.0 kept": (("connection: keep-alive",), "HTTP/1.0"),
    "connection close": (("connection: close",), "HTTP/1.1"),
}


@pytest.mark.parametrize("name", WELL_FORMED)
def test_odd_but_right_requests_are_answered(gateway, name):
    fields, kind = WELL_FORMED[name]
    request = post(gateway, ALIVE, *fields)
    if kind == "absolute":
        request = request.replace(b"POST /v1", b"POST http://elsewhere.example/v1", 1)
    elif kind == "query":
        request = request.replace(b"completions HTTP", b"completions/?api-version=1 HTTP", 1)
    elif kind == "HTTP/1.0":
        request = request.replace(b"HTTP/1.1", b"HTTP/1.0", 1)

    async def exchange():
        client = await connect(gateway)
        status, head, body = await client.ask(request)
        assert status == 200 and "still there" in said_in(body)
        if "close" in name or name == "HTTP/1.0":
            assert await client.rest() == b""
        else:
            assert await is_usable(gateway, client)

    run(exchange)


def test_expect_100_continue_is_told_to_go_on(gateway):
    request = post(gateway, ALIVE, "expect: 100-continue")
    head, _, body = request.partition(b"\r\n\r\n")

    async def exchange():
        client = await connect(gateway)
        await client.send(head + b"\r\n\r\n")
        assert (await client.head()).startswith(b"HTTP/1.1 100 ")
        status, _, _ = await client.ask(body)
        assert status == 200
        assert await is_usable(gateway, client)

    run(exchange)


@pytest.mark.parametrize("is_stream", [False, True])
def test_http_1_0_streams_end_with_the_connection(gateway, is_stream):
    async def exchange():
        client = await connect(gateway)
        request = post(gateway, chat("sim/long-20", stream=is_stream)).replace(b"HTTP/1.1", b"HTTP/1.0", 1)
        await client.send(request)
        head = (await client.head()).lower()
        body = await client.rest()
        assert b"transfer-encoding" not in head
        assert (events_of(body)[-1] == "[DONE]") if is_stream else json.loads(body)["usage"]["completion_tokens"] == 20

    run(exchange)


def test_a_body_in_chunks_of_every_size_is_one_body(gateway):
    body = json.dumps(chat("sim/echo", "häppchen " * 20), ensure_ascii=False).encode()
    pieces = [body[at : at + 7] for at in range(0, len(body), 7)]
    chunks = b"".join(b"%x;ext=1\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\nx-trailer: 1\r\n\r\n"
    head = head_of(f"authorization: Bearer {gateway.key}", "transfer-encoding: chunked")

    async def exchange():
        client = await connect(gateway)
        for at in range(0, len(head + chunks), 11):
            await client.send((head + chunks)[at : at + 11])
        status, _, reply = await client.reply()
        assert status == 200 and "häppchen häppchen" in said_in(reply)
        assert await is_usable(gateway, client)

    run(exchange)


def test_hot_and_piped_requests_pipelined_are_answered_in_order(gateway):
    async def exchange():
        client = await connect(gateway)
        requests = [
            post(gateway, chat("sim/echo", "first")),
            get(gateway, "/v1/models/sim%2Fecho"),
            post(gateway, chat("sim/slow-5ms+long-5", "second", stream=True)),
            get(gateway, "/healthz"),
            post(gateway, {"name": "piped"}, path="/v1/keys"),
            post(gateway, b"{bad"),
            get(gateway, "/v1/nowhere"),
            post(gateway, chat("sim/echo", "last")),
        ]
        await client.send(b"".join(requests))
        replies = [await client.reply() for _ in requests]
        assert [reply[0] for reply in replies] == [200, 200, 200, 200, 201, 400, 404, 200]
        assert "first" in said_in(replies[0][2]) and "last" in said_in(replies[7][2])
        assert json.loads(replies[1][2])["id"] == "sim/echo"
        assert events_of(replies[2][2])[-1] == "[DONE]"
        assert len({request_id(head) for _, head, _ in replies}) == len(replies)

    run(exchange)


def test_more_than_may_wait_is_never_served(gateway):
    """What a client sends ahead is held up to 64 KB; what is cut off is never read as a request, and the connection ends."""

    async def exchange():
        client = await connect(gateway)
        await client.send(post(gateway, chat("sim/ttft-200ms+echo", "first")) + post(gateway, chat("sim/echo", "x" * 40_000)) * 4)
        status, head, body = await client.reply()
        assert status == 200 and "first" in said_in(body) and b"\r\nconnection: close" in head
        assert await client.rest() == b""

    run(exchange)


def test_no_caller_ever_gets_anothers_bytes(gateway):
    """Many callers with contents of their own; requests of both planes pipelined, cut at any byte; few upstream connections."""
    callers, rounds = 24, 6
    draw = random.Random(7)

    async def caller(number: int):
        client = await connect(gateway)
        for turn in range(rounds):
            marks = [f"caller-{number}-{turn}-{n}-" + "abcdefgh"[draw.randrange(8)] * draw.randrange(1, 400) for n in range(3)]
            key = f"name-{number}-{turn}"
            stream_model = "sim/" + draw.choice(["echo", "slow-1ms+echo", "one-byte+echo", "crlf+echo"])
            data = (
                post(gateway, chat("sim/echo", marks[0]))
                + post(gateway, chat(stream_model, marks[1], stream=True))
                + post(gateway, {"name": key}, path="/v1/keys")
                + post(gateway, chat("sim/echo", marks[2]))
            )
            cut = draw.randrange(1, len(data))
            await client.send(data[:cut])
            await client.send(data[cut:])
            replies = [await client.reply() for _ in range(4)]
            assert [status for status, _, _ in replies] == [200, 200, 201, 200]
            texts = [said_in(replies[0][2]), said_in(replies[1][2]), replies[2][2].decode(), said_in(replies[3][2])]
            for text, mark in zip(texts, (marks[0], marks[1], key, marks[2]), strict=True):
                assert mark in text and text.count("caller-") == mark.count("caller-"), (mark, text)
        client.close()

    async def everyone():
        await asyncio.gather(*[caller(number) for number in range(callers)])

    run(everyone)


def test_a_websocket_to_nowhere_is_a_404_and_no_line_in_the_log(gateway):
    async def exchange():
        client = await connect(gateway)
        before = gateway.errors.read_text()
        upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        status, head, body = await client.ask(get(gateway, "/v1/nowhere").replace(b"authorization", upgrade + b"authorization"))
        check_error(status, head, body, due=404)
        assert await is_usable(gateway, client)
        assert gateway.errors.read_text() == before

    run(exchange)


def test_nothing_of_all_this_was_a_500(gateway):
    assert not rows(gateway.data_dir, "calls", "status = 500")
    assert "handler failed" not in gateway.errors.read_text(), gateway.errors.read_text()
    assert gateway.request("GET", "/v1/usage/recent?limit=1")[2]["data"][0]["request_id"].startswith("req_")
