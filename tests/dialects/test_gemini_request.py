"""Requests of Gemini: what a call says at a glance, what another format's request becomes here, and what is lost on the way."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.edits import apply_to_request, plan_edits, plan_request
from aigate.core.neutral import ToolCall, ToolResult, leave_home
from aigate.dialects import DIALECTS
from aigate.dialects.gemini_parts import NO_SIGNATURE
from aigate.dialects.gemini_schema import lowered, to_json_schema
from aigate.dialects.proof import seal
from tests.dialects.gemini_traffic import GEMINI, Head, call_of, gemini_target
from tests.dialects.recorded import HEAD, target

CHAT = DIALECTS["openai-chat"]
HELLO: Any = [{"role": "user", "content": "hi"}]
CONTENTS: Any = [{"role": "user", "parts": [{"text": "hi"}]}]


def crossed(model: str = "gemini-3.5-flash", **fields: Any) -> tuple[dict[str, Any], list[str]]:
    """A chat request as it reaches a model of Google's, and the parameters that warnings name."""
    call = CHAT.read_call(json.dumps({"model": "m", "messages": HELLO, **fields}).encode(), "chat", HEAD)
    where = gemini_target(model)
    request = CHAT.read_request(call)
    plan = plan_request(call, request, where, CHAT.params)
    apply_to_request(request, plan.edits)
    warnings = [*plan.warnings, *GEMINI.lost(request, where)]
    leave_home(request, "gemini")
    return json.loads(GEMINI.write_request(request, where)), [warning.param for warning in warnings]


def to_chat(request: dict[str, Any]) -> dict[str, Any]:
    neutral = GEMINI.read_request(call_of(request))
    leave_home(neutral, "openai-chat")
    return json.loads(CHAT.write_request(neutral, target()))


# --- the narrow look ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "model"),
    [
        ("/v1beta/models/anthropic/claude-5:generateContent", "anthropic/claude-5"),
        ("/v1beta/models/anthropic%2Fclaude-5:generateContent", "anthropic/claude-5"),
        ("/v1beta/models/ollama/qwen:8b:generateContent", "ollama/qwen:8b"),
        ("/v1/models/gemini-3.5-flash:generateContent", "google/gemini-3.5-flash"),
    ],
)
def test_the_model_is_read_from_the_path(path: str, model: str) -> None:
    head = Head()
    head.path = path
    assert call_of({"contents": CONTENTS}, head).models == (model,)


def test_either_spelling_of_the_settings_is_read() -> None:
    settings = {"max_output_tokens": 9, "candidate_count": 2, "thinking_config": {"thinking_level": "LOW"}}
    call = call_of({"contents": CONTENTS, "generation_config": settings})
    assert (call.max_output_tokens, call.n, call.effort, call.thinking_budget) == (9, 2, "low", None)
    assert json.loads(GEMINI.edit_pairs(call, (), gemini_target()))["generationConfig"] == {
        "maxOutputTokens": 9, "candidateCount": 2, "thinkingConfig": {"thinkingLevel": "LOW"}
    }  # fmt: skip


@pytest.mark.parametrize(("action", "query", "is_stream", "is_array"), [
    ("generateContent", "", False, False), ("streamGenerateContent", "alt=sse", True, False), ("streamGenerateContent", "", True, True)])  # fmt: skip
def test_the_action_says_whether_and_how_to_stream(action: str, query: str, is_stream: bool, is_array: bool) -> None:
    call = call_of({"contents": CONTENTS}, Head(action=action, query=query))
    assert (call.is_stream, call.is_array) == (is_stream, is_array)


def test_what_a_model_refuses_is_changed_in_the_callers_own_request() -> None:
    call = call_of({"contents": CONTENTS, "generationConfig": {"candidateCount": 2, "topK": 3, "thinkingConfig": {"thinkingLevel": "MINIMAL"}}})
    where = gemini_target("gemini-4-neon")
    plan = plan_edits(call, where, GEMINI.params)
    assert {warning.param for warning in plan.warnings} == {"generationConfig.candidateCount", "reasoning_effort"}
    sent = json.loads(GEMINI.edit_pairs(call, plan.edits, where))
    assert sent["generationConfig"] == {"candidateCount": 1, "topK": 3, "thinkingConfig": {"thinkingLevel": "LOW"}}


