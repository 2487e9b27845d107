"""What other formats' requests become for a provider that speaks Anthropic Messages, and what is said of the rest."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from typing import Any

import pytest

from aigate.core.call import Warning
from aigate.core.edits import apply_to_request, plan_request
from aigate.core.neutral import leave_home
from aigate.core.target import Model, Target
from aigate.dialects import DIALECTS
from aigate.dialects.anthropic_schema import lowered
from aigate.dialects.lost import lost_fields
from aigate.dialects.proof import seal
from aigate.errors import ClientError
from aigate.providers.quirks import ANTHROPIC
from tests.dialects.anthropic_recorded import MESSAGES, call_of, messages_target
from tests.dialects.recorded import HEAD

CHAT = DIALECTS["openai-chat"]
HI = [{"role": "user", "content": "hi"}]
PNG = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}


def claude(name: str = "claude-opus-4.6", max_output_tokens: int = 0) -> Target:
    from msgspec.structs import replace

    where = messages_target(name, quirks=next(quirks for glob, quirks in ANTHROPIC if fnmatchcase(name, glob)))
    return replace(where, model=Model(slug=where.slug, is_reasoning=True, max_output_tokens=max_output_tokens))


def sent(where: Target, **fields: Any) -> tuple[dict[str, Any], list[Warning]]:
    """What reaches the provider of a chat request, and the warnings, as an attempt makes them."""
    call = CHAT.read_call(json.dumps({"model": "mock/m", "messages": HI, **fields}).encode(), "chat", HEAD)
    request = CHAT.read_request(call)
    plan = plan_request(call, request, where, CHAT.params)
    apply_to_request(request, plan.edits)
    warnings = [*plan.warnings, *MESSAGES.lost(request, where)]
    leave_home(request, MESSAGES.name)
    body = json.loads(MESSAGES.write_request(request, where))
    assert body.pop("model") == where.upstream_model.replace(".", "-")
    return body, warnings


def params_of(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    where = fields.pop("where", claude())
    body, warnings = sent(where, **fields)
    assert body.pop("messages")
    return body, [f"{warning.kind} {warning.param}" for warning in warnings]


JSON = {"type": "json_object"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "city", "schema": {"type": "object", "properties": {"city": {"type": "string"}}}}}


@pytest.mark.parametrize("name", ["claude-opus-4.6", "claude-sonnet-4-5", "claude-opus-4-1-20250805", "claude-sonnet-4-20250514", "claude-3-5-haiku-latest"])
def test_json_without_a_schema_is_asked_for_in_words(name: str) -> None:
    body, warnings = params_of(where=claude(name), response_format=JSON)
    assert "JSON object" in body["system"]
    assert "output_config" not in body
    assert warnings == ["emulated response_format"]


def test_what_is_said_of_json_comes_after_the_callers_instructions() -> None:
    body, _ = params_of(response_format=JSON, messages=[{"role": "system", "content": "be kind"}, *HI])
    assert body["system"].startswith("be kind\n\n")


@pytest.mark.parametrize(("name", "is_bound"), [("claude-sonnet-4-5", True), ("claude-opus-4.1", True), ("claude-sonnet-4-20250514", False), ("claude-3-7-sonnet", False)])
def test_a_schema_binds_the_models_that_take_one_and_is_told_to_the_others(name: str, is_bound: bool) -> None:
    body, warnings = params_of(where=claude(name), response_format=SCHEMA)
    assert ("output_config" in body) is is_bound
    assert ('"properties"' in body.get("system", "")) is not is_bound
    assert warnings == ([] if is_bound else ["emulated response_format"])


def test_plain_text_needs_no_words() -> None:
    assert params_of(response_format={"type": "text"}) == ({"max_tokens": 8192}, [])


def test_a_bound_is_made_where_none_was_asked() -> None:
    assert params_of() == ({"max_tokens": 8192}, [])
    assert params_of(where=claude(max_output_tokens=128_000)) == ({"max_tokens": 32_768}, [])
    assert params_of(max_completion_tokens=7, stop=["a", "b"], temperature=2) == (
        {"max_tokens": 7, "stop_sequences": ["a", "b"], "temperature": 1},
        ["clamped temperature"],
    )


@pytest.mark.parametrize(
    ("model", "asked", "thinking", "config"),
    [
        ("claude-opus-4.6", "high", {"type": "adaptive", "display": "summarized"}, {"effort": "high"}),
        ("claude-opus-4.6", "none", {"type": "disabled"}, None),
        ("claude-opus-5.5", "minimal", {"type": "adaptive", "display": "summarized"}, {"effort": "low"}),
        ("claude-sonnet-5.5", "none", {"type": "between_tools"}, None),
        ("claude-sonnet-4.5", "medium", {"type": "enabled", "budget_tokens": 8192}, None),
        ("claude-sonnet-4.5", "none", None, None),
    ],
)
def test_effort_becomes_what_the_model_takes(model: str, asked: str, thinking: Any, config: Any) -> None:
    body, _ = params_of(where=claude(model), reasoning_effort=asked, max_tokens=20_000)
    assert (body.get("thinking"), body.get("output_config")) == (thinking, config)


def test_a_budget_becomes_effort_where_budgets_are_refused() -> None:
    body, warnings = params_of(where=claude("claude-opus-5"), thinking={"type": "enabled", "budget_tokens": 9000})
    assert (body["thinking"]["type"], body["output_config"], warnings) == ("adaptive", {"effort": "medium"}, [])
    body, _ = params_of(where=claude("claude-opus-4.5"), thinking={"type": "enabled", "budget_tokens": 9000}, max_tokens=3000)
    assert body["thinking"] == {"type": "enabled", "budget_tokens": 2999}


def test_a_budget_model_does_not_think_where_it_cannot_and_that_is_said() -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    body, warnings = params_of(where=claude("claude-opus-4.5"), reasoning_effort="high", tools=[tool], tool_choice="required")
    assert ("thinking" in body, warnings) == (False, ["dropped reasoning_effort"])
    turn: Any = [*HI, {"role": "assistant", "tool_calls": [{"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}]
    turn.append({"role": "tool", "tool_call_id": "a", "content": "x"})
    body, warnings = params_of(where=claude("claude-opus-4.5"), reasoning_effort="high", tools=[tool], messages=turn)
    assert ("thinking" in body, warnings) == (False, ["dropped reasoning_effort"])


def test_tool_choice_and_parallelism() -> None:
    tools = [{"type": "function", "function": {"name": "f", "description": "d", "strict": True}}]
    written = [{"name": "f", "description": "d", "strict": True, "input_schema": {"type": "object", "properties": {}}}]
    named = {"type": "function", "function": {"name": "f"}}
    for asked, choice in [("auto", {"type": "auto"}), ("none", {"type": "none"}), ("required", {"type": "any"}), (named, {"type": "tool", "name": "f"})]:
        body, warnings = params_of(tools=tools, tool_choice=asked)
        assert (body["tools"], body["tool_choice"], warnings) == (written, choice, [])
    assert params_of(tools=tools, parallel_tool_calls=False)[0]["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}
    body, warnings = params_of(where=claude("claude-opus-5.5"), tools=tools, tool_choice="required")
    assert (body["tool_choice"], warnings) == ({"type": "auto"}, ["clamped tool_choice"])


def test_structured_output_user_and_tier() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, "strict": True}}
    body, warnings = params_of(response_format=form, user="u1", service_tier="default")
    assert body["output_config"] == {"format": {"type": "json_schema", "schema": schema}}
    assert (body["metadata"], body["service_tier"], warnings) == ({"user_id": "u1"}, "standard_only", [])


def test_what_has_no_place_is_named() -> None:
    body, warnings = params_of(seed=1, n=2, logit_bias={"1": 2}, response_format={"type": "json_object"}, logprobs=False, presence_penalty=0)
    assert body.keys() == {"max_tokens", "system"}
    assert warnings == ["dropped seed", "dropped n", "dropped logit_bias", "emulated response_format"]
    body, warnings = params_of(where=claude("claude-opus-4.8"), temperature=0.2, top_p=0.9)
    assert (body, sorted(warnings)) == ({"max_tokens": 8192}, ["dropped temperature", "dropped top_p"])


# --- messages -------------------------------------------------------------------------------------------------------------


def test_instructions_stand_first_and_late_ones_are_moved_with_a_warning() -> None:
    messages = [{"role": "system", "content": "a"}, {"role": "developer", "content": "b"}, *HI, {"role": "system", "content": "c"}]
    body, warnings = sent(claude(), messages=messages)
    assert (body["system"], body["messages"]) == ("a\n\nb\n\nc", HI)
    assert [(warning.kind, warning.param) for warning in warnings] == [("moved", "messages[3]")]


def test_results_of_one_turn_go_into_one_message() -> None:
    calls = [{"id": f"call:{n}", "type": "function", "function": {"name": "f", "arguments": text}} for n, text in enumerate(['{"a":1}', ""])]
    messages: Any = [*HI, {"role": "assistant", "content": "so", "tool_calls": calls}]
    messages += [{"role": "tool", "tool_call_id": "call:0", "content": "x"}, {"role": "tool", "tool_call_id": "call:1", "content": [PNG]}]
    body, warnings = sent(claude(), messages=[*messages, {"role": "user", "content": "go on"}])
    _, assistant, results, user = body["messages"]
    first, second = [block["id"] for block in assistant["content"][1:]]
    assert assistant["content"][0] == {"type": "text", "text": "so"}
    assert [block["input"] for block in assistant["content"][1:]] == [{"a": 1}, {}]
    assert (results["role"], user) == ("user", {"role": "user", "content": "go on"})
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    assert results["content"] == [
        {"type": "tool_result", "tool_use_id": first, "content": "x"},
        {"type": "tool_result", "tool_use_id": second, "content": [image]},
    ]
    assert first != second and ":" not in first + second
    assert not warnings


def test_media_and_what_is_not_taken() -> None:
    parts = [
        {"type": "text", "text": "see"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "file", "file": {"file_id": "file-1"}},
    ]
    body, warnings = sent(claude(), messages=[{"role": "user", "content": parts}])
    assert body["messages"][0]["content"] == [
        {"type": "text", "text": "see"},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
        {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}, "title": "a.pdf"},
    ]
    assert [warning.param for warning in warnings] == ["messages[0].content[3]", "messages[0].content[4]"]


def test_reasoning_without_this_vendors_proof_is_left_out_and_named() -> None:
    messages = [*HI, {"role": "assistant", "content": "so", "reasoning_content": "hm"}, *HI]
    body, warnings = sent(claude(), messages=messages)
    assert body["messages"][1] == {"role": "assistant", "content": "so"}
    assert [(warning.kind, warning.param) for warning in warnings] == [("dropped", "messages[1].content[0]")]


def test_a_conversation_that_changed_its_vendor_is_sorted_in_its_own_format_too() -> None:
    own = {"type": "thinking", "thinking": "mine", "signature": "c2ln"}
    blocks = [{"type": "thinking", "thinking": "theirs", "signature": seal("gemini", "p\0")}, own, {"type": "text", "text": "so"}]
    call = call_of(messages=[*HI, {"role": "assistant", "content": blocks}, *HI])
    assert call.holds_proofs
    request = MESSAGES.read_request(call)
    assert [warning.param for warning in MESSAGES.lost(request, claude())] == ["messages[1].content[0]"]
    assert json.loads(MESSAGES.write_request(request, claude()))["messages"][1]["content"] == blocks[1:]


def test_a_foreign_proof_of_a_call_comes_back_with_its_call() -> None:
    proof = {"type": "redacted_thinking", "data": seal("gemini", "sig\1call")}
    call = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    request = MESSAGES.read_request(call_of(messages=[*HI, {"role": "assistant", "content": [proof, call]}]))
    (part,) = request.messages[1].parts
    assert (part.signature, part.origin) == ("sig", "gemini")  # type: ignore[union-attr]


# --- the other way --------------------------------------------------------------------------------------------------------


def crossed(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    """What a chat provider gets of a message, and the warnings."""
    from tests.dialects.recorded import target

    call = call_of(**fields)
    request = MESSAGES.read_request(call)
    plan = plan_request(call, request, target(), MESSAGES.params)
    apply_to_request(request, plan.edits)
    warnings = [*plan.warnings, *CHAT.lost(request, target())]
    leave_home(request, CHAT.name)
    return json.loads(CHAT.write_request(request, target())), [f"{warning.kind} {warning.param}" for warning in warnings]


def test_a_message_request_becomes_a_chat_request() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
    body, warnings = crossed(
        system=[{"type": "text", "text": "be", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "kind"}],
        stop_sequences=["x"],
        top_k=4,
        thinking={"type": "adaptive"},
        output_config={"effort": "max", "format": {"type": "json_schema", "schema": schema}},
        metadata={"user_id": "u"},
        tools=[{"name": "f", "description": "d", "input_schema": schema}],
        tool_choice={"type": "tool", "name": "f", "disable_parallel_tool_use": True},
    )
    assert body["messages"][0] == {"role": "system", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "kind"}]}
    assert (body["stop"], body["top_k"], body["reasoning_effort"], body["max_tokens"]) == (["x"], 4, "max", 64)
    assert body["response_format"]["json_schema"] == {"name": "output", "schema": schema, "strict": True}
    assert body["tools"] == [{"type": "function", "function": {"name": "f", "description": "d", "parameters": schema}}]
    assert body["tool_choice"] == {"type": "function", "function": {"name": "f"}}
    assert (body["parallel_tool_calls"], body["safety_identifier"]) == (False, "u")
    assert {"system", "thinking", "output_config", "metadata"}.isdisjoint(body)
    assert warnings == []


def test_results_come_before_text_and_their_images_after() -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    results = [
        {"type": "tool_result", "tool_use_id": "a", "content": [{"type": "text", "text": "x"}, image], "is_error": True},
        {"type": "tool_result", "tool_use_id": "b"},
        {"type": "text", "text": "go on"},
    ]
    body, warnings = crossed(messages=[*HI, {"role": "user", "content": results}])
    assert body["messages"][1:] == [
        {"role": "tool", "tool_call_id": "a", "content": [{"type": "text", "text": "x"}]},
        {"role": "tool", "tool_call_id": "b", "content": ""},
        {"role": "user", "content": [PNG, {"type": "text", "text": "go on"}]},
    ]
    assert warnings == ["dropped messages[1].content[0].is_error", "moved messages[1].content[0]"]


def test_files_and_documents_that_chat_cannot_hold_are_named() -> None:
    blocks = [
        {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
        {"type": "document", "source": {"type": "url", "url": "https://example.com/a.pdf"}},
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "words"}, "title": "a.txt"},
        {"type": "text", "text": "see"},
    ]
    body, warnings = crossed(messages=[{"role": "user", "content": blocks}])
    file = {"filename": "a.txt", "file_data": "data:text/plain;base64,d29yZHM="}
    assert body["messages"][0]["content"] == [{"type": "file", "file": file}, {"type": "text", "text": "see"}]
    assert warnings == ["dropped messages[0].content[0]", "dropped messages[0].content[1]"]


def test_citations_cross_with_their_places() -> None:
    from aigate.core.usage import NOTHING
    from aigate.dialects.dialect import Settlement

    cited = {"type": "web_search_result_location", "url": "https://a", "title": "A", "encrypted_index": "e", "cited_text": "x"}
    content = [{"type": "text", "text": "So "}, {"type": "text", "text": "it is", "citations": [cited]}]
    message = {"id": "msg_1", "type": "message", "content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}
    reply = MESSAGES.read_reply(json.dumps(message).encode(), claude())
    leave_home(reply, CHAT.name)
    there = CHAT.write_reply(reply, "m", Settlement(NOTHING, 0))
    place = {"url": "https://a", "title": "A", "start_index": 3, "end_index": 8}
    assert json.loads(there)["choices"][0]["message"]["annotations"] == [{"type": "url_citation", "url_citation": place}]
    from tests.dialects.recorded import target

    back = CHAT.read_reply(there, target())
    leave_home(back, MESSAGES.name)
    (block,) = json.loads(MESSAGES.write_reply(back, "m", Settlement(NOTHING, 0)))["content"]
    assert (block["text"], [(entry["url"], entry["title"]) for entry in block["citations"]]) == ("So it is", [("https://a", "A")])


def test_the_code_that_the_vendors_clients_switch_on_comes_through() -> None:
    said = {"type": "invalid_request_error", "message": "no", "details": {"error_code": "thread_not_found", "account": "acc"}}
    error = MESSAGES.read_error(400, {}, json.dumps({"type": "error", "error": said}).encode())
    assert json.loads(MESSAGES.write_error(error, "req_1"))["error"]["details"] == {"error_code": "thread_not_found"}


def test_a_conversation_that_another_provider_keeps_cannot_cross() -> None:
    call = call_of(thread={"type": "continue", "previous_message_id": "msg_1"})
    with pytest.raises(ClientError) as caught:
        lost_fields(MESSAGES.read_request(call), "openai-chat")
    told = json.loads(MESSAGES.write_error(caught.value, "req_1"))["error"]
    assert (told["param"], told["details"]["error_code"]) == ("thread", "thread_unsupported_request")


def test_a_schema_admits_no_more_than_the_callers() -> None:
    schema = {
        "$schema": "x", "type": "object", "required": ["a"],
        "properties": {
            "a": {"type": "integer", "minimum": 1},
            "b": {"oneOf": [{"type": "string", "format": "uri"}, {"type": "array", "items": {"type": "object"}, "minItems": 2}]},
        },
    }  # fmt: skip
    taken, told = lowered(schema)
    free = {"type": "object", "additionalProperties": False, "description": "{additionalProperties: True}"}
    assert taken == {
        "type": "object", "required": ["a"], "additionalProperties": False,
        "properties": {
            "a": {"type": "integer", "description": "{minimum: 1}"},
            "b": {"anyOf": [
                {"type": "string", "format": "uri"},
                {"type": "array", "items": free, "description": "{minItems: 2}"},
            ]},
        },
    }  # fmt: skip
    assert sorted(told) == ["additionalProperties", "minItems", "minimum"]
