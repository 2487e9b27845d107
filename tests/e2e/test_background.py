"""Responses with `background: true`, the real `openai` SDK against a real gateway: made without their client, asked for, cancelled, failed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.test_kept_responses import children
from tests.http_host import Handler, serving

SETTINGS = """
[routing]
max_attempts = 1
[server]
drain_s = 20
[providers.chat]
dialect = "openai-chat"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "sk-of-the-provider"
[models."chat/gpt"]
input_usd_per_mtok = 1.0
output_usd_per_mtok = 2.0
[providers.away]
dialect = "openai-chat"
base_url = "http://127.0.0.1:1/v1"
unpriced = "allow"
[providers.own]
dialect = "openai-responses"
base_url = "http://127.0.0.1:{port}/v1"
api_key = "sk-of-the-provider"
unpriced = "allow"
"""


class Provider:
    """Streams half of its answer, waits for `go`, and then goes on as `ending` says."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.ending = "whole"  # whole | cut
        self.requests: list[dict[str, Any]] = []
        self.lock = threading.Lock()

    def pieces(self, path: str) -> Iterator[bytes]:
        if path.endswith("/responses"):
            head = {"id": "resp_of_the_provider", "object": "response", "created_at": 1, "model": "m", "output": []}
            usage = {"input_tokens": 5, "output_tokens": 2, "total_tokens": 7, "input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [{"type": "output_text", "text": "so far whole", "annotations": []}]}
            yield event({"type": "response.created", "sequence_number": 0, "response": {**head, "status": "in_progress"}})
            yield event({"type": "response.output_item.added", "sequence_number": 1, "output_index": 0, "item": {**item, "content": [], "status": "in_progress"}})
            self.go.wait(30)
            yield event({"type": "response.output_item.done", "sequence_number": 2, "output_index": 0, "item": item})
            yield event({"type": "response.completed", "sequence_number": 3, "response": {**head, "status": "completed", "output": [item], "usage": usage}})
            return
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
        yield data({**head, "choices": [{"index": 0, "delta": {"role": "assistant", "content": "so far "}, "finish_reason": None}]})
        self.go.wait(30)
        if self.ending == "cut":
            return
        yield data({**head, "choices": [{"index": 0, "delta": {"content": "whole"}, "finish_reason": "stop"}]})
        yield data({**head, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}})
        yield b"data: [DONE]\n\n"


def data(fields: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(fields)}\n\n".encode()


def event(fields: dict[str, Any]) -> bytes:
    return f"event: {fields['type']}\n".encode() + data(fields)


@pytest.fixture(scope="module")
def hosted() -> Iterator[tuple[int, list[Provider]]]:
    now = [Provider()]

    class Streams(Handler):
        def do_POST(self) -> None:
            provider = now[0]
            body = json.loads(self.body())
            with provider.lock:
                provider.requests.append(body)
            self.begin_chunked("text/event-stream")
            try:
                for piece in provider.pieces(self.path):
                    self.write_chunk(piece)
                if provider.ending != "cut":
                    self.write_chunk(b"")
            except OSError:
                pass  # whoever asked has gone
            self.close_connection = provider.ending == "cut"

    with serving(Streams) as port:
        yield port, now
        now[0].go.set()


@pytest.fixture
def provider(hosted: tuple[int, list[Provider]]) -> Iterator[Provider]:
    hosted[1][0] = made = Provider()
    yield made
    made.go.set()


