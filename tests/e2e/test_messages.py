"""The real `anthropic` SDK, unmodified, against a real gateway: the simulated provider (OpenAI chat) behind it, and a provider of its
own format that replays recordings."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI

from tests.dialects.anthropic_recorded import message_streams, plain_messages
from tests.dialects.recorded import needs_recordings
from tests.e2e.replay import Bench, bench

HELLO: Any = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {"name": "weather", "description": "", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A gateway whose provider `claude` replays what it is told to, in Anthropic's format."""
    config = (
        '[providers.claude]\ndialect = "anthropic-messages"\nbase_url = "{url}"\napi_key = "sk-of-the-provider"\n'
        'unpriced = "allow"\n[routing]\nmax_attempts = 1\n'
    )
    with bench(tmp_path_factory.mktemp("messages"), config) as running:
        yield running


@pytest.fixture
def client(served: Bench) -> Iterator[Anthropic]:
    with Anthropic(base_url=served.gateway.url, api_key=served.gateway.key, max_retries=0) as made:
        yield made


@pytest.fixture
def chat(served: Bench) -> Iterator[OpenAI]:
    with OpenAI(base_url=served.gateway.url + "/v1", api_key=served.gateway.key, max_retries=0) as made:
        yield made


def text_of(message: Any) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


# --- a Messages client on a provider of another format --------------------------------------------------------------------


def test_a_message_is_answered_by_a_provider_of_another_format(client: Anthropic) -> None:
    raw = client.messages.with_raw_response.create(model="sim/echo", max_tokens=64, messages=HELLO, system="be kind")
    message = raw.parse()
    assert "hello there" in text_of(message)
    assert (message.type, message.role, message.model, message.stop_reason) == ("message", "assistant", "sim/echo", "end_turn")
    assert message.id.startswith("msg_")
    assert message.usage.input_tokens > 0 and message.usage.output_tokens > 0
    assert message.usage.cost > 0  # type: ignore[attr-defined]
    assert raw.headers["request-id"] == raw.headers["x-request-id"]
    assert message._request_id == raw.headers["request-id"]


@pytest.mark.parametrize("prefix", ["", "/anthropic"])
def test_the_key_may_come_in_either_header(served: Bench, prefix: str) -> None:
    for options in ({"api_key": served.gateway.key}, {"auth_token": served.gateway.key}):
        with Anthropic(base_url=served.gateway.url + prefix, max_retries=0, **options) as client:
            assert text_of(client.messages.create(model="sim/echo", max_tokens=64, messages=HELLO))


def test_the_streaming_helper_folds_text_to_the_plain_message(client: Anthropic) -> None:
    plain = client.messages.create(model="sim/echo", max_tokens=64, messages=HELLO)
    with client.messages.stream(model="sim/echo", max_tokens=64, messages=HELLO) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == text_of(plain) == text_of(final)
    last = [event for event in client.messages.create(model="sim/echo", max_tokens=64, messages=HELLO, stream=True)][-2]
    assert last.usage.to_dict() == plain.usage.to_dict()  # type: ignore[union-attr]
    assert last.usage.cost > 0  # type: ignore[union-attr]
    assert (final.stop_reason, final.model) == (plain.stop_reason, "sim/echo")


def test_parallel_tools_stream_and_their_results_are_taken(client: Anthropic) -> None:
    with client.messages.stream(model="sim/tools-2", max_tokens=64, messages=HELLO, tools=[WEATHER]) as stream:
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [call.name for call in calls] == ["weather", "weather"]
    assert len({call.id for call in calls}) == 2
    assert all("city" in call.input for call in calls)  # type: ignore[operator]
    assert final.stop_reason == "tool_use"
    results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": [{"type": "text", "text": "rain"}]} for call in calls]
    turn: Any = [{"role": "assistant", "content": final.content}, {"role": "user", "content": results}]
    told = client.messages.create(model="sim/tools-2", max_tokens=64, messages=[*HELLO, *turn], tools=[WEATHER])
    assert "rain" in text_of(told)


