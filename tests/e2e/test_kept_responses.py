"""Kept responses end to end: the real `openai` SDK over two workers, other tenants, a killed keeper, no retention, money."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.conftest import Gateway, start_gateway, wait_until
from tests.e2e.replay import Replay, serve_replay
from tests.e2e.test_responses import CALL, REASONING, WEATHER, events, response
from tests.e2e.wire import PRICES
from tests.test_serve import children


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with serve_replay() as running:
        yield running


def settings(replay: Replay) -> str:
    config = f'[server]\nworkers = 2\n[providers.mock]\ndialect = "openai-responses"\nbase_url = "{replay.base_url}"\n'
    config += f'[models."mock/gpt"]\n{PRICES}[providers.claude]\ndialect = "anthropic-messages"\nbase_url = "{replay.base_url}"\n'
    return config + f'[models."claude/opus"]\n{PRICES}'


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, replay: Replay) -> Iterator[Gateway]:
    running = start_gateway(tmp_path_factory.mktemp("kept"), settings(replay))
    yield running
    running.kill()


def client_of(gateway: Gateway, key: str | None = None) -> OpenAI:
    return OpenAI(base_url=gateway.url + "/v1", api_key=key or gateway.key, max_retries=0)


@pytest.fixture
def client(served: Gateway) -> Iterator[OpenAI]:
    with client_of(served) as made:
        yield made


def test_a_conversation_goes_on_at_once_whichever_worker_answers(served: Gateway) -> None:
    previous = None
    for turn in range(12):
        with client_of(served) as client:  # a connection of its own: the kernel picks the worker
            if turn % 2:
                with client.responses.stream(model="sim/echo", input=f"turn {turn}", previous_response_id=previous or openai.NOT_GIVEN) as stream:
                    reply = stream.get_final_response()
            else:
                reply = client.responses.create(model="sim/echo", input=f"turn {turn}", previous_response_id=previous)
        assert reply.store is True and reply.previous_response_id == previous
        previous = reply.id
    with client_of(served) as client:
        items = list(client.responses.input_items.list(previous or "", order="asc", limit=5))  # the SDK turns the pages
        assert [item.content[0].text for item in items if item.role == "user"] == [f"turn {turn}" for turn in range(12)]  # type: ignore[union-attr]
        assert len(items) == 23
        newest = client.responses.input_items.list(previous or "", limit=1)
        assert newest.has_more and newest.data[0].content[0].text == "turn 11"  # type: ignore[union-attr]


def test_a_response_is_read_and_deleted(client: OpenAI) -> None:
    made = client.responses.create(model="sim/echo", input="hello")
    assert client.responses.retrieve(made.id).to_dict() == made.to_dict()
    with pytest.raises(openai.ConflictError, match="background"):
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    for gone in (client.responses.retrieve, client.responses.delete, client.responses.cancel, client.responses.input_items.list):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)  # type: ignore[operator]
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="sim/echo", input="and?", previous_response_id=made.id)
    assert (caught.value.code, caught.value.param) == ("previous_response_not_found", "previous_response_id")


def test_what_the_caller_keeps_to_itself_is_not_kept(client: OpenAI) -> None:
    made = client.responses.create(model="sim/echo", input="hello", store=False)
    assert made.store is False
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_nobody_else_finds_it(served: Gateway, client: OpenAI) -> None:
    keys = [served.request("POST", "/v1/sub-accounts", {"name": name})[2]["key"] for name in ("anna", "bert")]
    keys.append(served.request("POST", "/v1/keys", {"name": "alone"})[2]["key"])
    with client_of(served, keys[0]) as anna:
        made = anna.responses.create(model="sim/echo", input="secret")
        assert anna.responses.create(model="sim/echo", input="and?", previous_response_id=made.id).previous_response_id == made.id
        assert anna.responses.retrieve(made.id).id == made.id
    for key in (*keys[1:], None):
        with client_of(served, key) as other:
            for refused in (
                lambda other=other: other.responses.retrieve(made.id),
                lambda other=other: other.responses.delete(made.id),
                lambda other=other: other.responses.input_items.list(made.id),
                lambda other=other: other.responses.create(model="sim/echo", input="and?", previous_response_id=made.id),
            ):
                with pytest.raises(openai.NotFoundError):
                    refused()
    with client_of(served, keys[0]) as anna:
        assert anna.responses.retrieve(made.id).id == made.id


def test_tools_and_thoughts_go_on_with_the_same_format_and_with_another(client: OpenAI, replay: Replay) -> None:
    first = json.loads(response(REASONING, CALL)) | {"id": "resp_tools"}
    replay.answer(200, "application/json", json.dumps(first).encode())
    made = client.responses.create(model="mock/gpt", input="weather?", tools=[WEATHER])
    result: Any = [{"type": "function_call_output", "call_id": "call_1", "output": "rain"}]
    ended = {**json.loads(response()), "id": "resp_told"}
    replay.answer(200, "text/event-stream", events({"type": "response.created", "response": {**ended, "status": "in_progress"}}, {"type": "response.completed", "response": ended}))
    told = list(client.responses.create(model="mock/gpt", input=result, previous_response_id=made.id, tools=[WEATHER], stream=True))[-1]
    sent = json.loads(replay.request)
    assert sent["input"][1:] == [REASONING, CALL, *result] and "weather?" in json.dumps(sent["input"][0])
    assert sent["store"] is False and "previous_response_id" not in sent
    assert told.response.previous_response_id == made.id and told.response.store is True  # type: ignore[union-attr]
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Take a coat."}]}
    message |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 4}}
    replay.answer(200, "application/json", json.dumps(message).encode())
    crossed = client.responses.create(model="claude/opus", input="and a coat?", previous_response_id="resp_told", max_output_tokens=99)
    assert crossed.output_text == "Take a coat." and crossed.previous_response_id == "resp_told"
    said = json.loads(replay.request)["messages"]
    assert [each["role"] for each in said[:3]] == ["user", "assistant", "user"]
    assert "tool_use" in json.dumps(said[1]) and "tool_result" in json.dumps(said[2]) and "and a coat?" in json.dumps(said[-1])


def test_a_stream_whose_end_tells_no_output_is_kept_with_its_items(client: OpenAI, replay: Replay) -> None:
    ended = {**json.loads(response()), "id": "resp_bare"}
    done = {"type": "response.output_item.done", "output_index": 0, "item": CALL}
    begun = {"type": "response.created", "response": {**ended, "status": "in_progress"}}
    replay.answer(200, "text/event-stream", events(begun, done, {"type": "response.completed", "response": ended}))
    last = list(client.responses.create(model="mock/gpt", input="weather?", tools=[WEATHER], stream=True))[-1]
    assert [item.to_dict() for item in last.response.output] == [CALL]  # type: ignore[union-attr]
    assert [item.to_dict() for item in client.responses.retrieve("resp_bare").output] == [CALL]


def test_what_was_said_before_is_counted_and_held_for(served: Gateway, client: OpenAI, replay: Replay) -> None:
    made = client.responses.create(model="sim/echo", input="word " * 2000)
    counted = client.responses.input_tokens.count(model="sim/echo", input="and?", previous_response_id=made.id)
    assert counted.input_tokens > 2000
    holds = []
    for number, previous in enumerate((None, made.id)):
        replay.answer(200, "application/json", json.dumps(json.loads(response(CALL)) | {"id": f"resp_held_{number}"}).encode())
        raw = client.responses.with_raw_response.create(model="mock/gpt", input="and?", previous_response_id=previous, max_output_tokens=10)
        holds.append(raw.headers["x-request-id"])
    shipped = [wait_until(lambda call=call: held(served, call)) for call in holds]
    assert shipped[1] > 2 * shipped[0]


def held(gateway: Gateway, call_id: str) -> int:
    with sqlite3.connect(f"file:{gateway.data_dir / 'gate.sqlite'}?mode=ro", uri=True) as database:
        row = database.execute("SELECT hold_nanousd FROM attempts WHERE call_id = ?", (call_id,)).fetchone()
    return 0 if row is None else row[0]


def test_a_conversation_outlives_the_keeper(start: Any, replay: Replay) -> None:
    gateway = start(settings(replay))
    with client_of(gateway) as client:
        first = client.responses.create(model="sim/echo", input="one")
        client.responses.retrieve(first.id)
        (keeper,) = children(gateway)["keeper"]
        os.kill(keeper, signal.SIGKILL)
        second = client.responses.create(model="sim/echo", input="two")  # handed over to the next keeper
        wait_until(lambda: children(gateway).get("keeper", [keeper]) != [keeper])
        wait_until(lambda: gateway.request("GET", f"/v1/responses/{second.id}")[0] == 200)
        third = client.responses.create(model="sim/echo", input="three", previous_response_id=first.id)
        assert third.previous_response_id == first.id


def test_where_nothing_is_kept_a_conversation_is_sent_whole(start: Any) -> None:
    gateway = start("[responses]\nretention_days = 0\n")
    with client_of(gateway) as client:
        made = client.responses.create(model="sim/echo", input="hello", store=True)
        assert made.store is False
        with pytest.raises(openai.BadRequestError) as caught:
            client.responses.create(model="sim/echo", input="and?", previous_response_id=made.id)
        assert (caught.value.code, caught.value.param) == ("unsupported_parameter", "previous_response_id")
