"""Streams whose provider is silent are kept open by comments, from before its head on, and end as they should all the same."""

import asyncio
import socket

import pytest

from tests.conftest import start_gateway
from tests.e2e.wire import chat, connect, events_of, post, provider_config, run

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
CHUNK = b'data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"so"},"finish_reason":null}]}\n\n'
LAST = CHUNK.replace(b"null", b'"stop"') + b"data: [DONE]\n\n"
REFUSAL = b'HTTP/1.1 400 Bad Request\r\ncontent-length: 29\r\n\r\n{"error":{"message":"never"}}'
COMMENT = b": keep-alive\n\n"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A gateway, and the listening socket of its provider."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = "[server]\nsse_keep_alive_s = 0.1\n" + provider_config("raw", f"http://127.0.0.1:{listening.getsockname()[1]}/v1", ("m",))
        gateway = start_gateway(tmp_path_factory.mktemp("silent"), config)
        yield gateway, listening
        gateway.kill()


async def stream(served, first: bytes, rest: bytes) -> bytes:
    """The body that a client gets whose provider sends `first` at once, and `rest` when the client has two comments."""
    has_comments = asyncio.Event()

    async def provide(reader, writer):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(first)
        await has_comments.wait()
        writer.write(rest)
        writer.close()

    gateway, listening = served
    server = await asyncio.start_server(provide, sock=listening.dup())
    try:
        client = await connect(gateway)
        await client.send(post(gateway, chat("raw/m", stream=True)))
        assert b" 200 OK\r\n" in await client.head()
        body = b""
        while body.count(COMMENT) < 2:
            body += await client.chunk()
        has_comments.set()
        while piece := await client.chunk():
            body += piece
        return body
    finally:
        server.close()


@pytest.mark.parametrize("first", [b"", HEAD, HEAD + CHUNK], ids=["no head", "no chunk", "in between"])
def test_comments_come_as_long_as_the_provider_is_silent(served, first):
    body = run(lambda: stream(served, first, (HEAD + CHUNK + LAST)[len(first) :]))
    *chunks, last, done = events_of(body)
    assert "".join(chunk["choices"][0]["delta"]["content"] for chunk in chunks) == "soso"
    assert last["usage"] and done == "[DONE]"


def test_an_error_after_comments_comes_in_band(served):
    error, done = events_of(run(lambda: stream(served, b"", REFUSAL)))
    assert "never" in error["error"]["message"] and error["error"]["status"] == 400 and done == "[DONE]"
