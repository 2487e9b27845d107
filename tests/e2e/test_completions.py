"""Legacy completions with the real `openai` SDK: what a chat model is asked, what comes back, and what is said of the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI

from tests.e2e.replay import Bench, bench

SETTINGS = "[routing]\nmax_attempts = 1\n" + "".join(
    f'[providers.{name}]\ndialect = "{dialect}"\nbase_url = "{{url}}"\napi_key = "sk-of-the-provider"\nunpriced = "allow"\n'
    for name, dialect in (("chat", "openai-chat"), ("claude", "anthropic-messages"))
)
TOKENS = [{"token": token, "logprob": -0.5, "bytes": None, "top_logprobs": [{"token": token, "logprob": -0.5, "bytes": None}]} for token in ("Hi", " there")]
REPLY = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "m", "usage": {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4},
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "Hi there"}, "logprobs": {"content": TOKENS}, "finish_reason": "stop"}],
}  # fmt: skip
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "Hi there"}], "stop_reason": "end_turn",
    "stop_sequence": None, "usage": {"input_tokens": 2, "output_tokens": 2},
}  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    with bench(tmp_path_factory.mktemp("completions"), SETTINGS) as running:
        yield running


@pytest.fixture
def client(served: Bench) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.gateway.url + "/v1", api_key=served.gateway.key, max_retries=0) as made:
        yield made


def warnings_of(served: Bench, client: OpenAI, model: str = "chat/gpt", **asked: Any) -> str:
    served.replay.answer(200, "application/json", json.dumps(MESSAGE if model.startswith("claude") else REPLY).encode())
    raw = client.completions.with_raw_response.create(model=model, prompt="hello", **asked)
    return raw.headers.get("x-aig-warning", "")


def test_log_probabilities_come_in_the_columns_of_this_format(served: Bench, client: OpenAI) -> None:
    served.replay.answer(200, "application/json", json.dumps(REPLY).encode())
    answer = client.completions.create(model="chat/gpt", prompt="hello", logprobs=1, stop=["x"], max_tokens=9, seed=3)
    sent = json.loads(served.replay.request)
    assert sent == {"model": "gpt", "messages": [{"role": "user", "content": "hello"}], "logprobs": True, "top_logprobs": 1, "stop": ["x"], "max_tokens": 9, "seed": 3}
    columns = answer.choices[0].logprobs
    assert columns is not None
    assert (columns.tokens, columns.token_logprobs, columns.text_offset) == (["Hi", " there"], [-0.5, -0.5], [0, 2])
    assert columns.top_logprobs == [{"Hi": -0.5}, {" there": -0.5}]


def test_in_a_stream_offsets_go_on_from_piece_to_piece(served: Bench, client: OpenAI) -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "m"}
    pieces = [{**head, "choices": [{"index": 0, "delta": {"content": token["token"]}, "logprobs": {"content": [token]}, "finish_reason": None}]} for token in TOKENS]
    end = {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}], "usage": REPLY["usage"]}
    served.replay.answer(200, "text/event-stream", b"".join(f"data: {json.dumps(chunk)}\n\n".encode() for chunk in (*pieces, end)) + b"data: [DONE]\n\n")
    chunks = list(client.completions.create(model="chat/gpt", prompt="hello", logprobs=1, stream=True))
    assert [chunk.choices[0].logprobs.text_offset for chunk in chunks if chunk.choices and chunk.choices[0].logprobs] == [[0], [2]]


@pytest.mark.parametrize("silent", [{"best_of": 1}, {"suffix": ""}, {"best_of": None, "suffix": None}, {"echo": True}, {"logprobs": 2}, {"user": "u"}])
def test_what_loses_nothing_is_not_warned_of(served: Bench, client: OpenAI, silent: dict[str, Any]) -> None:
    assert warnings_of(served, client, **silent) == ""


@pytest.mark.parametrize(
    ("model", "asked", "warned"),
    [
        ("chat/gpt", {"best_of": 3}, ["best_of"]),
        ("chat/gpt", {"suffix": "!"}, ["suffix"]),
        ("claude/claude-9", {"logprobs": 2}, ["logprobs"]),
        ("claude/claude-9", {"best_of": 2, "logit_bias": {"50256": -100}}, ["best_of", "logit_bias"]),
    ],
)
def test_what_is_lost_is_named_once_as_it_was_spelt(served: Bench, client: OpenAI, model: str, asked: dict[str, Any], warned: list[str]) -> None:
    said = warnings_of(served, client, model, **asked)
    assert [item.split(";")[1] for item in said.split(", ")] == [f'param="{name}"' for name in warned]
    assert all(item.startswith("dropped;") for item in said.split(", "))


def test_several_choices_of_a_model_that_makes_one_are_made_one_by_one(served: Bench, client: OpenAI) -> None:
    served.replay.answer(200, "application/json", json.dumps(MESSAGE).encode())
    answer = client.completions.create(model="claude/claude-9", prompt="hello", n=2, best_of=2, echo=True)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "helloHi there"), (1, "helloHi there")]


@pytest.mark.parametrize(
    ("asked", "param"), [({"echo": True, "logprobs": 1}, "logprobs"), ({"n": 3, "best_of": 2}, "best_of"), ({"logprobs": 9}, "logprobs"), ({"best_of": 0}, "best_of")]
)
def test_what_no_chat_model_can_do_is_refused_by_its_field(served: Bench, client: OpenAI, asked: dict[str, Any], param: str) -> None:
    served.replay.request = b""
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(model="chat/gpt", prompt="hello", **asked)
    assert caught.value.param == param
    assert served.replay.request == b""