def test_thinking_of_another_vendor_is_shown_and_does_not_come_back_as_its_own(client: Anthropic, served: Bench) -> None:
    asked: Any = {"model": "sim/reasoning", "max_tokens": 4096, "messages": HELLO, "thinking": {"type": "adaptive"}}
    plain = client.messages.create(**asked)
    with client.messages.stream(**asked) as stream:
        final = stream.get_final_message()
    thoughts = [block for block in final.content if block.type == "thinking"]
    assert [block.thinking for block in thoughts] == [block.thinking for block in plain.content if block.type == "thinking"]
    assert thoughts[0].thinking
    assert plain.usage.output_tokens_details.thinking_tokens > 0  # type: ignore[union-attr]
    served.replay.answer(200, "application/json", PLAIN)
    history: Any = [*HELLO, {"role": "assistant", "content": final.content}, *HELLO]
    raw = client.messages.with_raw_response.create(model="claude/claude-9", max_tokens=64, messages=history)
    assert 'dropped;param="messages[1].content[0]"' in raw.headers["x-aig-warning"]
    sent = json.loads(served.replay.request)
    assert [block["type"] for block in sent["messages"][1]["content"]] == ["text"]
    with pytest.raises(anthropic.BadRequestError, match="strict"):
        client.messages.create(model="claude/claude-9", max_tokens=64, messages=history, extra_headers={"x-aig-strict": "true"})


def test_what_cannot_cross_is_said(client: Anthropic) -> None:
    tools: Any = [{"type": "web_search_20250305", "name": "web_search"}, WEATHER]
    raw = client.messages.with_raw_response.create(model="sim/echo", max_tokens=64, messages=HELLO, tools=tools)
    assert 'dropped;param="tools[0]"' in raw.headers["x-aig-warning"]


def test_errors_have_the_shape_that_the_sdk_reads(client: Anthropic, served: Bench) -> None:
    with pytest.raises(anthropic.NotFoundError) as missing:
        client.messages.create(model="nobody/knows", max_tokens=64, messages=HELLO)
    assert missing.value.body["error"]["type"] == "not_found_error"  # type: ignore[index]
    assert missing.value.request_id
    with pytest.raises(anthropic.NotFoundError, match="anthropic is not live"):
        client.messages.create(model="claude-opus-5.5", max_tokens=64, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        client.messages.create(model="sim/echo", max_tokens=-1, messages=HELLO)
    with pytest.raises(anthropic.BadRequestError, match=r"messages\[0\].content\[1\]"):
        client.messages.create(model="sim/echo", max_tokens=1, messages=[{"role": "user", "content": [{"type": "text", "text": "a"}, {}]}])  # type: ignore[list-item]
    with pytest.raises(anthropic.BadRequestError, match="2026-10-21"):
        client.messages.create(model="sim/echo", max_tokens=1, messages=HELLO, extra_body={"temperature": 1.0})
    with Anthropic(base_url=served.gateway.url, api_key="sk-aig-wrong", max_retries=0) as stranger:
        with pytest.raises(anthropic.AuthenticationError):
            stranger.messages.create(model="sim/echo", max_tokens=1, messages=HELLO)


def test_the_older_version_still_takes_sampling(client: Anthropic) -> None:
    old = {"anthropic-version": "2023-06-01"}
    assert client.messages.create(model="sim/echo", max_tokens=9, messages=HELLO, extra_headers=old, extra_body={"temperature": 0.5}).content


CITED: Any = {"type": "text", "text": "so", "citations": [{"type": "char_location", "cited_text": "s", "document_index": 0, "document_title": None,
              "start_char_index": 0, "end_char_index": 1}]}  # fmt: skip
PAGE: Any = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "a page"}}
ASSISTANT: Any = {"role": "assistant", "content": "yes"}