# --- from another format ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "asked", "config", "warned"),
    [
        ("gemini-2.5-flash", "low", {"thinkingBudget": 1024, "includeThoughts": True}, []),
        ("gemini-2.5-flash", "none", {"thinkingBudget": 0}, []),
        ("gemini-2.5-pro", "none", {"thinkingBudget": 512, "includeThoughts": True}, ["reasoning_effort"]),
        ("gemini-3.5-flash", "minimal", {"thinkingLevel": "MINIMAL", "includeThoughts": True}, []),
        ("gemini-3.8-flash", "minimal", {"thinkingLevel": "LOW", "includeThoughts": True}, ["reasoning_effort"]),
        ("gemini-4-neon", "max", {"thinkingLevel": "HIGH", "includeThoughts": True}, ["reasoning_effort"]),
    ],
)
def test_effort_is_said_as_the_model_takes_it(model: str, asked: str, config: dict[str, Any], warned: list[str]) -> None:
    sent, warnings = crossed(model, reasoning_effort=asked)
    assert (sent["generationConfig"]["thinkingConfig"], warnings) == (config, warned)


def test_parameters_get_their_own_names_and_what_has_none_is_named() -> None:
    sent, warnings = crossed("gemini-2.5-flash", max_completion_tokens=5, stop="x", top_p=0.5, n=2, seed=1, logprobs=True, top_logprobs=2,
                             parallel_tool_calls=False, verbosity="low", user="u", stream_options=None)  # fmt: skip
    assert sent["generationConfig"] == {
        "topP": 0.5, "candidateCount": 2, "maxOutputTokens": 5, "stopSequences": ["x"], "seed": 1, "responseLogprobs": True, "logprobs": 2
    }  # fmt: skip
    assert warnings == ["parallel_tool_calls", "verbosity"]


