"""Several choices streamed from providers that make one at a time: one stream of all, an attempt, a hold and a row each."""

from __future__ import annotations

import http.client
import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import openai
import pytest
from google import genai
from google.genai import types
from openai import OpenAI

from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.test_choices import HELLO
from tests.http_host import Handler, serving

SETTINGS = """
[routing]
max_attempts = 1
[providers.claude]
dialect = "anthropic-messages"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "sk-of-the-provider"
[models."claude/claude-opus-4-1"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 2.0
[providers.groq]
base_url = "http://127.0.0.1:{port}/openai/v1"
api_key = "sk-of-the-provider"
unpriced = "allow"
"""
PIECES = 12


class Provider:
    """Streams "<number>a <number>b …": in step (`in_step`), so that pieces of all streams alternate. `breaks` cuts that stream half-way."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.in_step: threading.Barrier | None = None
        self.breaks: set[int] = set()
        self.failing: set[int] = set()
        self.held: threading.Event | None = None  # after the first pieces
        self.left = 0  # streams whose reader went away
        self.lock = threading.Lock()

    def pieces(self, path: str, number: int) -> Iterator[bytes]:
        words = [f"{number}{chr(97 + place)} " for place in range(PIECES)]
        if path.endswith("/messages"):
            usage = {"input_tokens": 10, "output_tokens": number}
            message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
            yield event({"type": "message_start", "message": {**message, "usage": usage}})
            yield event({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}})
            for word in words:
                yield event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": word}})
            yield event({"type": "content_block_stop", "index": 0})
            yield event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage})
            yield event({"type": "message_stop"})
            return
        head = {"id": f"chatcmpl-{number}", "object": "chat.completion.chunk", "created": 1_700_000_000 + number, "model": "m"}
        for word in words:
            yield data({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": word}, "finish_reason": None}]})
        yield data({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
        yield data({**head, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": number, "total_tokens": 10 + number}})
        yield b"data: [DONE]\n\n"


def data(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


def event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\n".encode() + data(fields)


def text_of(number: int) -> str:
    return "".join(f"{number}{chr(97 + place)} " for place in range(PIECES))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, list[Provider]]]:
    now = [Provider()]

    class Streams(Handler):
        def do_POST(self) -> None:
            provider = now[0]
            body = json.loads(self.body())
            with provider.lock:
                provider.bodies.append(body)
                number = len(provider.bodies)
            if number in provider.failing:
                answer = b'{"type":"error","error":{"type":"overloaded_error","message":"busy"}}'
                self.answer(529, "application/json", answer)
                return
            self.begin_chunked("text/event-stream")
            try:
                for place, piece in enumerate(provider.pieces(self.path, number)):
                    if provider.in_step is not None:
                        provider.in_step.wait(20)
                    if provider.held is not None and place == 4:
                        provider.held.wait(20)
                    if number in provider.breaks and place == 6:
                        self.close_connection = True
                        return
                    self.write_chunk(piece)
                self.write_chunk(b"")
            except OSError:
                with provider.lock:
                    provider.left += 1
                self.close_connection = True

    with serving(Streams) as port:
        running = start_gateway(tmp_path_factory.mktemp("choices"), SETTINGS.format(port=port))
        yield running, now
        running.kill()


@pytest.fixture
def gateway(served: tuple[Gateway, list[Provider]]) -> Gateway:
    return served[0]


@pytest.fixture
def provider(served: tuple[Gateway, list[Provider]]) -> Provider:
    served[1][0] = Provider()
    return served[1][0]


@pytest.fixture
def client(gateway: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key, max_retries=0) as made:
        yield made


def ask(client: OpenAI, model: str = "claude/claude-opus-4-1", n: int = 3, **more: Any) -> Any:
    return client.chat.completions.create(model=model, n=n, max_tokens=50, messages=HELLO, stream=True, **more)  # type: ignore[call-overload]


def ledger(gateway: Gateway, call_id: str, count: int) -> tuple[list[Any], Any]:
    """(its attempts, the call)."""
    def read() -> Any:
        gateway.request("GET", "/v1/usage/recent?limit=1")
        with closing(sqlite3.connect(f"file:{gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            attempts = database.execute("SELECT * FROM attempts WHERE call_id = ? ORDER BY number", (call_id,)).fetchall()
            call = database.execute("SELECT * FROM calls WHERE call_id = ?", (call_id,)).fetchone()
        return (attempts, call) if len(attempts) == count and call is not None else None

    return wait_until(read)


def folded(chunks: list[Any]) -> tuple[dict[int, str], dict[int, str]]:
    """(choice → text, choice → finish reason)."""
    texts: dict[int, str] = {}
    finishes: dict[int, str] = {}
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            if choice.finish_reason:
                assert choice.index not in finishes
                finishes[choice.index] = choice.finish_reason
    return texts, finishes


@pytest.mark.parametrize("model", ["claude/claude-opus-4-1", "groq/llama"])
def test_all_choices_come_in_one_stream_each_whole_under_its_index(gateway: Gateway, provider: Provider, client: OpenAI, model: str) -> None:
    provider.in_step = threading.Barrier(3)  # passes only if all three are under way at once
    with client.chat.completions.with_streaming_response.create(
        model=model, n=3, max_tokens=50, messages=HELLO, stream=True, stream_options={"include_usage": True}
    ) as raw:
        chunks = list(raw.parse())
        call_id = raw.headers["x-request-id"]
    texts, finishes = folded(chunks)
    assert sorted(texts) == [0, 1, 2] and sorted(texts.values()) == [text_of(number) for number in (1, 2, 3)]
    assert finishes == dict.fromkeys(range(3), "stop")
    assert len({chunk.id for chunk in chunks}) == 1 and len({chunk.created for chunk in chunks}) == 1
    assert {chunk.model for chunk in chunks} == {model}
    roles = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.role]
    assert sorted(roles) == [0, 1, 2]
    assert [chunk.usage is not None for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    usage = chunks[-1].usage
    assert (usage.prompt_tokens, usage.completion_tokens) == (30, 6)
    assert all("n" not in body for body in provider.bodies)
    attempts, call = ledger(gateway, call_id, 3)
    assert [(row["number"], row["end"]) for row in attempts] == [(1, "complete"), (2, "complete"), (3, "complete")]
    assert (call["attempts"], call["status"], call["cost_nanousd"]) == (3, 200, sum(row["cost_nanousd"] for row in attempts))
    if model.startswith("claude"):
        assert call["cost_nanousd"] == 30 * 1000 + 6 * 2000 == round(usage.cost * 1e9)
        assert {row["hold_nanousd"] > 0 for row in attempts} == {True}
    order = [choice.index for chunk in chunks for choice in chunk.choices if choice.delta.content]
    assert sum(a != b for a, b in zip(order, order[1:], strict=False)) > 2  # one after the other would be 2


def test_the_helper_of_the_sdk_folds_them(provider: Provider, client: OpenAI) -> None:
    with client.chat.completions.stream(model="claude/claude-opus-4-1", n=2, max_tokens=50, messages=HELLO) as stream:
        final = stream.get_final_completion()
    assert sorted(choice.message.content or "" for choice in final.choices) == [text_of(1), text_of(2)]


def test_a_choice_that_breaks_off_leaves_the_others_whole_and_is_said_at_the_end(gateway: Gateway, provider: Provider, client: OpenAI) -> None:
    provider.breaks = {2}
    chunks = []
    with client.chat.completions.with_streaming_response.create(
        model="claude/claude-opus-4-1", n=3, max_tokens=50, messages=HELLO, stream=True
    ) as raw:
        with pytest.raises(openai.APIError) as caught:
            for chunk in raw.parse():
                chunks.append(chunk)
        call_id = raw.headers["x-request-id"]
    texts, finishes = folded(chunks)
    broken = next(index for index, text in texts.items() if text.startswith("2a"))
    assert sorted(text for index, text in texts.items() if index != broken) == [text_of(1), text_of(3)]
    assert text_of(2).startswith(texts[broken]) and broken not in finishes and len(finishes) == 2
    assert caught.value.body["choice"] == broken and caught.value.body["origin"] == "provider"  # type: ignore[index, call-overload]
    attempts, call = ledger(gateway, call_id, 3)
    assert sorted(row["end"] for row in attempts) == ["complete", "complete", "failed"]
    assert (call["status"], bool(call["error_code"])) == (200, True)
    assert call["cost_nanousd"] == sum(row["cost_nanousd"] for row in attempts) > 0


def test_none_at_all_is_the_providers_error(gateway: Gateway, provider: Provider, client: OpenAI) -> None:
    provider.failing = {1, 2}
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, n=2)
    assert caught.value.status_code >= 500 and caught.value.body["attempts"] == 2  # type: ignore[index]
    _, call = ledger(gateway, caught.value.response.headers["x-request-id"], 2)
    assert call["status"] == caught.value.status_code


def test_a_client_that_leaves_ends_all_of_them(gateway: Gateway, provider: Provider) -> None:
    provider.held = threading.Event()
    connection = http.client.HTTPConnection(gateway.url.removeprefix("http://"), timeout=30)
    body = {"model": "claude/claude-opus-4-1", "n": 2, "max_tokens": 50, "messages": HELLO, "stream": True}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), {"authorization": f"Bearer {gateway.key}"})
    response = connection.getresponse()
    call_id = response.headers["x-request-id"]
    response.read(10)
    wait_until(lambda: len(provider.bodies) == 2)
    response.close()
    connection.close()
    provider.held.set()  # this provider bills what it makes for nobody: it is read on, without the client
    attempts, call = ledger(gateway, call_id, 2)
    assert [row["end"] for row in attempts] == ["aborted", "aborted"]
    assert call["status"] == 499
    assert [row["usage_source"] for row in attempts] == ["reported", "reported"]


def test_other_surfaces_with_choices_have_them_too(gateway: Gateway, provider: Provider, client: OpenAI) -> None:
    texts: dict[int, str] = {}
    for chunk in client.completions.create(model="claude/claude-opus-4-1", prompt="hello", n=2, max_tokens=50, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + choice.text
    assert sorted(texts.values()) == [text_of(1), text_of(2)]
    gemini = genai.Client(api_key=gateway.key, http_options={"base_url": gateway.url})
    texts = {}
    config = types.GenerateContentConfig(candidate_count=2, max_output_tokens=50)
    last = None
    for part in gemini.models.generate_content_stream(model="claude/claude-opus-4-1", contents="hello", config=config):
        for candidate in part.candidates or ():
            texts[candidate.index or 0] = texts.get(candidate.index or 0, "") + "".join(each.text or "" for each in candidate.content.parts or ())  # type: ignore[union-attr]
        last = part
    assert sorted(texts.values()) == [text_of(3), text_of(4)]
    assert last is not None and last.usage_metadata.prompt_token_count == 20  # type: ignore[union-attr]