@pytest.mark.parametrize("model", ["claude/claude-9", "sim/echo"])  # of the same format, and of another one
@pytest.mark.parametrize(
    ("messages", "param"),
    [
        ([*HELLO, {"role": "assistant", "content": [PAGE]}, *HELLO], "messages[1].content[0]"),
        ([{"role": "user", "content": [CITED]}], "messages[0].content[0].citations"),
        ([{"role": "user", "content": [{"type": "search_result", "source": "s", "title": "t", "content": [CITED]}]}], "messages[0].content[0].content[0].citations"),
    ],
)  # fmt: skip
def test_what_the_newer_version_refuses_is_refused_before_anybody_is_asked(client: Anthropic, served: Bench, model: str, messages: Any, param: str) -> None:
    served.replay.request = b""
    for send in (client.messages.create, client.messages.count_tokens):
        more: Any = {"max_tokens": 9} if send == client.messages.create else {}
        with pytest.raises(anthropic.BadRequestError, match="2026-10-21") as caught:
            send(model=model, messages=messages, **more)
        assert caught.value.body["error"]["param"] == param  # type: ignore[index]
    assert served.replay.request == b""


def test_the_older_version_takes_it_and_the_newer_one_what_is_still_legal(client: Anthropic, served: Bench) -> None:
    served.replay.answer(200, "application/json", PLAIN)
    old = {"anthropic-version": "2023-06-01"}
    messages: Any = [{"role": "user", "content": [CITED]}, {"role": "assistant", "content": [CITED]}, *HELLO]
    client.messages.create(model="claude/claude-9", max_tokens=9, messages=messages, extra_headers=old, extra_body={"top_k": 3})
    sent = json.loads(served.replay.request)
    assert (sent["messages"], sent["top_k"], served.replay.headers["anthropic-version"]) == (messages, 3, "2023-06-01")
    legal: Any = [{"role": "user", "content": [{**PAGE, "citations": {"enabled": True}}]}, {"role": "assistant", "content": [CITED]}, *HELLO]
    client.messages.create(model="claude/claude-9", max_tokens=9, messages=legal)
    assert json.loads(served.replay.request)["messages"] == legal
    with pytest.raises(anthropic.BadRequestError, match="is none"):
        client.messages.create(model="claude/claude-9", max_tokens=9, messages=HELLO, extra_headers={"anthropic-version": "latest"})


def test_another_surface_asks_claude_in_the_version_that_has_sampling(chat: OpenAI, served: Bench) -> None:
    served.replay.answer(200, "application/json", PLAIN)
    chat.chat.completions.create(model="claude/claude-9", messages=HELLO, max_tokens=9, temperature=0.5)
    assert (json.loads(served.replay.request).get("temperature"), served.replay.headers["anthropic-version"]) == (0.5, "2023-06-01")


def test_tokens_are_counted_without_a_call(client: Anthropic, served: Bench) -> None:
    raw = client.messages.with_raw_response.count_tokens(model="sim/echo", messages=HELLO, system="be kind")
    assert (raw.headers["x-aig-count"], raw.parse().input_tokens) == ("counted", 2 + 2 + 3 * 2)
    served.replay.answer(200, "application/json", b'{"input_tokens":42}')
    raw = client.messages.with_raw_response.count_tokens(model="claude/claude-9", messages=HELLO, thinking={"type": "adaptive"})
    assert ("x-aig-count" in raw.headers, raw.parse().input_tokens) == (False, 42)
    assert served.replay.path == "/v1/messages/count_tokens"
    assert json.loads(served.replay.request) == {"model": "claude-9", "messages": HELLO, "thinking": {"type": "adaptive"}}


# --- any client on a provider of this format ------------------------------------------------------------------------------

PLAIN = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude-9",
        "content": [
            {"type": "thinking", "thinking": "a greeting", "signature": "c2lnbmVk"},
            {"type": "text", "text": "Hello!"},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
        ],
        "stop_reason": "tool_use",
        "stop_sequence": None,
        "usage": {"input_tokens": 3, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 7, "output_tokens": 11},
    }
).encode()  # fmt: skip


