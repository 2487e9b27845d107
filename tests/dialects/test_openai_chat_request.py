"""Requests of OpenAI chat: the narrow look, the edited pairs, and the neutral form, which must agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.edits import Edit, apply_to_request, plan_edits
from aigate.core.neutral import Media, Message, Opaque, Reasoning, Text, ToolCall
from aigate.core.target import Quirks, Target
from aigate.dialects import DIALECTS
from aigate.dialects.openai_chat_request import PARAMS
from aigate.errors import ClientError
from tests.dialects.recorded import chat_records, needs_recordings, recorded_target, target

CHAT = DIALECTS["openai-chat"]
HI = [{"role": "user", "content": "hi"}]


def call_of(**fields: Any) -> Call:
    return CHAT.read_call(json.dumps({"model": "mock/m", "messages": HI, **fields}).encode(), "chat")


def sent(call: Call, target: Target, edits: tuple[Edit, ...] = ()) -> dict[str, Any]:
    """What reaches the provider; both lanes must say the same."""
    spliced = json.loads(CHAT.edit_pairs(call, edits, target))
    request = CHAT.read_request(call)
    apply_to_request(request, edits)
    assert json.loads(CHAT.write_request(request, target)) == spliced
    return spliced


# --- the narrow look ------------------------------------------------------------------------------------------------------


def test_the_acted_on_fields_are_read() -> None:
    call = call_of(
        model=["mock/a", "mock/b"],
        stream=True,
        stream_options={"include_usage": False},
        max_tokens=5,
        n=2,
        reasoning_effort="low",
        thinking={"type": "enabled", "budget_tokens": 2048},
        fallbacks=["mock/c"],
    )
    assert call.models == ("mock/a", "mock/b")
    assert (call.is_stream, call.include_usage, call.max_output_tokens, call.n) == (True, False, 5, 2)
    assert (call.effort, call.thinking_budget, call.allows_fallback, call.fallbacks) == ("low", 2048, True, ("mock/c",))


def test_null_is_as_good_as_absent() -> None:
    fields = ("model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", "reasoning_effort", "thinking", "fallbacks")
    call = call_of(**dict.fromkeys(fields))
    assert (call.models, call.is_stream, call.include_usage, call.max_output_tokens, call.n) == ((), False, None, None, 1)
    assert (call.effort, call.thinking_budget, call.allows_fallback) == (None, None, True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", 5), ("model", []), ("model", ["a", 1]), ("model", ""), ("messages", "hi"), ("messages", []), ("messages", {}),
        ("messages", None), ("stream", "yes"), ("stream", 1), ("stream_options", True), ("stream_options", {"include_usage": "x"}),
        ("max_tokens", "5"), ("max_tokens", 0), ("max_tokens", 1.5), ("max_tokens", True), ("max_completion_tokens", -1), ("n", 0),
        ("n", 129), ("n", "1"), ("reasoning_effort", 3), ("thinking", "on"), ("thinking", {"budget_tokens": -1}),
        ("thinking", {"type": 1}), ("fallbacks", "a"), ("fallbacks", [1]),
    ],
)  # fmt: skip
def test_a_wrong_type_is_refused_by_name(field: str, value: object) -> None:
    with pytest.raises(ClientError) as caught:
        call_of(**{field: value})
    assert caught.value.status == 400
    assert caught.value.param == field
    assert field in caught.value.message


def test_messages_must_be_there() -> None:
    with pytest.raises(ClientError, match="messages is missing"):
        CHAT.read_call(b'{"model":"m"}', "chat")


@pytest.mark.parametrize(("thinking", "budget"), [({"type": "disabled"}, 0), ({"type": "enabled"}, None), ({"budget_tokens": 9}, 9)])
def test_a_thinking_switch_is_a_budget(thinking: dict[str, Any], budget: int | None) -> None:
    assert call_of(thinking=thinking).thinking_budget == budget


def test_the_smaller_of_two_maxima_holds_and_is_sent_alone() -> None:
    call = call_of(max_tokens=9, max_completion_tokens=4)
    assert call.max_output_tokens == 4
    body = sent(call, target())
    assert (body.get("max_tokens"), body["max_completion_tokens"]) == (None, 4)
    assert sent(call_of(max_tokens=3, max_completion_tokens=4), target())["max_tokens"] == 3


# --- what is sent ---------------------------------------------------------------------------------------------------------


def test_what_need_not_change_is_sent_as_it_came() -> None:
    fields = {"temperature": 0.5, "unknown": {"x": [1, None]}, "seed": 2**60, "stop": ["a"], "max_completion_tokens": 7}
    assert sent(call_of(**fields), target()) == {"model": "upstream", "messages": HI, **fields}


def test_the_gateways_own_fields_are_not_sent() -> None:
    assert sent(call_of(fallbacks=False, routing={"policy": "cost"}, provider_key_id="pk_1"), target()) == {"model": "upstream", "messages": HI}


@pytest.mark.parametrize(
    ("asked", "stream_usage", "wanted"),
    [
        (None, "ask", {"include_usage": True}),
        ({"include_usage": False, "include_obfuscation": False}, "ask", {"include_usage": True, "include_obfuscation": False}),
        ({"include_usage": True}, "unasked", None),
        ({"include_usage": True, "x": 1}, "unasked", {"x": 1}),
        (None, "unasked", None),
    ],
)
def test_usage_of_a_stream_is_asked_for_as_the_provider_takes_it(asked: object, stream_usage: str, wanted: object) -> None:
    fields = {"stream_options": asked} if asked else {}
    assert sent(call_of(stream=True, **fields), target(Quirks(stream_usage=stream_usage))).get("stream_options") == wanted


def test_planned_edits_are_applied() -> None:
    quirks = Quirks(
        spelling={"max_output_tokens": "max_completion_tokens", "seed": "random_seed"},
        unsupported=frozenset({"logit_bias"}),
        clamps={"temperature": (0, 1)},
        values={"tool_choice": {"required": "any"}},
    )
    call = call_of(max_tokens=5, seed=1, logit_bias={"1": 2}, temperature=1.5, tool_choice="required")
    plan = plan_edits(call, target(quirks), PARAMS)
    body = sent(call, target(quirks), plan.edits)
    assert body == {
        "model": "upstream", "messages": HI, "max_completion_tokens": 5, "random_seed": 1, "temperature": 1, "tool_choice": "any"
    }  # fmt: skip


def test_a_call_is_not_changed_by_being_sent() -> None:
    call = call_of(max_tokens=5, stream=True)
    before = {key: bytes(raw) for key, raw in call.pairs.items()}
    sent(call, target(Quirks(spelling={"max_output_tokens": "m"})), (Edit("rename", "max_output_tokens", key="m"),))
    assert {key: bytes(raw) for key, raw in call.pairs.items()} == before


ASSISTANT = {"role": "assistant", "content": "4", "reasoning_content": "2+2", "name": "bot"}


@pytest.mark.parametrize(
    ("quirks", "wanted"),
    [
        (Quirks(), ASSISTANT),
        (Quirks(message_fields_dropped=frozenset({"name"})), {"role": "assistant", "content": "4", "reasoning_content": "2+2"}),
        (Quirks(history_reasoning="drop"), {"role": "assistant", "content": "4", "name": "bot"}),
        (Quirks(history_reasoning="reasoning"), {"role": "assistant", "content": "4", "name": "bot", "reasoning": "2+2"}),
        (
            Quirks(history_reasoning="parts"),
            {
                "role": "assistant",
                "name": "bot",
                "content": [{"type": "thinking", "thinking": [{"type": "text", "text": "2+2"}]}, {"type": "text", "text": "4"}],
            },
        ),
    ],
)
def test_earlier_reasoning_goes_back_as_the_provider_wants_it(quirks: Quirks, wanted: dict[str, Any]) -> None:
    assert sent(call_of(messages=[*HI, ASSISTANT]), target(quirks))["messages"] == [*HI, wanted]


def test_refused_schema_keys_are_cut_at_the_top_of_each_schema() -> None:
    schema = {"$schema": "x", "type": "object", "properties": {"$schema": {"type": "string"}}}
    kept = {key: value for key, value in schema.items() if key != "$schema"}
    call = call_of(
        tools=[{"type": "function", "function": {"name": "f", "parameters": schema}}],
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": schema}},
    )
    body = sent(call, target(Quirks(schema_keys_dropped=frozenset({"$schema"}))))
    assert body["tools"][0]["function"]["parameters"] == kept
    assert body["response_format"]["json_schema"]["schema"] == kept


# --- the neutral form -----------------------------------------------------------------------------------------------------

MESSAGES: list[dict[str, Any]] = [
    {"role": "developer", "content": "be brief", "name": "boss"},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "see", "cache_control": {"type": "ephemeral"}},
            {"type": "image_url", "image_url": {"url": "https://x.invalid/a.png", "detail": "high"}},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}, "prompt_cache_breakpoint": {"mode": "explicit"}},
            {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,CCCC", "filename": "a.pdf"}},
            {"type": "file", "file": {"file_id": "file-1"}},
            {"type": "video_url", "video_url": {"url": "https://x.invalid/v.mp4", "fps": 2}},
            {"type": "hologram", "hologram": [1]},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "hm",
        "tool_calls": [
            {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1'}, "extra_content": {"sig": "x"}},
            {"id": "call_2", "type": "custom", "custom": {"name": "g", "input": "raw"}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_1", "content": [{"type": "text", "text": "7"}]},
    {"role": "assistant", "content": "", "refusal": None, "audio": {"id": "audio_1"}},
    {"role": "assistant", "refusal": "no"},
    {"role": "assistant", "content": [{"type": "text", "text": "x"}, {"type": "refusal", "refusal": "no"}]},
    {"role": "assistant", "content": None, "function_call": {"name": "old", "arguments": "{}"}},
    {"role": "function", "name": "old", "content": "1"},
    {"role": "user", "content": []},
    {"role": "assistant", "content": "x", "tool_calls": [], "reasoning_details": [{"type": "reasoning.text"}]},
]


def test_every_kind_of_message_survives_the_neutral_form() -> None:
    tools = [
        {"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True, "x": 1}},
        {"type": "function", "function": {"name": "g"}, "cache_control": {"type": "ephemeral"}},
        {"type": "custom", "custom": {"name": "h", "format": {"type": "text"}}},
        {"type": "web_search"},
    ]
    body = sent(call_of(messages=MESSAGES, tools=tools, stream=False, functions=[{"name": "old"}]), target())
    assert (body["messages"], body["tools"]) == (MESSAGES, tools)


def test_the_neutral_form_names_what_messages_mean() -> None:
    request = CHAT.read_request(call_of(messages=MESSAGES, max_completion_tokens=3))
    image, pdf = request.messages[1].parts[2], request.messages[1].parts[4]
    assert isinstance(image, Media)
    assert isinstance(pdf, Media)
    assert (image.kind, image.media_type, image.data, image.url) == ("image", "image/png", "AAAA", None)
    assert (pdf.kind, pdf.media_type, pdf.filename) == ("document", "application/pdf", "a.pdf")
    assert isinstance(request.messages[1].parts[-1], Opaque)
    assert [type(part) for part in request.messages[2].parts] == [Reasoning, ToolCall, ToolCall]
    assert request.messages[3].tool_call_id == "call_1"
    assert bytes(request.params["max_output_tokens"]) == b"3"


def test_what_another_dialect_made_is_written_in_this_one() -> None:
    message = Message("user", [Text("see"), Media("image", data="AAAA", media_type="image/png"), Opaque("other", json_raw("{}"))])
    request = CHAT.read_request(call_of())
    request.messages = [message]
    assert json.loads(CHAT.write_request(request, target()))["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]


def json_raw(text: str) -> Any:
    import msgspec

    return msgspec.Raw(text.encode())


@pytest.mark.parametrize("messages", [["hi"], [{"content": "x"}], [{"role": 1}]])
def test_a_message_that_is_none_is_named(messages: list[Any]) -> None:
    with pytest.raises(ClientError, match=r"messages\[0\]"):
        CHAT.read_request(call_of(messages=messages))


# --- recorded requests ----------------------------------------------------------------------------------------------------


def _normal(value: Any) -> Any:
    """Documented equivalences: a tool call without a type is a function's."""
    if isinstance(value, dict):
        value = {key: _normal(entry) for key, entry in value.items()}
        return {"type": "function", **value} if "function" in value and "id" in value else value
    return [_normal(entry) for entry in value] if isinstance(value, list) else value


@needs_recordings
def test_every_recorded_request_reaches_its_provider_equal_in_meaning() -> None:
    for record in chat_records():
        asked = record["request"]
        call = CHAT.read_call(json.dumps(asked).encode(), "chat")
        where = target(upstream_model=asked["model"])
        wanted = {**asked, "stream_options": {**(asked.get("stream_options") or {}), "include_usage": True}} if call.is_stream else asked
        assert json.loads(CHAT.edit_pairs(call, (), where)) == wanted, record["id"]
        assert _normal(json.loads(CHAT.write_request(CHAT.read_request(call), where))) == _normal(wanted), record["id"]


@needs_recordings
def test_both_lanes_send_the_same_under_the_rows_of_today() -> None:
    for record in chat_records():
        call = CHAT.read_call(json.dumps(record["request"]).encode(), "chat")
        where = recorded_target(record)
        plan = plan_edits(call, where, PARAMS)
        request = CHAT.read_request(call)
        apply_to_request(request, plan.edits)
        assert _normal(json.loads(CHAT.write_request(request, where))) == _normal(json.loads(CHAT.edit_pairs(call, plan.edits, where)))
