"""Providers that fail in every way, through the real gateway: what the client is told, what the ledger says, and that nothing leaks on."""

from __future__ import annotations

import asyncio
import gzip
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from aigate.cli.verify import report_lines, verify_data_dir
from tests.conftest import Gateway, start_gateway
from tests.e2e.wire import chat, connect, error_of, events_of, post, provider_config, request_id, run, running_sim, said_in, shipped
from tests.worker.raw_provider import Peer

# --- a provider that speaks raw bytes: the model names what it does -----------------------------------------------------------

REPLY = json.dumps(
    {
        "id": "raw-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": "whole"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }
).encode()  # fmt: skip
CHUNK = (
    b'{"id": "raw-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [{"index": 0, "delta": {"content": "piece"}}]}'
)
ROLE = CHUNK.replace(b'"content": "piece"', b'"role": "assistant", "content": ""')
SSE = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
STREAM_HEAD = SSE + b"transfer-encoding: chunked\r\n\r\n"


def reply(body: bytes = REPLY, *fields: bytes, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    return b"\r\n".join([b"HTTP/1.1 " + status, b"content-type: " + kind, b"content-length: %d" % len(body), *fields, b"", body])


def events(*data: bytes) -> bytes:
    return b"".join(b"data: " + each + b"\n\n" for each in data)


def chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def with_usage(prompt: int, completion: int) -> bytes:
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    return json.dumps({**json.loads(ROLE), "usage": usage}).encode()


# name → bytes, then what becomes of the connection: keep | close | reset
RAW = {
    "ok": (reply(), "keep"),
    "closes-at-once": (b"", "close"),
    "resets-at-once": (b"", "reset"),
    "half-a-head": (b"HTTP/1.1 200 OK\r\ncontent-ty", "close"),
    "not-http": (b"SSH-2.0-OpenSSH_9.6\r\n", "close"),
    "endless-head": (b"HTTP/1.1 200 OK\r\n" + b"x-filler: " + b"a" * 400_000, "keep"),
    "two-lengths": (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd", "keep"),
    "short-body": (reply().replace(b"content-length: %d" % len(REPLY), b"content-length: %d" % (len(REPLY) + 9)), "close"),
    "reset-in-body": (reply()[:-20], "reset"),
    "switches": (b"HTTP/1.1 101 Switching Protocols\r\nupgrade: h2c\r\nconnection: upgrade\r\n\r\n", "keep"),
    "many-103": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 5 + reply(), "keep"),
    "second-reply": (reply() + reply(REPLY.replace(b"whole", b"STRAY")), "keep"),
    "redirect": (reply(b"", b"location: http://169.254.169.254/", status=b"302 Found"), "keep"),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", "keep"),
    "html": (reply(b"<html><title>Welcome</title></html>", kind=b"text/html"), "keep"),
    "html-502": (reply(b"<html><title>Bad gateway</title></html>", kind=b"text/html", status=b"502 Bad Gateway"), "keep"),
    "null": (reply(b"null"), "keep"),
    "array": (reply(b"[]"), "keep"),
    "no-choices": (reply(b"{}"), "keep"),
    "choices-text": (reply(b'{"choices": "none"}'), "keep"),
    "error-in-200": (reply(b'{"error": {"message": "upstream died", "code": 503}}'), "keep"),
    "empty-body": (reply(b""), "keep"),
    "not-utf8": (reply(REPLY.replace(b"whole", b"\xff\xfe")), "keep"),
    "usage-text": (reply(REPLY.replace(b'"prompt_tokens": 3', b'"prompt_tokens": "three"')), "keep"),
    "usage-negative": (reply(REPLY.replace(b'"prompt_tokens": 3', b'"prompt_tokens": -3')), "keep"),
    "usage-floats": (reply(REPLY.replace(b": 3,", b": 3.0,").replace(b": 2,", b': "2",')), "keep"),
    "usage-null": (reply(REPLY.replace(b": 3,", b": null,").replace(b": 2,", b": null,").replace(b": 5}", b": null}")), "keep"),
    "usage-zeros": (reply(REPLY.replace(b": 3,", b": 0,").replace(b": 2,", b": 0,").replace(b": 5}", b": 0}")), "keep"),
    "usage-huge": (reply(REPLY.replace(b'"prompt_tokens": 3', b'"prompt_tokens": 1e300')), "keep"),
    "usage-beyond-64-bit": (reply(REPLY.replace(b'"prompt_tokens": 3', b'"prompt_tokens": ' + b"9" * 30)), "keep"),
    "gzip-bomb": (reply(gzip.compress(b" " * (80 << 20)), b"content-encoding: gzip"), "keep"),
    "gzip-cut": (reply(gzip.compress(REPLY)[:-12], b"content-encoding: gzip"), "keep"),
    "brotli": (reply(REPLY, b"content-encoding: br"), "keep"),
    "secret": (reply(b'{"error": {"message": "bad key rawsecretkey12345 given", "code": "rawsecretkey12345"}}', status=b"401 Unauthorized"), "keep"),
    "secret-param": (reply(b'{"error": {"message": "no such field", "param": "rawsecretkey12345"}}', status=b"400 Bad Request"), "keep"),
    "crlf-message": (reply(b'{"error": {"message": "a\\r\\nset-cookie: x=1"}}', b"retry-after: 0", status=b"429 Slow"), "keep"),
    "huge-error": (reply(b"<html>" + b"x" * (3 << 20), kind=b"text/html", status=b"500 Oops"), "keep"),
    "error-body-stalls": (b"HTTP/1.1 500 Oops\r\ncontent-length: 10\r\n\r\n", "keep"),
    "flood-of-103": (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" * 20_000 + reply(), "keep"),
    "trailers": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunked(REPLY) + b"0\r\nx-late: 1\r\n\r\n", "keep"),
    "stream-cut": (STREAM_HEAD + chunked(events(CHUNK)), "close"),
    "stream-reset": (STREAM_HEAD + chunked(events(CHUNK)), "reset"),
    "stream-empty": (STREAM_HEAD + b"0\r\n\r\n", "keep"),
    "stream-only-done": (STREAM_HEAD + chunked(events(b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-no-done": (STREAM_HEAD + chunked(events(CHUNK)) + b"0\r\n\r\n", "keep"),
    "stream-garbage": (STREAM_HEAD + chunked(events(CHUNK, b"{nope", CHUNK, b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-not-utf8": (STREAM_HEAD + chunked(events(CHUNK.replace(b"piece", b"\xff"), CHUNK, b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-null": (STREAM_HEAD + chunked(events(b"null", b"[]", b"17", CHUNK, b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-after-done": (STREAM_HEAD + chunked(events(CHUNK, b"[DONE]", CHUNK.replace(b"piece", b"STRAY"))) + b"0\r\n\r\n", "keep"),
    "stream-done-then-open": (STREAM_HEAD + chunked(events(CHUNK, b"[DONE]")), "keep"),
    "stream-until-close": (SSE + b"\r\n" + events(CHUNK, b"[DONE]"), "close"),
    "stream-until-close-cut": (SSE + b"\r\n" + events(CHUNK), "close"),
    "stream-error": (STREAM_HEAD + chunked(events(CHUNK, b'{"error": {"message": "overloaded", "code": 503}}')) + b"0\r\n\r\n", "keep"),
    "stream-error-first": (STREAM_HEAD + chunked(events(b'{"error": {"message": "overloaded", "code": 503}}')) + b"0\r\n\r\n", "keep"),
    "stream-role-then-error": (
        STREAM_HEAD + chunked(events(ROLE, b'{"error": {"message": "overloaded", "code": 503}}')) + b"0\r\n\r\n", "keep",
    ),
    "stream-role-then-cut": (STREAM_HEAD + chunked(events(ROLE)), "close"),
    "stream-prompt-only-cut": (STREAM_HEAD + chunked(events(with_usage(30, 0), CHUNK)), "close"),
    "stream-usage-zeros": (STREAM_HEAD + chunked(events(CHUNK, with_usage(0, 0), b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-called-json": (STREAM_HEAD.replace(b"text/event-stream", b"application/json") + chunked(events(CHUNK, b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-called-html": (STREAM_HEAD.replace(b"text/event-stream", b"text/html") + chunked(b": hi\n\n" + events(CHUNK, b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-error-itself": (
        STREAM_HEAD + chunked(events(CHUNK, b'{"object": "error", "message": "engine died", "code": 500}', b"[DONE]")) + b"0\r\n\r\n", "keep",
    ),
    "stream-error-named": (STREAM_HEAD + chunked(events(CHUNK) + b"event: error\ndata: engine died\n\n" + events(b"[DONE]")) + b"0\r\n\r\n", "keep"),
    "stream-empty-finish-cut": (STREAM_HEAD + chunked(events(CHUNK.replace(b'"piece"}}', b'"piece"}, "finish_reason": ""}'))), "close"),
    "stream-bad-chunks": (STREAM_HEAD + chunked(events(CHUNK)) + b"zz\r\n", "keep"),
    "stream-endless-line": (STREAM_HEAD + chunked(b"data: " + b"x" * (6 << 20)), "keep"),
}


class RawProvider:
    """Runs in a thread of its own; `url` is what the gateway is given."""

    def __init__(self) -> None:
        self._is_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self._is_up.wait()

    def _serve(self) -> None:
        asyncio.run(self._serve_until_stopped())

    async def _serve_until_stopped(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stopped = asyncio.Event()
        async with await asyncio.start_server(self._connection, sock=self._listener):
            self._is_up.set()
            await self._stopped.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        try:
            while request := await peer.request():
                name = json.loads(request.partition(b"\r\n\r\n")[2])["model"]
                data, then = RAW[name]
                await peer.send(data)
                if then == "reset":
                    peer.reset()
                    return
                if then == "close":
                    return
        except ConnectionError:
            pass  # the gateway gave the connection up, as it should after most of these
        finally:
            writer.close()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()


# What the client is told, plain and streamed alike, where nothing had reached it: model → (status, code, kind, attempts).
THRICE, ONCE = (3, 4), (1, 2)  # one more where a kept connection had gone
REFUSED = {
    "dead/m": (502, "provider_unavailable", "refused", THRICE),
    "tls/m": (502, "provider_unavailable", "refused", THRICE),
    "nowhere/m": (502, "provider_unavailable", "refused", THRICE),
    "simx/cut-head": (502, "provider_unavailable", "reset", THRICE),
    "simx/reset-head": (502, "provider_unavailable", "reset", THRICE),
    "simx/hang": (504, "provider_timeout", "timeout", ONCE),
    "simx/400": (400, "invalid_request", "rejected", ONCE),
    "simx/401": (502, "provider_unavailable", "auth", ONCE),
    "simx/402": (502, "provider_unavailable", "auth", ONCE),
    "simx/403": (502, "provider_unavailable", "auth", ONCE),
    "simx/html-403": (502, "provider_unavailable", "auth", ONCE),
    "simx/404": (404, "unknown_model", "rejected", ONCE),
    "simx/408": (504, "provider_timeout", "timeout", ONCE),
    "simx/413": (413, "payload_too_large", "rejected", ONCE),
    "simx/422": (422, "invalid_request", "rejected", ONCE),
    "simx/429+retry-after-0": (429, "rate_limited", "rate_limited", THRICE),
    "simx/429+retry-after-3600": (429, "rate_limited", "rate_limited", ONCE),
    "simx/500": (502, "provider_unavailable", "error", THRICE),
    "simx/501": (502, "provider_unavailable", "error", THRICE),
    "simx/502": (502, "provider_unavailable", "error", THRICE),
    "simx/html-502": (502, "provider_unavailable", "error", THRICE),
    "simx/503+retry-after-0": (503, "capacity_exceeded", "overloaded", THRICE),
    "simx/504": (504, "provider_timeout", "timeout", ONCE),
    "simx/529": (503, "capacity_exceeded", "overloaded", THRICE),
    "raw/closes-at-once": (502, "provider_unavailable", "reset", THRICE),
    "raw/resets-at-once": (502, "provider_unavailable", "reset", THRICE),
    "raw/half-a-head": (502, "provider_unavailable", "reset", THRICE),
    "raw/not-http": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/endless-head": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/two-lengths": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/short-body": (502, "provider_unavailable", "cut", THRICE),
    "raw/reset-in-body": (502, "provider_unavailable", "cut", THRICE),
    "raw/switches": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/redirect": (502, "provider_unavailable", "error", THRICE),
    "raw/no-content": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/html": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/html-502": (502, "provider_unavailable", "error", THRICE),
    "raw/huge-error": (502, "provider_unavailable", "error", THRICE),
    "raw/error-body-stalls": (502, "provider_unavailable", "error", THRICE),
    "raw/flood-of-103": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/null": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/array": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/no-choices": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/choices-text": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/empty-body": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/gzip-bomb": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/gzip-cut": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/brotli": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/secret-param": (400, "invalid_request", "rejected", ONCE),
    "raw/secret": (502, "provider_unavailable", "auth", ONCE),
    "raw/error-in-200": (503, "capacity_exceeded", "overloaded", THRICE),
    "raw/crlf-message": (429, "rate_limited", "rate_limited", THRICE),
}
REFUSED_PLAIN = {
    "simx/cut-3": (502, "provider_unavailable", "cut", THRICE),
    "simx/reset-3": (502, "provider_unavailable", "cut", THRICE),
    "simx/stall-3": (504, "provider_timeout", "timeout", ONCE),
    "simx/garbage": (502, "provider_unavailable", "bad_reply", ONCE),
    "simx/big-100MB": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/stream-empty": (502, "provider_unavailable", "bad_reply", ONCE),
}
REFUSED_STREAMED = {
    "simx/gzip": (502, "provider_unavailable", "bad_reply", ONCE),
    "raw/stream-empty": (502, "provider_unavailable", "cut", THRICE),
    "raw/stream-role-then-error": (503, "capacity_exceeded", "overloaded", THRICE),
    "raw/stream-role-then-cut": (502, "provider_unavailable", "cut", THRICE),
    "raw/stream-error-first": (503, "capacity_exceeded", "overloaded", THRICE),
    "raw/stream-endless-line": (504, "provider_timeout", "timeout", ONCE),
}
# Streams that fail once the client has some of them: model → (code, kind).
BROKEN = {
    "simx/cut-3": ("provider_unavailable", "cut"),
    "simx/reset-3": ("provider_unavailable", "cut"),
    "simx/stall-3": ("provider_timeout", "timeout"),
    "simx/error-midstream-3": ("provider_unavailable", "error"),
    "simx/big-100MB": ("provider_unavailable", "bad_reply"),
    "raw/stream-prompt-only-cut": ("provider_unavailable", "cut"),
    "raw/stream-cut": ("provider_unavailable", "cut"),
    "raw/stream-reset": ("provider_unavailable", "cut"),
    "raw/stream-no-done": ("provider_unavailable", "cut"),
    "raw/stream-until-close-cut": ("provider_unavailable", "cut"),
    "raw/stream-error": ("capacity_exceeded", "overloaded"),
    "raw/stream-error-itself": ("provider_unavailable", "error"),
    "raw/stream-error-named": ("provider_unavailable", "error"),
    "raw/stream-empty-finish-cut": ("provider_unavailable", "cut"),
    "raw/stream-bad-chunks": ("provider_unavailable", "bad_reply"),
}
# What is odd and yet an answer.
WHOLE = (
    "simx/early-103", "simx/extra-bytes", "simx/close-delimited", "simx/wrong-type", "simx/no-usage", "simx/one-byte", "simx/crlf",
    "simx/429-then-ok-2+retry-after-0", "simx/500-then-ok-1",
)  # fmt: skip
WHOLE_PLAIN = (
    "simx/gzip", "raw/ok", "raw/many-103", "raw/trailers", "raw/second-reply", "raw/not-utf8", "raw/usage-text", "raw/usage-negative", "raw/usage-floats", "raw/usage-null", "raw/usage-zeros",
    "raw/usage-huge", "raw/usage-beyond-64-bit",
)  # fmt: skip
WHOLE_STREAMED = (
    "simx/no-done", "raw/ok", "raw/stream-only-done", "raw/stream-after-done", "raw/stream-done-then-open", "raw/stream-until-close",
    "raw/stream-usage-zeros", "raw/stream-called-json", "raw/stream-called-html",
)  # fmt: skip
UNTOLD = ("raw/usage-null", "raw/usage-zeros")  # of their usage nobody can tell what was used
FORWARDED_AS_IT_CAME = ("simx/garbage", "raw/stream-null", "raw/stream-garbage", "raw/stream-not-utf8")

_ALL = (*REFUSED, *REFUSED_PLAIN, *REFUSED_STREAMED, *BROKEN, *WHOLE, *WHOLE_PLAIN, *WHOLE_STREAMED, *FORWARDED_AS_IT_CAME, "simx/echo")
SIM_MODELS = tuple({name[5:] for name in _ALL if name.startswith("simx/")})


@contextmanager
def faulty_gateway(folder: Path, server: str = "") -> Iterator[Gateway]:
    """A gateway before a simulated provider (simx), a raw one (raw) and a port where nobody listens (dead)."""
    raw = RawProvider()
    with running_sim(folder / "bill.jsonl") as sim_url, socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        settings = server + "[routing]\nretry_base_ms = 5\nbreaker_failures = 100000\n"
        settings += provider_config("simx", sim_url, SIM_MODELS, "timeout_s = 0.7")
        settings += provider_config("raw", raw.url, tuple(RAW), "timeout_s = 0.7", 'api_key = "rawsecretkey12345"')
        settings += provider_config("tls", sim_url.replace("http:", "https:"), ("m",))
        settings += provider_config("nowhere", "http://nowhere.invalid/v1", ("m",))
        settings += provider_config("dead", f"http://127.0.0.1:{unheard.getsockname()[1]}/v1", ("m",))
        running = start_gateway(folder, settings)
        yield running
        running.kill()
        raw.stop()


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with faulty_gateway(tmp_path_factory.mktemp("faults")) as running:
        yield running


def ask(gateway: Gateway, model: str, stream: bool, limit_s: float = 20.0) -> tuple[int, bytes, bytes]:
    """One call; then, on the same connection and from the same providers, others that must be answered with their own."""

    async def calls() -> tuple[int, bytes, bytes]:
        client = await connect(gateway)
        answer = await client.ask(post(gateway, chat(model, stream=stream)))
        for other, text in (("simx/echo", "another"), ("raw/ok", "whole")):
            status, _, body = await client.ask(post(gateway, chat(other, "another")))
            assert status == 200 and text in said_in(body)
        return answer

    return run(calls, limit_s)


def check_refused(gateway: Gateway, model: str, stream: bool, due: tuple[int, str, str, tuple[int, ...]]) -> None:
    due_status, code, kind, counts = due
    status, head, body = ask(gateway, model, stream)
    error = error_of(body)
    assert (status, error["status"], error["code"], error["origin"]) == (due_status, due_status, code, "provider"), error
    assert error["provider"] == model.partition("/")[0] and error["request_id"] == request_id(head)
    assert error["retryable"] is (kind not in ("auth", "rejected"))
    assert b"\r\nx-should-retry: " + (b"true" if error["retryable"] else b"false") in head
    assert b"rawsecretkey" not in body and b"set-cookie" not in head
    assert "3600" not in model or b"\r\nretry-after: 3600" in head
    call, attempts = shipped(gateway, request_id(head))
    assert (call["status"], call["error_code"], call["cost_nanousd"]) == (due_status, code, 0)
    assert len(attempts) in counts and call["attempts"] == error["attempts"] == len(attempts)
    assert {(row["end"], row["error_kind"], row["cost_nanousd"]) for row in attempts} <= {("failed", kind, 0), ("failed", "reset", 0)}
    assert attempts[-1]["error_kind"] == kind and {row["usage_source"] for row in attempts} == {"none"}


@pytest.mark.parametrize("model", REFUSED | REFUSED_PLAIN)
def test_a_plain_call_that_fails_says_who_failed(faulty, model):
    check_refused(faulty, model, False, (REFUSED | REFUSED_PLAIN)[model])


@pytest.mark.parametrize("model", REFUSED | REFUSED_STREAMED)
def test_a_stream_that_never_began_is_an_error_with_a_status(faulty, model):
    check_refused(faulty, model, True, (REFUSED | REFUSED_STREAMED)[model])


@pytest.mark.parametrize("model", BROKEN)
def test_a_stream_that_breaks_off_ends_with_an_error_in_band_and_what_came_is_paid(faulty, model):
    code, kind = BROKEN[model]
    status, head, body = ask(faulty, model, True, limit_s=4.0)  # a huge event must not be looked at again with every read
    events = events_of(body)
    assert status == 200 and events[-1] == "[DONE]"
    assert (events[-2]["error"]["code"], events[-2]["error"]["origin"]) == (code, "provider")
    call, (*stale, attempt) = shipped(faulty, request_id(head))
    assert (call["status"], call["error_code"]) == (200, code)
    assert (attempt["end"], attempt["error_kind"], attempt["usage_source"]) == ("failed", kind, "estimated")
    assert attempt["output_tokens"] > 0 and attempt["cost_nanousd"] == call["cost_nanousd"] > 0
    assert all(row["error_kind"] == "reset" for row in stale)


def check_whole(gateway: Gateway, model: str, stream: bool) -> bytes:
    status, head, body = ask(gateway, model, stream)
    assert status == 200
    call, attempts = shipped(gateway, request_id(head))
    assert (call["status"], call["error_code"], attempts[-1]["end"]) == (200, "", "complete")
    assert all(row["end"] == "failed" and not row["cost_nanousd"] for row in attempts[:-1])
    assert attempts[-1]["cost_nanousd"] == call["cost_nanousd"] > 0
    assert attempts[-1]["usage_source"] == ("estimated" if "no-usage" in model or model in UNTOLD or model[:10] == "raw/stream" else "reported")
    assert b"STRAY" not in body
    if model[:9] == "raw/usage" and model not in UNTOLD:
        assert (attempts[-1]["input_tokens"], attempts[-1]["output_tokens"], call["cost_nanousd"]) == (3, 2, 1650)
    return body


@pytest.mark.parametrize("model", WHOLE + WHOLE_PLAIN)
def test_an_odd_reply_is_a_reply(faulty, model):
    check_whole(faulty, model, False)


@pytest.mark.parametrize("model", WHOLE + WHOLE_STREAMED)
def test_an_odd_stream_is_a_stream(faulty, model):
    events = events_of(check_whole(faulty, model, True))
    assert events[-1] == "[DONE]" and events[-2]["usage"]["cost"] > 0
    assert not any("error" in event for event in events[:-1])


@pytest.mark.parametrize("model", FORWARDED_AS_IT_CAME)
def test_a_chunk_that_is_no_chunk_is_passed_on_and_the_stream_metered(faulty, model):
    status, head, body = ask(faulty, model, True)
    assert status == 200 and body.endswith(b"data: [DONE]\n\n")
    call, (attempt,) = shipped(faulty, request_id(head))
    assert (call["status"], attempt["end"]) == (200, "complete") and attempt["output_tokens"] > 0


def test_good_and_bad_providers_side_by_side_never_mix_their_callers(faulty):
    """Many callers at once, every other one of a provider that breaks: those between get exactly their own."""
    bad = [*REFUSED, *BROKEN, "raw/second-reply", "simx/extra-bytes", "raw/stream-after-done"]

    async def good(number: int) -> None:
        client = await connect(faulty)
        for turn in range(8):
            mark = f"caller-{number}-{turn}-"
            status, _, body = await client.ask(post(faulty, chat("simx/echo", mark * 20, stream=turn % 2 == 0)))
            assert status == 200 and mark * 20 in said_in(body) and said_in(body).count("caller-") == 20

    async def broken(number: int) -> None:
        client = await connect(faulty)
        for turn in range(3):
            await client.ask(post(faulty, chat(bad[(number * 3 + turn) % len(bad)], "bad caller", stream=turn % 2 == 0)))

    async def everyone() -> None:
        await asyncio.gather(*[good(number) for number in range(16)], *[broken(number) for number in range(24)])

    run(everyone)


def test_another_target_stands_in_for_one_that_fails(faulty):
    async def exchange():
        client = await connect(faulty)
        return await client.ask(post(faulty, chat(["dead/m", "raw/null", "simx/echo"], "in its place")))

    status, head, body = run(exchange)
    assert status == 200 and "in its place" in said_in(body)
    assert b"\r\nx-aig-served-by: simx/echo" in head and b"\r\nx-aig-attempts: 3" in head
    _, attempts = shipped(faulty, request_id(head))
    assert [(row["provider"], row["end"]) for row in attempts] == [("dead", "failed"), ("raw", "failed"), ("simx", "complete")]


def test_what_a_reply_that_cannot_be_translated_used_is_paid(tmp_path):
    with faulty_gateway(tmp_path, "[server]\nforce_neutral = true\n") as gateway:
        status, head, body = ask(gateway, "raw/not-utf8", False)
        assert (status, error_of(body)["origin"]) == (502, "provider")
        call, (attempt,) = shipped(gateway, request_id(head))
    assert (attempt["end"], attempt["error_kind"], attempt["output_tokens"]) == ("failed", "bad_reply", 2)
    assert attempt["cost_nanousd"] == call["cost_nanousd"] == 1650


def test_the_ledger_is_sound_and_no_failure_was_a_bug_of_ours(faulty):
    status, head, _ = ask(faulty, "simx/500", False)
    shipped(faulty, request_id(head))
    assert status == 502
    report = verify_data_dir(str(faulty.data_dir))
    assert report.is_sound and report.attempts and not report.counts.get("unsettled"), report_lines(report)
    assert "handler failed" not in faulty.errors.read_text(), faulty.errors.read_text()