def test_chat_code_reads_a_message(chat: OpenAI, served: Bench) -> None:
    served.replay.answer(200, "application/json", PLAIN)
    tool: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER["input_schema"]}}
    messages: Any = [{"role": "system", "content": "be kind"}, *HELLO]
    reply = chat.chat.completions.create(model="claude/claude-9", messages=messages, tools=[tool], tool_choice="required", stop="x", max_tokens=50)
    choice = reply.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello!", "tool_calls")
    assert choice.message.reasoning_content == "a greeting"  # type: ignore[attr-defined]
    (call,) = choice.message.tool_calls or []
    assert (call.id, json.loads(call.function.arguments)) == ("toolu_1", {"city": "Rome"})  # type: ignore[union-attr]
    assert reply.usage is not None and reply.created > 1_700_000_000
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (15, 11, 26)
    assert reply.usage.prompt_tokens_details.cached_tokens == 5  # type: ignore[union-attr]
    assert json.loads(served.replay.request) == {
        "model": "claude-9",
        "system": "be kind",
        "messages": HELLO,
        "max_tokens": 50,
        "stop_sequences": ["x"],
        "tools": [{"name": "weather", "input_schema": WEATHER["input_schema"]}],
        "tool_choice": {"type": "any"},
    }


@needs_recordings
def test_the_chat_sdk_reads_every_recorded_stream(chat: OpenAI, served: Bench) -> None:
    for record in message_streams():
        served.replay.answer(200, "text/event-stream", record["response"].encode())
        with chat.chat.completions.stream(model="claude/claude-9", messages=HELLO, stream_options={"include_usage": True}) as stream:
            final = stream.get_final_completion()
        texts = [json.loads(line[6:])["delta"] for line in record["response"].split("\n") if line.startswith('data: {"type":"content_block_delta"')]
        assert (final.choices[0].message.content or "") == "".join(delta.get("text", "") for delta in texts), record["id"]
        assert final.usage is not None and final.usage.completion_tokens > 0
        for call in final.choices[0].message.tool_calls or []:
            assert isinstance(json.loads(call.function.arguments), dict)  # type: ignore[union-attr]


@needs_recordings
def test_the_messages_sdk_reads_every_recording_of_its_own_format(client: Anthropic, served: Bench) -> None:
    asked: Any = {"model": "claude/claude-9", "max_tokens": 64, "messages": HELLO}
    for record in plain_messages():
        served.replay.answer(200, "application/json", record["response"].encode())
        raw = client.messages.with_raw_response.create(**asked)
        wanted = json.loads(record["response"])
        assert raw.http_response.json() == {**wanted, "model": "claude/claude-9", "usage": {**wanted["usage"], "cost": 0}}
    for record in message_streams():
        served.replay.answer(200, "text/event-stream", record["response"].encode())
        with client.messages.stream(**asked) as stream:
            final = stream.get_final_message()
        assert final.model == "claude/claude-9"
        assert final.usage.output_tokens > 0


def test_versions_and_betas_are_sent_on(client: Anthropic, served: Bench) -> None:
    served.replay.answer(200, "application/json", PLAIN)
    client.messages.create(model="claude/claude-9", max_tokens=64, messages=HELLO, extra_headers={"anthropic-beta": "one,two"})
    assert served.replay.headers["anthropic-beta"] == "one,two"
    assert served.replay.headers["anthropic-version"] == "2026-10-21"
    assert "x-api-key" not in served.replay.headers


