"""Requests of OpenAI Responses: what is refused, what is sent, and what crosses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from aigate.core.edits import Edit, plan_edits
from aigate.core.neutral import Request, leave_home
from aigate.core.target import Quirks
from aigate.dialects import DIALECTS
from aigate.dialects.lost import lost_fields
from aigate.dialects.proof import seal
from aigate.errors import ClientError
from tests.dialects.formats import FORMATS, call_of, records
from tests.dialects.recorded import HEAD, needs_recordings, target

RESPONSES, CHAT = DIALECTS["openai-responses"], DIALECTS["openai-chat"]


def read(**fields: Any) -> Any:
    return RESPONSES.read_call(json.dumps({"model": "a/b", "input": "hi", **fields}).encode(), "responses", HEAD)


def request(**fields: Any) -> Request:
    return RESPONSES.read_request(read(**fields))


def to_chat(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    """(what OpenAI chat gets, the params of the warnings)."""
    asked = request(**fields)
    warnings = lost_fields(asked, CHAT.name) + CHAT.lost(asked, target())
    leave_home(asked, CHAT.name)
    return json.loads(CHAT.write_request(asked, target())), [warning.param for warning in warnings]


def from_chat(**fields: Any) -> tuple[dict[str, Any], list[str]]:
    body = json.dumps({"model": "a/b", "messages": [{"role": "user", "content": "hi"}], **fields}).encode()
    asked = CHAT.read_request(CHAT.read_call(body, "chat", HEAD))
    warnings = RESPONSES.lost(asked, target())
    leave_home(asked, RESPONSES.name)
    return json.loads(RESPONSES.write_request(asked, target())), [warning.param for warning in warnings]


# --- the narrow look ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": None}, "input"),
        ({"input": {}}, "input"),
        ({"input": []}, "input"),
        ({"text": "json"}, "text"),
        ({"reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"stream": "yes"}, "stream"),
        ({"Input": "hi"}, "Input"),
        ({"prompt": {"id": "pmpt_1"}}, "prompt"),
    ],
)
def test_what_cannot_be_acted_on_is_refused_by_name(fields: Any, param: str) -> None:
    with pytest.raises(ClientError) as caught:
        read(**fields)
    assert caught.value.param == param


def test_what_is_null_is_not_asked() -> None:
    call = read(previous_response_id=None, conversation=None, background=None, reasoning=None, text=None, max_output_tokens=None)
    assert (call.effort, call.max_output_tokens) == (None, None)


# --- the fast lane ------------------------------------------------------------------------------------------------------------


def test_edits_reach_inside_the_nested_objects() -> None:
    call = read(reasoning={"effort": "max", "summary": "auto"}, text={"verbosity": "low", "format": {"type": "text"}}, new=[1])
    plan = plan_edits(call, target(Quirks(effort=("low", "high"), unsupported=frozenset({"verbosity"}))), RESPONSES.params)
    sent = json.loads(RESPONSES.edit_pairs(call, plan.edits, target()))
    assert sent["reasoning"] == {"effort": "high", "summary": "auto"}
    assert sent["text"] == {"format": {"type": "text"}} and sent["new"] == [1]
    assert [(warning.kind, warning.param) for warning in plan.warnings] == [("clamped", "reasoning_effort"), ("dropped", "text.verbosity")]
    assert "text" not in json.loads(RESPONSES.edit_pairs(read(text={"verbosity": "low"}), (Edit("drop", "verbosity"),), target()))


def test_a_reasoning_model_is_asked_for_its_thoughts_in_a_form_that_travels() -> None:
    reasoner = replace(target(), model=replace(target().model, is_reasoning=True))
    for given, expected in (({}, []), ({"include": ["file_search_call.results"]}, ["file_search_call.results"])):
        for sent in (RESPONSES.edit_pairs(read(**given), (), reasoner), RESPONSES.write_request(request(**given), reasoner)):
            assert json.loads(sent)["include"] == [*expected, "reasoning.encrypted_content"]


# --- to OpenAI chat -----------------------------------------------------------------------------------------------------------


def test_instructions_and_items_become_messages() -> None:
    sent, warnings = to_chat(
        instructions="Be kind.",
        input=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "input_text", "text": "see"}, {"type": "input_image", "image_url": "https://x/y.png", "detail": "low"}]},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "one"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "message", "role": "assistant", "id": "msg_1", "status": "completed", "content": [{"type": "output_text", "text": "So.", "annotations": []}]},
        ],
    )
    roles = [message["role"] for message in sent["messages"]]
    assert roles == ["system", "developer", "user", "assistant", "tool", "tool", "assistant"]
    assert [call["id"] for call in sent["messages"][3]["tool_calls"]] == ["c1", "c2"]
    assert sent["messages"][2]["content"][1] == {"type": "image_url", "image_url": {"url": "https://x/y.png", "detail": "low"}}
    assert sent["messages"][6]["content"] == "So." and warnings == []


def test_parameters_take_the_shape_of_chat() -> None:
    schema = {"type": "object", "properties": {}}
    sent, warnings = to_chat(
        text={"format": {"type": "json_schema", "name": "x", "schema": schema, "strict": True}, "verbosity": "low"},
        tools=[{"type": "function", "name": "f", "parameters": schema}, {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "regex", "definition": "a"}}],
        tool_choice={"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "f"}]},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        reasoning={"effort": "low", "summary": "auto"},
        truncation="auto",
        max_output_tokens=9,
        store=True,
    )
    assert sent["response_format"] == {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    assert sent["tools"][0] == {"type": "function", "function": {"name": "f", "parameters": schema}}
    assert sent["tools"][1]["custom"]["format"] == {"type": "grammar", "grammar": {"syntax": "regex", "definition": "a"}}
    assert sent["tool_choice"]["allowed_tools"]["tools"] == [{"type": "function", "function": {"name": "f"}}]
    assert (sent["verbosity"], sent["reasoning_effort"], sent["max_tokens"], sent["logprobs"], sent["top_logprobs"]) == ("low", "low", 9, True, 2)
    assert warnings == [] and "store" not in sent


def test_what_only_responses_has_is_lost_by_name() -> None:
    sent, warnings = to_chat(
        input=[{"role": "user", "content": "hi"}, {"type": "web_search_call", "id": "ws_1", "status": "completed"}, {"type": "compaction", "encrypted_content": "x"}],
        tools=[{"type": "web_search"}],
        tool_choice={"type": "web_search_preview"},
        max_tool_calls=3,
        parallel_tool_calls=True,
    )
    assert warnings == ["max_tool_calls", "tool_choice", "messages[1].content[0]", "messages[1].content[1]", "tools[0]"]
    assert {"tools", "tool_choice", "parallel_tool_calls"}.isdisjoint(sent)


# --- from OpenAI chat ---------------------------------------------------------------------------------------------------------


def test_chat_only_parameters_are_lost_by_name_unless_they_say_nothing() -> None:
    sent, warnings = from_chat(stop=["a"], seed=1, n=1, logit_bias={"1": 2}, presence_penalty=None, stream_options=None, temperature=0.5, logprobs=True)
    assert warnings == ["stop", "seed", "logit_bias"]
    assert sent["temperature"] == 0.5 and sent["include"] == ["message.output_text.logprobs"]
    assert {"stop", "seed", "n", "logit_bias", "logprobs", "presence_penalty"}.isdisjoint(sent)


def test_an_unsaid_strict_is_said_as_false() -> None:
    sent, _ = from_chat(tools=[{"type": "function", "function": {"name": "f"}}])
    assert sent["tools"] == [{"type": "function", "name": "f", "parameters": {"type": "object", "properties": {}}, "strict": False}]


def test_custom_tools_their_calls_and_results_cross_both_ways() -> None:
    tool = {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "s: A"}}}}
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "custom", "custom": {"name": "g", "input": "raw"}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "done"},
    ]
    sent, warnings = from_chat(messages=messages, tools=[tool], tool_choice={"type": "custom", "custom": {"name": "g"}})
    assert sent["input"][1:] == [
        {"type": "custom_tool_call", "call_id": "c1", "name": "g", "input": "raw"},
        {"type": "custom_tool_call_output", "call_id": "c1", "output": "done"},
    ]
    assert sent["tools"] == [{"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "s: A"}}]
    assert sent["tool_choice"] == {"type": "custom", "name": "g"} and warnings == []
    back, _ = to_chat(input=sent["input"], tools=sent["tools"])
    assert back["tools"] == [tool] and back["messages"][1]["tool_calls"] == messages[1]["tool_calls"]  # type: ignore[index]


def test_functions_of_before_tools_find_their_answers() -> None:
    messages = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        {"role": "function", "name": "f", "content": "done"},
    ]
    sent, _ = from_chat(messages=messages)
    call, output = sent["input"][1:]
    assert call["call_id"] and call["call_id"] == output["call_id"] and output["output"] == "done"


def test_pdfs_need_a_name_and_audio_has_no_place() -> None:
    parts = [
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        {"type": "text", "text": "?"},
    ]
    sent, warnings = from_chat(messages=[{"role": "user", "content": parts}])
    assert sent["input"][0]["content"] == [
        {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA", "filename": "document.pdf"},
        {"type": "input_text", "text": "?"},
    ]
    assert warnings == ["messages[0].content[1]"]


# --- reasoning that changes hands -----------------------------------------------------------------------------------------------


def test_reasoning_of_another_provider_is_kept_for_it_and_never_sent_to_this_one() -> None:
    own = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA"}
    foreign = {"type": "reasoning", "id": "rs_2", "summary": [{"type": "summary_text", "text": "Hm."}], "encrypted_content": seal("anthropic-messages", "sSIG")}
    call = read(input=[{"role": "user", "content": "hi"}, own, foreign])
    assert call.holds_proofs
    asked = RESPONSES.read_request(call)
    first, second = asked.messages[1].parts
    assert (second.signature, second.origin, second.text) == ("SIG", "anthropic-messages", "Hm.")  # type: ignore[union-attr]
    assert (first.encrypted, first.origin) == ("rs_1:gAAA", "openai-responses")  # type: ignore[union-attr]
    assert [warning.param for warning in RESPONSES.lost(asked, target())] == ["messages[1].content[1]"]
    assert json.loads(RESPONSES.write_request(asked, target()))["input"][1:] == [own]


def test_edits_of_the_neutral_form_are_written() -> None:
    asked = request(tools=[{"type": "function", "name": "f", "parameters": {}}])
    asked.params["response_format"] = Raw(b'{"type":"json_schema","json_schema":{"schema":{}}}')
    assert json.loads(RESPONSES.write_request(asked, target()))["text"]["format"] == {"type": "json_schema", "name": "response", "schema": {}}


@needs_recordings
def test_what_only_the_vendor_keeps_is_refused_with_what_to_do() -> None:
    keys = ("conversation", "prompt", "background")
    form = FORMATS["openai-responses"]
    refused = [record for record in records(form) if any(record["request"].get(key) for key in keys)]
    assert refused
    for record in refused:
        with pytest.raises(ClientError) as caught:
            call_of(form, record["request"])
        assert caught.value.param in keys
