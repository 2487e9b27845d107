"""The Responses surface end to end: the real `openai` SDK against the gateway, over upstreams of OpenAI chat, Responses and Anthropic."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.conftest import Gateway, start_gateway
from tests.e2e.replay import Replay, serve_replay
from tests.e2e.wire import PRICES

WEATHER: Any = {
    "type": "function",
    "name": "weather",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False},
    "strict": True,
}
NESTED: Any = {"type": "function", "function": {key: WEATHER[key] for key in ("name", "parameters", "strict")}}


@pytest.fixture(scope="module")
def replay() -> Iterator[Replay]:
    with serve_replay() as running:
        yield running


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, replay: Replay) -> Iterator[Gateway]:
    """`mock` speaks Responses only; `openai` both formats, as the vendor does."""
    config = f'[routing]\nretry_base_ms = 1\nbreaker_failures = 1000\n[providers.mock]\ndialect = "openai-responses"\nbase_url = "{replay.base_url}"\n'
    config += f'[providers.claude]\ndialect = "anthropic-messages"\nbase_url = "{replay.base_url}"\n[models."claude/opus"]\n{PRICES}'
    config += f'[models."mock/gpt"]\n{PRICES}[providers.openai]\nbase_url = "{replay.base_url}"\n'
    running = start_gateway(tmp_path_factory.mktemp("responses"), config, {"OPENAI_API_KEY": "sk-test"})
    yield running
    running.kill()


@pytest.fixture
def client(served: Gateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.url + "/v1", api_key=served.key, max_retries=0) as made:
        yield made


# --- Responses clients of a provider that speaks OpenAI chat ----------------------------------------------------------------


def test_a_text_and_its_echo(client: OpenAI) -> None:
    reply = client.responses.create(model="sim/echo", input="hello there", instructions="Be kind.", temperature=0.5, tools=[WEATHER])
    assert "hello there" in reply.output_text
    assert (reply.object, reply.status, reply.model, reply.store) == ("response", "completed", "sim/echo", True)
    assert (reply.instructions, reply.temperature, reply.tools[0].name) == ("Be kind.", 0.5, "weather")  # type: ignore[union-attr]
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens > 0  # type: ignore[union-attr]
    assert reply.usage.cost > 0  # type: ignore[union-attr]
    assert reply.created_at > 1_700_000_000


def test_the_streaming_helper_ends_with_what_the_plain_reply_says(client: OpenAI) -> None:
    plain = client.responses.create(model="sim/echo", input="hello there")
    with client.responses.stream(model="sim/echo", input="hello there") as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert final.output_text == plain.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.usage.to_dict() == plain.usage.to_dict()  # type: ignore[union-attr]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == plain.output_text


def test_parallel_tools_are_called_and_their_results_taken(client: OpenAI) -> None:
    with client.responses.stream(model="sim/tools-2", input="hello", tools=[WEATHER]) as stream:
        final = stream.get_final_response()
    calls = [item for item in final.output if item.type == "function_call"]
    assert [call.name for call in calls] == ["weather", "weather"]
    assert len({call.call_id for call in calls}) == 2 and all("city" in json.loads(call.arguments) for call in calls)
    results: list[Any] = [{"type": "function_call_output", "call_id": call.call_id, "output": "rain"} for call in calls]
    told = client.responses.create(
        model="sim/tools", input=[{"role": "user", "content": "hello"}, *(call.to_dict() for call in calls), *results], tools=[WEATHER]
    )
    assert "rain" in told.output_text


def test_reasoning_is_an_item_before_the_answer(client: OpenAI) -> None:
    plain = client.responses.create(model="sim/reasoning", input="hello", reasoning={"effort": "low", "summary": "auto"})
    with client.responses.stream(model="sim/reasoning", input="hello", reasoning={"effort": "low"}) as stream:
        final = stream.get_final_response()
    for reply in (plain, final):
        assert [item.type for item in reply.output] == ["reasoning", "message"]
        assert reply.usage.output_tokens_details.reasoning_tokens > 0  # type: ignore[union-attr]
    assert plain.output[0].summary[0].text == final.output[0].summary[0].text  # type: ignore[union-attr]
    assert plain.reasoning.effort == "low"  # type: ignore[union-attr]


def test_what_the_target_lacks_is_warned_of_and_refused_when_strict(client: OpenAI) -> None:
    tools: Any = [WEATHER, {"type": "web_search"}]
    raw = client.responses.with_raw_response.create(model="sim/echo", input="hello", tools=tools)
    assert 'param="tools[1]"' in raw.headers["x-aig-warning"]
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="sim/echo", input="hello", tools=tools, extra_headers={"x-aig-strict": "true"})
    assert caught.value.code == "unsupported_parameter"


def test_a_stream_that_breaks_ends_as_a_failed_response(client: OpenAI) -> None:
    *_, last = client.responses.create(model="sim/error-midstream-3", input="hello", stream=True)
    assert (last.type, last.response.status) == ("response.failed", "failed")
    assert last.response.error is not None and last.response.error.message and last.response.error.code == "provider_unavailable"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": 3}, "previous_response_id"),
        ({"store": "no"}, "store"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True, "store": False}, "background"),
        ({"input": []}, "input"),
        ({"input": [{"role": "nobody", "content": "x"}]}, "input[0].role"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"reasoning": 3}, "reasoning"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
    ],
)
def test_bad_input_is_named(client: OpenAI, fields: Any, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(**{"model": "sim/echo", "input": "hello", **fields})
    assert caught.value.param == param


# --- a provider that speaks Responses ----------------------------------------------------------------------------------------

USAGE = {
    "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4}, "output_tokens": 5,
    "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 15,
}  # fmt: skip
REASONING = {"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": "gAAA"}
CALL = {"id": "fc_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "weather", "arguments": '{"city":"Rome"}'}


def response(*output: Any) -> bytes:
    fields = {"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "status": "completed", "model": "gpt-up"}
    return json.dumps({**fields, "output": output, "usage": USAGE, "store": False}).encode()


def test_the_same_format_goes_through_untouched_but_stateless(client: OpenAI, replay: Replay) -> None:
    replay.answer(200, "application/json", response(REASONING, CALL))
    shell: Any = {"type": "shell", "environment": {"type": "local"}}
    reply = client.responses.create(model="mock/gpt", input="hello", tools=[shell], reasoning={"effort": "low"}, extra_body={"new": {"x": 1}})
    sent = json.loads(replay.request)
    assert replay.path.endswith("/v1/responses")
    assert (sent["model"], sent["store"], sent["tools"], sent["new"], sent["reasoning"]) == ("gpt", False, [shell], {"x": 1}, {"effort": "low"})
    assert [item.to_dict() for item in reply.output] == [REASONING, CALL]
    assert (reply.model, reply.id) == ("mock/gpt", "resp_1")


def test_a_chat_client_reaches_it(client: OpenAI, replay: Replay) -> None:
    replay.answer(200, "application/json", response(REASONING, CALL))
    messages: Any = [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": [{"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "call_0", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "call_0", "content": "rain"},
    ]
    schema: Any = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object"}}}
    choice: Any = {"type": "function", "function": {"name": "weather"}}
    raw = client.chat.completions.with_raw_response.create(
        model="mock/gpt", messages=messages, tools=[NESTED], tool_choice=choice, response_format=schema, max_tokens=99, seed=1
    )
    sent = json.loads(replay.request)
    assert sent["input"] == [
        {"type": "message", "role": "system", "content": "Be kind."},
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": "data:image/png;base64,AAAA", "detail": "auto"}],
        },
        {"type": "function_call", "call_id": "call_0", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_0", "output": "rain"},
    ]
    assert sent["tools"] == [WEATHER] and sent["tool_choice"] == {"type": "function", "name": "weather"}
    assert sent["text"] == {"format": {"type": "json_schema", "name": "city", "schema": {"type": "object"}}}
    assert sent["max_output_tokens"] == 99 and "seed" not in sent
    assert raw.headers["x-aig-warning"] == 'dropped;param="seed";reason="this format has no such parameter"'
    reply = raw.parse()
    message = reply.choices[0].message
    assert message.tool_calls[0].function.arguments == '{"city":"Rome"}' and message.tool_calls[0].id == "call_1"  # type: ignore[union-attr,index]
    assert (message.reasoning_content, reply.choices[0].finish_reason) == ("Hm.", "tool_calls")  # type: ignore[attr-defined]
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (10, 5)  # type: ignore[union-attr]
    assert reply.usage.prompt_tokens_details.cached_tokens == 4  # type: ignore[union-attr]


def events(*payloads: dict[str, Any]) -> bytes:
    return b"".join(
        b"event: %b\ndata: %b\n\n" % (fields["type"].encode(), json.dumps({**fields, "sequence_number": number}).encode())
        for number, fields in enumerate(payloads)
    )


def test_a_failure_before_anything_was_said_goes_elsewhere(client: OpenAI, replay: Replay) -> None:
    started = {"id": "resp_1", "object": "response", "status": "in_progress", "output": []}
    failed = {**started, "status": "failed", "error": {"code": "server_error", "message": "no"}}
    body = events({"type": "response.created", "response": started}, {"type": "response.failed", "response": failed})
    replay.answer(200, "text/event-stream", body)
    with client.responses.stream(model="mock/gpt", input="hello", extra_body={"fallbacks": ["sim/echo"]}) as stream:
        assert "hello" in stream.get_final_response().output_text


def test_a_reasoning_model_with_tools_is_asked_by_responses_and_without_by_chat(client: OpenAI, replay: Replay) -> None:
    replay.answer(200, "application/json", response(CALL))
    messages: Any = [{"role": "user", "content": "hello"}]
    client.chat.completions.create(model="openai/gpt-5.5", messages=messages, tools=[NESTED], max_tokens=99)
    sent = json.loads(replay.request)
    assert replay.path.endswith("/responses") and sent["max_output_tokens"] == 99 and sent["include"] == ["reasoning.encrypted_content"]
    chat = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi"}, "finish_reason": "stop"}]}
    replay.answer(200, "application/json", json.dumps(chat).encode())
    client.chat.completions.create(model="openai/gpt-5.5", messages=messages, max_tokens=99)
    assert replay.path.endswith("/chat/completions") and json.loads(replay.request)["max_completion_tokens"] == 99


def test_structured_output_is_parsed(client: OpenAI, replay: Replay) -> None:
    class City(BaseModel):
        name: str

    content = [{"type": "output_text", "text": '{"name":"Rome"}', "annotations": []}]
    message = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": content}
    replay.answer(200, "application/json", response(message))
    parsed = client.responses.parse(model="mock/gpt", input="hello", text_format=City)
    assert parsed.output_parsed == City(name="Rome")
    assert json.loads(replay.request)["text"]["format"]["name"] == "City"
    chat = client.chat.completions.parse(model="mock/gpt", messages=[{"role": "user", "content": "hello"}], response_format=City)
    assert chat.choices[0].message.parsed == City(name="Rome")


# --- counting, and the format of before chat -------------------------------------------------------------------------------------


def test_tokens_are_counted_by_the_provider_where_it_can_and_by_us_elsewhere(client: OpenAI, replay: Replay) -> None:
    replay.answer(200, "application/json", b'{"object":"response.input_tokens","input_tokens":42}')
    asked = client.responses.input_tokens.with_raw_response.count(model="mock/gpt", input="hello", instructions="Be kind.")
    assert asked.parse().input_tokens == 42 and replay.path.endswith("/responses/input_tokens")
    assert json.loads(replay.request) == {"model": "gpt", "input": "hello", "instructions": "Be kind."}
    assert client.responses.input_tokens.count(model="sim/echo", input="hello there").input_tokens == 5


def test_a_prompt_is_completed_by_a_model_that_chats(client: OpenAI) -> None:
    plain = client.completions.create(model="sim/echo", prompt="hello there", max_tokens=50)
    chunks = list(client.completions.create(model="sim/echo", prompt="hello there", max_tokens=50, stream=True, echo=True, stream_options={"include_usage": True}))
    text = plain.choices[0].text
    assert "hello there" in text and (plain.object, plain.model, plain.choices[0].finish_reason) == ("text_completion", "sim/echo", "stop")
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "hello there" + text
    assert chunks[-1].usage == plain.usage and chunks[-1].choices == [] and chunks[-2].choices[0].finish_reason == "stop"


def test_a_prompt_that_is_not_one_text_is_refused(client: OpenAI) -> None:
    for prompt in (["one", "two"], [1, 2, 3], 3):
        with pytest.raises(openai.BadRequestError) as caught:
            client.completions.create(model="sim/echo", prompt=prompt)  # type: ignore[arg-type]
        assert caught.value.param == "prompt"
    raw = client.completions.with_raw_response.create(model="sim/echo", prompt="hello", best_of=2, suffix="!")
    assert 'param="best_of"' in raw.headers["x-aig-warning"] and 'param="suffix"' in raw.headers["x-aig-warning"]
    with pytest.raises(openai.APIError):
        list(client.completions.create(model="sim/error-midstream-3", prompt="hello", stream=True))


# --- a provider that speaks Anthropic's format -------------------------------------------------------------------------------------


def test_a_tool_loop_on_claude_shows_it_its_own_thoughts_again(client: OpenAI, replay: Replay) -> None:
    thinking = {"type": "thinking", "thinking": "Look it up.", "signature": "SIGNED"}
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}}
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-up", "stop_reason": "tool_use", "stop_sequence": None,
        "content": [{"type": "redacted_thinking", "data": "HIDDEN"}, thinking, use], "usage": {"input_tokens": 9, "output_tokens": 7},
    }  # fmt: skip
    replay.answer(200, "application/json", json.dumps(message).encode())
    first = client.responses.create(model="claude/opus", input="weather?", instructions="Be kind.", tools=[WEATHER], max_output_tokens=5000)
    assert [item.type for item in first.output] == ["reasoning", "reasoning", "function_call"]
    assert first.usage.input_tokens == 9  # type: ignore[union-attr]
    sent = json.loads(replay.request)
    assert replay.path.endswith("/messages") and sent["max_tokens"] == 5000 and sent["tools"][0]["input_schema"] == WEATHER["parameters"]
    history: Any = [{"role": "user", "content": "weather?"}, *(item.to_dict() for item in first.output)]
    history.append({"type": "function_call_output", "call_id": first.output[2].call_id, "output": "rain"})  # type: ignore[union-attr]
    client.responses.create(model="claude/opus", input=history, tools=[WEATHER], max_output_tokens=5000)
    sent = json.loads(replay.request)
    assert sent["messages"][1]["content"] == [{"type": "redacted_thinking", "data": "HIDDEN"}, thinking, use]
    (result,) = sent["messages"][2]["content"]
    assert (result["type"], result["tool_use_id"]) == ("tool_result", "toolu_1") and "rain" in json.dumps(result["content"])
    # The same conversation at a provider of another format: nobody's thoughts but its own are sent, and that is said.
    replay.answer(200, "application/json", response(CALL))
    moved = client.responses.with_raw_response.create(model="mock/gpt", input=history, tools=[WEATHER])
    assert [item["type"] for item in json.loads(replay.request)["input"]] == ["message", "function_call", "function_call_output"]
    assert moved.headers["x-aig-warning"].count("reasoning of another provider") == 2


def test_a_conversation_from_openai_goes_on_at_claude_and_back(client: OpenAI, replay: Replay) -> None:
    replay.answer(200, "application/json", response(REASONING, CALL))
    first = client.responses.create(model="mock/gpt", input="weather?", tools=[WEATHER])
    history: Any = [{"role": "user", "content": "weather?"}, *(item.to_dict() for item in first.output)]
    history.append({"type": "function_call_output", "call_id": "call_1", "output": "rain"})
    message = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-up", "stop_reason": "end_turn", "stop_sequence": None,
        "content": [{"type": "text", "text": "Rain."}], "usage": {"input_tokens": 9, "output_tokens": 7},
    }  # fmt: skip
    replay.answer(200, "application/json", json.dumps(message).encode())
    raw = client.responses.with_raw_response.create(model="claude/opus", input=history, tools=[WEATHER], max_output_tokens=99)
    assert "gAAA" not in replay.request.decode() and "reasoning of another provider" in raw.headers["x-aig-warning"]
    second = raw.parse()
    assert second.output_text == "Rain."
    replay.answer(200, "application/json", response(CALL))
    client.responses.create(model="mock/gpt", input=[*history, *(item.to_dict() for item in second.output), {"role": "user", "content": "sure?"}])
    kinds = [(item.get("type", "message"), item.get("encrypted_content")) for item in json.loads(replay.request)["input"]]
    assert kinds[1] == ("reasoning", "gAAA") and [kind for kind, _ in kinds[2:]] == ["function_call", "function_call_output", "message", "message"]