def test_a_provider_that_fails_within_a_stream_is_told_in_the_stream(client: Anthropic, chat: OpenAI, served: Bench) -> None:
    start = b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","content":[],"usage":{"input_tokens":1}}}\n\n'
    text = b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":"so"}}\n\n'
    fault = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}\n\n'
    served.replay.answer(200, "text/event-stream", start + text + fault)
    with pytest.raises(anthropic.APIStatusError, match="Overloaded"):
        with client.messages.stream(model="claude/claude-9", max_tokens=64, messages=HELLO) as stream:
            stream.get_final_message()
    served.replay.answer(200, "text/event-stream", start + text + fault)
    with pytest.raises(openai.APIError, match="Overloaded"):
        list(chat.chat.completions.create(model="claude/claude-9", messages=HELLO, stream=True))


# --- thinking that goes through a chat client and back ---------------------------------------------------------------------

TURN: Any = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude-9",
    "content": [
        {"type": "thinking", "thinking": "I need the \u2602 weather", "signature": "c2lnbmVk"}, {"type": "redacted_thinking", "data": "aGlkZGVu"},
        {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Rome"}},
    ],
    "stop_reason": "tool_use", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 11},
}  # fmt: skip
FUNCTION: Any = {"type": "function", "function": {"name": "weather", "parameters": WEATHER["input_schema"]}}


def streamed(message: Any) -> bytes:
    """A message as its provider streams it, texts in several pieces."""
    events: list[Any] = [{"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}]
    for index, block in enumerate(message["content"]):
        kind = block["type"]
        opened = block if kind == "redacted_thinking" else {**block, "input": {}} if kind == "tool_use" else {"type": kind, "thinking": "", "signature": ""}
        events.append({"type": "content_block_start", "index": index, "content_block": opened})
        deltas: list[Any] = []
        if kind == "thinking":
            deltas = [{"type": "thinking_delta", "thinking": piece} for piece in block["thinking"]]
            deltas.append({"type": "signature_delta", "signature": block["signature"]})
        elif kind == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    events.append({"type": "message_delta", "delta": {"stop_reason": message["stop_reason"], "stop_sequence": None}, "usage": message["usage"]})
    return b"".join(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in [*events, {"type": "message_stop"}])


@pytest.mark.parametrize("is_stream", [False, True])
def test_thinking_comes_back_to_its_model_through_a_chat_client(chat: OpenAI, served: Bench, is_stream: bool) -> None:
    """The client does what clients do: it appends the message that it got."""
    asked: Any = {"model": "claude/claude-9", "messages": HELLO, "tools": [FUNCTION], "max_tokens": 4000, "reasoning_effort": "low"}
    if is_stream:
        served.replay.answer(200, "text/event-stream", streamed(TURN))
        with chat.chat.completions.stream(**asked) as stream:
            message = stream.get_final_completion().choices[0].message
    else:
        served.replay.answer(200, "application/json", json.dumps(TURN).encode())
        message = chat.chat.completions.create(**asked).choices[0].message
    assert message.reasoning_content == "I need the \u2602 weather"  # type: ignore[union-attr]
    back: Any = message.model_dump(exclude_none=True, exclude={"parsed", "tool_calls"})
    back["tool_calls"] = [{"id": call.id, "type": "function", "function": {"name": call.function.name, "arguments": call.function.arguments}} for call in message.tool_calls or []]  # type: ignore[union-attr]
    served.replay.answer(200, "application/json", PLAIN)
    more = [*HELLO, back, {"role": "tool", "tool_call_id": "toolu_1", "content": "rain"}]
    raw = chat.chat.completions.with_raw_response.create(**{**asked, "messages": more})
    sent = json.loads(served.replay.request)["messages"]
    assert sent[1]["content"] == TURN["content"] and sent[2]["content"][0]["tool_use_id"] == "toolu_1"
    assert "x-aig-warning" not in raw.headers
    raw = chat.chat.completions.with_raw_response.create(model="sim/echo", messages=more, max_tokens=50)  # a model of another vendor
    assert 'dropped;param="messages[1].content[0].signature";reason="reasoning of another provider"' in raw.headers["x-aig-warning"]
