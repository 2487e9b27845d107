"""The laws of a dialect, on recorded traffic of Gemini: meaning survives reading and writing, crossing, and slicing."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.genai import types
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.core.call import Call
from aigate.core.neutral import Request, ToolResult, leave_home
from aigate.core.target import Target
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.dialects.gemini_parts import camel, is_made_up
from aigate.errors import ProviderError
from tests.dialects.gemini_traffic import (
    ASKED,
    GEMINI,
    call_of,
    fold,
    plain_replies,
    recorded_target,
    records,
    sent_chunks,
    stream_through,
    streams,
    told,
)  # fmt: skip
from tests.dialects.recorded import HEAD, needs_recordings
from tests.dialects.recorded import plain_replies as chat_replies
from tests.dialects.recorded import recorded_target as chat_target
from tests.dialects.recorded import streams as chat_streams

CHAT = DIALECTS["openai-chat"]
OTHERS = [dialect for name, dialect in DIALECTS.items() if name in ("openai-chat", "anthropic-messages", "openai-responses")]
OPEN_DATA = ("args", "response", "parametersJsonSchema", "parameters", "responseJsonSchema", "responseSchema")

pytestmark = needs_recordings


# --- the meaning of a wire object, apart from its spelling -----------------------------------------------------------------


def meaning(value: Any) -> Any:
    if type(value) is list:
        return [meaning(entry) for entry in value]
    if type(value) is not dict:
        return value
    fields = {}
    for key, inner in value.items():
        key = camel(key)
        fields[key] = inner if key in OPEN_DATA else meaning(inner)
    if "name" in fields and "args" in fields and not fields["args"]:
        del fields["args"]
    return fields


def request_meaning(request: dict[str, Any]) -> Any:
    fields = {key: value for key, value in meaning(request).items() if value != {}}
    tools = fields.get("tools", [])
    tools = tools if type(tools) is list else [tools]
    functions = [one for tool in tools for one in tool.get("functionDeclarations", ())]
    others = [{key: value} for tool in tools for key, value in tool.items() if key != "functionDeclarations"]
    fields["tools"] = [functions, others]
    fields["contents"] = _whole_turns(fields["contents"])
    instruction = fields.get("systemInstruction")
    if instruction:
        instruction.pop("role", None)
    return fields


def _whole_turns(contents: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A model's turn may stand in several contents, one a chunk of its stream."""
    whole: list[dict[str, Any]] = []
    for content in contents:
        if whole and whole[-1].get("role") == content.get("role") == "model":
            whole[-1]["parts"] += content["parts"]
        else:
            whole.append(content)
    return whole


def calls() -> list[tuple[dict[str, Any], Call]]:
    return [(record, call_of(record["request"])) for record in records()]


# --- (a) reading and writing ------------------------------------------------------------------------------------------------


def test_a_request_read_and_written_means_the_same() -> None:
    for record, call in calls():
        target = recorded_target(record)
        request = GEMINI.read_request(call)
        assert GEMINI.lost(request, target) == [], record["id"]
        written = json.loads(GEMINI.write_request(request, target))
        expected = request_meaning(record["request"])
        if target.quirks.needs_signatures:
            _forgive_signatures(written)
        assert request_meaning(written) == expected, record["id"]
        edited = json.loads(GEMINI.edit_pairs(call, (), target))
        assert request_meaning(edited) == expected, record["id"]


def _forgive_signatures(written: dict[str, Any]) -> None:
    for content in written["contents"]:
        for part in content["parts"]:
            if part.get("thoughtSignature") == "skip_thought_signature_validator":
                del part["thoughtSignature"]


def test_a_reply_read_and_written_means_the_same() -> None:
    for record in plain_replies():
        body, target = record["response"].encode(), recorded_target(record)
        opened = GEMINI.open_reply(body, target)
        settlement = Settlement(opened.usage or NOTHING, 1_000, opened.raw_usage)
        written = json.loads(GEMINI.write_reply(GEMINI.read_reply(body, target), ASKED, settlement))
        spliced = json.loads(GEMINI.splice_reply(opened, target, ASKED, settlement))
        expected = json.loads(body) | {"modelVersion": ASKED}
        assert spliced == expected, record["id"]
        assert _same_defaults(written) == _same_defaults(expected), record["id"]


def _same_defaults(reply: dict[str, Any]) -> Any:
    reply.setdefault("responseId", "")
    for place, candidate in enumerate(reply.get("candidates", ())):
        candidate.setdefault("index", place)
        content = candidate["content"] = candidate.get("content") or {}
        content.setdefault("parts", [])
        content.setdefault("role", "model")
    return meaning(reply)