@pytest.mark.parametrize(
    ("choice", "calling"),
    [
        ("auto", {"mode": "AUTO"}),
        ("none", {"mode": "NONE"}),
        ("required", {"mode": "ANY"}),
        ({"type": "function", "function": {"name": "f"}}, {"mode": "ANY", "allowedFunctionNames": ["f"]}),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "function": {"name": "f"}}]}},
            {"mode": "VALIDATED", "allowedFunctionNames": ["f"]},
        ),
    ],
)
def test_a_tool_choice_crosses_there_and_back(choice: Any, calling: dict[str, Any]) -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    sent, warnings = crossed(tools=tools, tool_choice=choice)
    assert (sent["toolConfig"], warnings) == ({"functionCallingConfig": calling}, [])
    assert sent["tools"] == [{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object"}}]}]
    assert to_chat(sent)["tool_choice"] == choice


def test_instructions_are_joined_in_their_one_place_and_a_later_one_is_warned_of() -> None:
    messages = [{"role": "system", "content": "one"}, *HELLO, {"role": "developer", "content": "two"}]
    sent, warnings = crossed(messages=messages)
    assert sent["systemInstruction"] == {"parts": [{"text": "one\n\ntwo"}]}
    assert sent["contents"] == CONTENTS
    assert warnings == ["messages[2]"]


def test_results_of_parallel_calls_come_together_and_foreign_calls_stand_without_a_signature() -> None:
    calls = [{"id": f"call_{n}", "type": "function", "function": {"name": f"f{n}", "arguments": '{"n":1}'}} for n in range(2)]
    results = [{"role": "tool", "tool_call_id": f"call_{n}", "content": f"r{n}"} for n in range(2)]
    messages = [*HELLO, {"role": "assistant", "content": None, "tool_calls": calls}, *results]
    sent, _ = crossed(messages=messages)
    assert [content["role"] for content in sent["contents"]] == ["user", "model", "user"]
    assert sent["contents"][1]["parts"] == [
        {"functionCall": {"name": "f0", "args": {"n": 1}, "id": "call_0"}, "thoughtSignature": NO_SIGNATURE},
        {"functionCall": {"name": "f1", "args": {"n": 1}, "id": "call_1"}},
    ]
    assert [part["functionResponse"] for part in sent["contents"][2]["parts"]] == [
        {"name": f"f{n}", "id": f"call_{n}", "response": {"output": f"r{n}"}} for n in range(2)
    ]
    assert "thoughtSignature" not in json.dumps(crossed("gemini-2.5-flash", messages=messages)[0])


def test_foreign_reasoning_and_file_ids_are_left_out_with_a_warning() -> None:
    parts = [{"type": "text", "text": "hi"}, {"type": "file", "file": {"file_id": "file-1"}}]
    messages = [{"role": "user", "content": parts}, {"role": "assistant", "content": "a", "reasoning_content": "hm"}, *HELLO]
    sent, warnings = crossed(messages=messages)
    assert [content["parts"] for content in sent["contents"]] == [[{"text": "hi"}], [{"text": "a"}], [{"text": "hi"}]]
    assert warnings == ["messages[0].content[1]", "messages[1].content[0]"]


# --- to another format --------------------------------------------------------------------------------------------------------------


def test_calls_without_ids_get_some_and_results_find_them_by_name_and_order() -> None:
    calls = [{"functionCall": {"name": name, "args": {}}} for name in ("a", "b", "a")]
    results = [{"functionResponse": {"name": name, "response": {"output": text}}} for name, text in (("a", "1"), ("a", "2"), ("b", "3"))]
    request = GEMINI.read_request(call_of({"contents": [*CONTENTS, {"role": "model", "parts": calls}, {"parts": results}]}))
    made = [part for part in request.messages[1].parts if type(part) is ToolCall]
    answered = [part for part in request.messages[2].parts if type(part) is ToolResult]
    assert [part.call_id for part in answered] == [made[0].id, made[2].id, made[1].id]


def test_a_turn_in_many_contents_is_one_message() -> None:
    """Clients keep a streamed turn as they got it, chunk by chunk."""
    turn = [{"role": "model", "parts": [{"functionCall": {"name": name, "args": {}}}]} for name in ("a", "b")]
    results = {"role": "user", "parts": [{"functionResponse": {"name": name, "response": {"output": "1"}}} for name in ("a", "b")]}
    sent = to_chat({"contents": [*CONTENTS, *turn, results]})
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "tool", "tool"]


@pytest.mark.parametrize(("response", "text", "is_error"), [
    ({"output": "x"}, "x", None), ({"error": "no"}, "no", True), ({"temp": 5}, '{"temp":5}', None), ({"output": [1]}, "[1]", None)])  # fmt: skip
def test_a_result_is_its_output_its_error_or_the_whole_object(response: dict[str, Any], text: str, is_error: bool | None) -> None:
    parts = [{"functionResponse": {"name": "f", "response": response}}]
    result = GEMINI.read_request(call_of({"contents": [{"parts": parts}]})).messages[0].parts[0]
    assert type(result) is ToolResult
    assert (result.parts[0].text, result.is_error) == (text, is_error)  # type: ignore[union-attr]


def test_a_sealed_proof_of_another_vendor_is_known_again_and_never_sent_to_google() -> None:
    sealed = seal("anthropic-messages", "sig\0")
    call = call_of({"contents": [{"role": "model", "parts": [{"text": "hm", "thought": True, "thoughtSignature": sealed}, {"text": "a"}]}]})
    assert call.holds_proofs
    request = GEMINI.read_request(call)
    thought = request.messages[0].parts[0]
    assert (thought.origin, thought.signature) == ("anthropic-messages", "sig")  # type: ignore[union-attr]
    assert json.loads(GEMINI.write_request(request, gemini_target()))["contents"][0]["parts"] == [{"text": "a"}]


def test_schemas_of_googles_own_kind_become_plain_ones() -> None:
    schema = {"type": "OBJECT", "properties": {"a": {"type": "STRING", "nullable": True}, "b": {"type": "ARRAY", "items": {"type": "INTEGER"}, "minItems": "1"}},
              "propertyOrdering": ["a", "b"]}  # fmt: skip
    assert to_json_schema(schema) == {
        "type": "object",
        "properties": {"a": {"type": ["string", "null"]}, "b": {"type": "array", "items": {"type": "integer"}, "minItems": 1}},
    }


def test_words_that_google_does_not_know_are_said_otherwise() -> None:
    schema = {"$schema": "x", "properties": {"const": {"const": "a"}}}
    assert lowered(schema) == {"properties": {"const": {"enum": ["a"]}}}