@pytest.fixture(scope="module")
def served(hosted: tuple[int, list[Provider]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    running = start_gateway(tmp_path_factory.mktemp("background"), SETTINGS.format(port=hosted[0]))
    yield running
    running.kill()


def client_of(gateway: Gateway, key: str | None = None) -> OpenAI:
    return OpenAI(base_url=gateway.url + "/v1", api_key=key or gateway.key, max_retries=0)


@pytest.fixture
def client(served: Gateway) -> Iterator[OpenAI]:
    with client_of(served) as made:
        yield made


def wait_for(client: OpenAI, response_id: str, status: str) -> Any:
    found = wait_until(lambda: (now := client.responses.retrieve(response_id)).status != "in_progress" and now)
    assert found.status == status, found.error
    return found


def rows(gateway: Gateway, call_id: str) -> Any:
    """(the attempt, the call)"""

    def read() -> Any:
        gateway.request("GET", "/v1/usage/recent?limit=1")
        with closing(sqlite3.connect(f"file:{gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            attempt = database.execute("SELECT * FROM attempts WHERE call_id = ?", (call_id,)).fetchone()
            call = database.execute("SELECT * FROM calls WHERE call_id = ?", (call_id,)).fetchone()
        return (attempt, call) if attempt and call else None

    return wait_until(read)


@pytest.mark.parametrize("model", ["chat/gpt", "own/gpt"])  # of another format, and of the same
def test_it_is_answered_at_once_and_made_to_its_end_without_its_client(served: Gateway, provider: Provider, model: str) -> None:
    with client_of(served) as client:
        raw = client.responses.with_raw_response.create(model=model, input="think", background=True, metadata={"a": "b"})
        begun = raw.parse()
    assert (begun.status, begun.background, begun.output, begun.model, begun.store) == ("in_progress", True, [], model, True)
    assert (begun.metadata, begun.usage, begun.error) == ({"a": "b"}, None, None)
    with client_of(served) as client:
        assert client.responses.retrieve(begun.id).to_dict() == begun.to_dict()  # another connection, another moment
        sent = provider.requests[0]
        assert sent["stream"] is True and "background" not in sent
        with pytest.raises(openai.BadRequestError, match="still being made") as caught:
            client.responses.create(model=model, input="and?", previous_response_id=begun.id)
        assert caught.value.code == "response_in_progress"
        assert [item.content[0].text for item in client.responses.input_items.list(begun.id)] == ["think"]  # type: ignore[union-attr]
        provider.go.set()
        ended = wait_for(client, begun.id, "completed")
        assert (ended.id, ended.background, ended.output_text, ended.usage.output_tokens) == (begun.id, True, "so far whole", 2)
        assert client.responses.cancel(begun.id).to_dict() == ended.to_dict()  # too late: it is as it was
        gone_on = client.responses.create(model="sim/echo", input="and?", previous_response_id=begun.id)
        assert gone_on.previous_response_id == begun.id
        attempt, call = rows(served, raw.headers["x-request-id"])
        assert (attempt["end"], call["status"], call["endpoint"], attempt["output_tokens"]) == ("complete", 200, "responses", 2)
        assert attempt["cost_nanousd"] == (5 * 1000 + 2 * 2000 if model == "chat/gpt" else 0)


def test_a_cancelled_one_is_made_no_more_and_stays_cancelled(served: Gateway, client: OpenAI, provider: Provider) -> None:
    raw = client.responses.with_raw_response.create(model="chat/gpt", input="think", background=True)
    begun = raw.parse()
    cancelled = client.responses.cancel(begun.id)
    assert (cancelled.id, cancelled.status, cancelled.output) == (begun.id, "cancelled", [])
    provider.go.set()
    attempt, call = rows(served, raw.headers["x-request-id"])
    assert (attempt["end"], call["status"]) == ("aborted", 499)
    assert client.responses.retrieve(begun.id).status == "cancelled"
    assert client.responses.cancel(begun.id).status == "cancelled"


def test_a_deleted_one_does_not_come_back(served: Gateway, client: OpenAI, provider: Provider) -> None:
    raw = client.responses.with_raw_response.create(model="chat/gpt", input="think", background=True)
    client.responses.delete(raw.parse().id)
    provider.go.set()
    rows(served, raw.headers["x-request-id"])
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(raw.parse().id)


def test_one_that_breaks_off_has_failed_and_says_why(served: Gateway, client: OpenAI, provider: Provider) -> None:
    provider.ending = "cut"
    raw = client.responses.with_raw_response.create(model="chat/gpt", input="think", background=True)
    provider.go.set()
    failed = wait_for(client, raw.parse().id, "failed")
    assert failed.error is not None and failed.error.code == "provider_unavailable" and failed.error.message
    attempt, _ = rows(served, raw.headers["x-request-id"])
    assert attempt["end"] == "failed"


def test_what_cannot_begin_is_told_at_once(served: Gateway, client: OpenAI, provider: Provider) -> None:
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="nobody/knows", input="think", background=True)
    with pytest.raises(openai.BadRequestError, match="input"):
        client.responses.create(model="chat/gpt", background=True)
    for more in ({"stream": True}, {"store": False}):
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="chat/gpt", input="think", background=True, **more)  # type: ignore[call-overload]
        assert caught.value.param == "background"
    with client_of(served, "sk-aig-wrong") as stranger:
        with pytest.raises(openai.AuthenticationError):
            stranger.responses.create(model="chat/gpt", input="think", background=True)
    with pytest.raises(openai.APIStatusError, match="Could not connect") as unreached:
        client.responses.create(model="away/gpt", input="think", background=True)
    assert unreached.value.status_code == 502
    _, _, sub = served.request("POST", "/v1/sub-accounts", {"name": "poor", "spend_cap_cents": 0})
    with client_of(served, sub["key"]) as poor:
        with pytest.raises(openai.APIStatusError) as refused:
            poor.responses.create(model="chat/gpt", input="think", background=True)
        assert refused.value.status_code == 402
    assert provider.requests == []


def test_nobody_else_sees_or_cancels_it(served: Gateway, client: OpenAI, provider: Provider) -> None:
    begun = client.responses.create(model="chat/gpt", input="think", background=True)
    _, _, sub = served.request("POST", "/v1/sub-accounts", {"name": "other"})
    with client_of(served, sub["key"]) as other:
        for ask in (other.responses.retrieve, other.responses.cancel, other.responses.delete):
            with pytest.raises(openai.NotFoundError):
                ask(begun.id)  # type: ignore[operator]
    provider.go.set()
    wait_for(client, begun.id, "completed")


def test_a_worker_that_dies_leaves_failed_ones_and_a_keeper_that_dies_none(hosted: Any, provider: Provider, tmp_path: Path) -> None:
    gateway = start_gateway(tmp_path, SETTINGS.format(port=hosted[0]))
    try:
        with client_of(gateway) as client:
            first = client.responses.create(model="chat/gpt", input="think", background=True)
            (keeper,) = children(gateway)["keeper"]
            os.kill(keeper, signal.SIGKILL)
            wait_until(lambda: children(gateway).get("keeper", [keeper]) != [keeper])
            wait_until(lambda: gateway.request("GET", f"/v1/responses/{first.id}")[0] == 200)
            assert client.responses.retrieve(first.id).status == "in_progress"
            provider.go.set()
            wait_for(client, first.id, "completed")
            provider.go.clear()
            second = client.responses.create(model="chat/gpt", input="think", background=True)
            (worker,) = children(gateway)["worker"]
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda: children(gateway).get("worker", [worker]) != [worker])
        with client_of(gateway) as client:
            failed = wait_for(client, second.id, "failed")
            assert "worker" in failed.error.message
    finally:
        gateway.kill()


def test_a_gateway_that_stops_lets_it_end_first(hosted: Any, provider: Provider, tmp_path: Path) -> None:
    gateway = start_gateway(tmp_path, SETTINGS.format(port=hosted[0]))
    with client_of(gateway) as client:
        begun = client.responses.create(model="chat/gpt", input="think", background=True)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # nothing tells from outside that it drains
    assert gateway.process.poll() is None
    provider.go.set()
    assert gateway.process.wait(30) == 0
    again = start_gateway(tmp_path, SETTINGS.format(port=hosted[0]))
    try:
        with client_of(again) as client:
            assert client.responses.retrieve(begun.id).output_text == "so far whole"
    finally:
        again.kill()