# --- (b) crossing -------------------------------------------------------------------------------------------------------------


def crossed(call: Call, dialect: Any, target: Target) -> Request:
    """A request written in another dialect and read again."""
    request = GEMINI.read_request(call)
    dialect.lost(request, target)
    leave_home(request, dialect.name)
    return dialect.read_request(dialect.read_call(dialect.write_request(request, target), "chat", HEAD))


@pytest.mark.parametrize("dialect", OTHERS, ids=lambda dialect: dialect.name)
def test_a_request_keeps_its_conversation_and_tools_in_another_format(dialect: Any) -> None:
    for record, call in calls():
        if not any(_said(GEMINI.read_request(call), "user").values()) and not _results(GEMINI.read_request(call)):
            continue  # nothing but an empty text, which not every format takes
        before, after = GEMINI.read_request(call), crossed(call, dialect, chat_target({"provider": "mock", "request": {}}))
        for role in ("user", "assistant"):
            assert _said(before, role) == _said(after, role), (record["id"], dialect.name)
        assert [text for _, text in _results(before)] == [text for _, text in _results(after)], record["id"]
        assert [_ids(before)[call_id] for call_id, _ in _results(before)] == [_ids(after)[call_id] for call_id, _ in _results(after)]
        functions = [(tool.name, tool.description or "") for tool in before.tools or () if tool.kind == "function"]
        assert functions == [(tool.name, tool.description or "") for tool in after.tools or () if tool.kind == "function"]


def _said(request: Request, role: str) -> dict[str, Any]:
    said = told(part for message in request.messages if message.role == role for part in message.parts)
    return {key: value for key, value in said.items() if key != "reasoning"}


def _results(request: Request) -> list[tuple[str, str]]:
    found = [part for message in request.messages for part in message.parts if type(part) is ToolResult]
    return [(part.call_id, "".join(getattr(inner, "text", "") for inner in part.parts)) for part in found]


def _ids(request: Request) -> dict[str, int]:
    """Call id → place of the call: ids may be renamed, but not the links between calls and results."""
    made = [part.id for message in request.messages for part in message.parts if type(part).__name__ == "ToolCall"]
    return {call_id: place for place, call_id in enumerate(dict.fromkeys(made + [call_id for call_id, _ in _results(request)]))}


@pytest.mark.parametrize("dialect", OTHERS, ids=lambda dialect: dialect.name)
def test_a_reply_keeps_its_meaning_in_another_format_and_back(dialect: Any) -> None:
    for record in plain_replies():
        target = recorded_target(record)
        reply = GEMINI.read_reply(record["response"].encode(), target)
        before = told(reply.choices[0].parts)
        settlement = Settlement(reply.usage or NOTHING, 0)
        leave_home(reply, dialect.name)
        there = dialect.read_reply(dialect.write_reply(reply, ASKED, settlement), target)
        assert told(there.choices[0].parts) == before, (record["id"], dialect.name)
        leave_home(there, "gemini")
        back = GEMINI.read_reply(GEMINI.write_reply(there, ASKED, settlement), target)
        assert told(back.choices[0].parts) == before, (record["id"], dialect.name)
        if reply.choices[0].finish_reason in ("stop", "length", "tool_calls", "content_filter"):
            assert back.choices[0].finish_reason == reply.choices[0].finish_reason, record["id"]
        assert back.usage == reply.usage or reply.usage is None or reply.usage.audio_input_tokens or reply.usage.audio_output_tokens


def test_a_recorded_chat_reply_keeps_its_meaning_as_a_gemini_reply() -> None:
    for record in chat_replies():
        target = chat_target(record)
        try:
            reply = CHAT.read_reply(record["response"].encode(), target)
        except ProviderError:  # an error under status 200
            continue
        before = [(told(choice.parts), choice.finish_reason) for choice in reply.choices]
        leave_home(reply, "gemini")
        written = GEMINI.write_reply(reply, ASKED, Settlement(reply.usage or NOTHING, 0))
        assert types.GenerateContentResponse.model_validate_json(written), record["id"]
        back = GEMINI.read_reply(written, target)
        for choice, (parts, finish) in zip(back.choices, before, strict=True):
            assert told(choice.parts) == parts, record["id"]
            if finish in ("length", "content_filter"):
                assert choice.finish_reason == finish, record["id"]
        if reply.usage is not None and back.usage is not None:
            assert back.usage.total_tokens == reply.usage.total_tokens, record["id"]


# --- (c), (d) streams ----------------------------------------------------------------------------------------------------------


def through(record: dict[str, Any], sizes: tuple[int, ...] | list[int] = (1 << 30,)) -> list[dict[str, Any]]:
    reader = GEMINI.stream_reader(recorded_target(record), True)
    writer = GEMINI.stream_writer(Call("gemini", "chat", {}, 0, ()), ASKED, "req_1")
    out, _, errors = stream_through(record["response"].encode(), reader, writer, sizes)
    assert not errors
    return sent_chunks(out)


def sent(record: dict[str, Any]) -> list[dict[str, Any]]:
    blocks = record["response"].replace("\r\n", "\n").split("\n\n")
    return [json.loads(block[6:]) for block in blocks if block.startswith("data: ")]


def _reply_told(body: bytes, target: Target) -> Any:
    reply = GEMINI.read_reply(body, target)
    return told(reply.choices[0].parts), reply.choices[0].finish_reason, reply.usage, reply.id


def test_a_stream_of_the_same_format_folds_into_what_it_folded_into_before() -> None:
    for record in streams():
        target, chunks = recorded_target(record), through(record)
        assert _reply_told(fold(chunks), target) == _reply_told(fold(sent(record)), target), record["id"]
        before, after = ([part for chunk in side for candidate in chunk.get("candidates", ()) for part in
                          (candidate.get("content") or {}).get("parts") or [] if part != {"text": ""}]
                         for side in (sent(record), chunks))  # fmt: skip
        assert after == before, record["id"]
        assert "usageMetadata" in chunks[-1] and not any("usageMetadata" in chunk for chunk in chunks[:-1])


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    for record in streams()[::3]:
        assert through(record, (1,)) == through(record), record["id"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stream_reads_the_same_however_it_is_cut(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(streams()))
    assert through(record, data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=20))) == through(record)


@pytest.mark.parametrize("is_array", [False, True])
def test_a_recorded_chat_stream_keeps_its_meaning_as_gemini_chunks(is_array: bool) -> None:
    for record in chat_streams():
        target = chat_target(record)
        call = Call("gemini", "chat", {}, 0, (), is_array=is_array)
        plain, fast = (
            stream_through(record["response"].encode(), CHAT.stream_reader(target, is_spliced), GEMINI.stream_writer(call, ASKED, "req_1"), (700,))
            for is_spliced in (False, True)
        )
        if plain[2]:
            continue
        decode = json.loads if is_array else sent_chunks
        folded = GEMINI.read_reply(fold(decode(fast[0])), target)
        assert folded.choices == GEMINI.read_reply(fold(decode(plain[0])), target).choices, record["id"]
        said = _chat_told(record, target)
        first = folded.choices[0] if folded.choices else None
        assert told(() if first is None else first.parts) == said, record["id"]


def _chat_told(record: dict[str, Any], target: Target) -> dict[str, Any]:
    """What a chat stream adds up to in the first choice."""
    text = reasoning = ""
    made: dict[int, list[str]] = {}
    for event in CHAT.stream_reader(target, False).feed(record["response"].encode()):
        for delta in event.chunk.deltas if event.chunk else ():
            if delta.index == 0:
                text += (delta.text or "") + (delta.refusal or "")
                reasoning += delta.reasoning or ""
                for call in delta.tool_calls:
                    known = made.setdefault(call.index, ["", ""])
                    known[0] = known[0] or call.name or ""
                    known[1] += call.arguments
    return {"text": text, "reasoning": reasoning, "calls": [(name, json.loads(args or "{}")) for name, args in made.values()]}


def test_ids_that_the_model_did_not_give_are_made_up_and_never_sent_back() -> None:
    without_ids = 0
    for record in plain_replies():
        target = recorded_target(record)
        given = json.loads(record["response"])
        reply = GEMINI.read_reply(record["response"].encode(), target)
        made = [part for choice in reply.choices for part in choice.parts if type(part).__name__ == "ToolCall"]
        wire = [part["functionCall"] for candidate in given.get("candidates", ()) for part in candidate.get("content", {}).get("parts", ()) if "functionCall" in part]
        assert [call.id for call in made if not is_made_up(call.id)] == [call["id"] for call in wire if "id" in call]
        assert all(call.id for call in made) and len({call.id for call in made}) == len(made)
        without_ids += any(is_made_up(call.id) for call in made)
    assert without_ids
