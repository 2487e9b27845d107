"""The laws of a dialect, on recorded traffic of OpenAI Responses: meaning survives reading and writing, crossing, and slicing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import openai.types.responses as openai_types
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai import NOT_GIVEN
from openai.lib.streaming.responses._responses import ResponseStreamState
from pydantic import TypeAdapter

from aigate.core.call import Call
from aigate.core.neutral import Request, leave_home
from aigate.core.target import Target
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Dialect, Settlement
from aigate.errors import ClientError, ProviderError
from tests.dialects.recorded import FOLDER, HEAD, needs_recordings, plain_replies, recorded_target
from tests.dialects.recorded import streams as chat_streams
from tests.dialects.streaming import slices

RESPONSES, CHAT = DIALECTS["openai-responses"], DIALECTS["openai-chat"]
OTHERS = [DIALECTS[name] for name in ("openai-chat", "anthropic-messages", "gemini")]
every_other = pytest.mark.parametrize("other", OTHERS, ids=lambda other: other.name)
EVENTS: Any = TypeAdapter(openai_types.ResponseStreamEvent)
NO_COST = Settlement(NOTHING, 0)
REFUSED = ("conversation", "prompt")
STATE = ("previous_response_id", "background", *REFUSED)

pytestmark = needs_recordings


@cache
def records() -> list[dict[str, Any]]:
    if not FOLDER:
        return []
    lines = (line for path in sorted(Path(FOLDER).glob("*.jsonl")) for line in path.open(encoding="utf-8") if "/responses" in line)
    return [record for record in map(json.loads, lines) if record["path"].endswith("/responses") and record["status"] == 200]


def plain() -> list[dict[str, Any]]:
    return [record for record in records() if not record["stream"] and json.loads(record["response"]).get("status") != "queued"]


def streams() -> list[dict[str, Any]]:
    return [record for record in records() if record["stream"]]


def calls() -> list[tuple[dict[str, Any], Call]]:
    """Requests that need nothing of an earlier one."""
    found = []
    for record in records():
        if not any(record["request"].get(key) for key in STATE):
            found.append((record, RESPONSES.read_call(json.dumps(record["request"]).encode(), "responses", HEAD)))
    return found


# --- the meaning of a wire object, apart from its spelling -----------------------------------------------------------------


def meaning(request: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in request.items() if key not in ("model", "store", "include", "previous_response_id")}
    if isinstance(fields["input"], str):
        fields["input"] = [{"role": "user", "content": fields["input"]}]
    fields["input"] = [item_meaning(item) for item in fields["input"]]
    if not fields.get("stream"):
        fields.pop("stream", None)
    return fields


def item_meaning(item: dict[str, Any]) -> dict[str, Any]:
    fields = dict(item)
    if "role" in fields:
        fields.setdefault("type", "message")
    for key in ("content", "output"):
        if isinstance(fields.get(key), str):
            fields[key] = [{"text": fields[key]}]
        if isinstance(fields.get(key), list):
            fields[key] = [part_meaning(part) for part in fields[key]]
    return fields


def part_meaning(part: dict[str, Any]) -> dict[str, Any]:
    fields = {key: value for key, value in part.items() if value not in (None, [])}
    if "text" in fields:
        fields.pop("type", None)
    if fields.get("type") == "input_image":
        fields.setdefault("detail", "auto")
    return fields


def told(parts: Sequence[Any]) -> dict[str, Any]:
    """What every format can say of an assistant's parts."""
    named = [(type(part).__name__, part) for part in parts]
    return {
        "text": "".join(part.text for name, part in named if name == "Text"),
        "refusal": "".join(part.text for name, part in named if name == "Refusal"),
        "reasoning": "".join(part.text for name, part in named if name == "Reasoning"),
        "calls": [(part.name, arguments(part)) for name, part in named if name == "ToolCall"],
    }


def arguments(call: Any) -> Any:
    try:
        return json.loads(call.arguments)
    except ValueError:
        return call.arguments


# --- (a) reading and writing ------------------------------------------------------------------------------------------------


def test_a_request_read_and_written_means_the_same() -> None:
    for record, call in calls():
        target = recorded_target(record)
        written = json.loads(RESPONSES.write_request(RESPONSES.read_request(call), target))
        assert meaning(written) == meaning(record["request"]), record["id"]
        edited = json.loads(RESPONSES.edit_pairs(call, (), target))
        assert meaning(edited) == meaning(record["request"]), record["id"]
        assert (written["store"], edited["store"]) == (False, False)


def test_a_reply_read_and_written_means_the_same() -> None:
    for record in plain():
        body = record["response"].encode()
        target = recorded_target(record)
        opened = RESPONSES.open_reply(body, target)
        settlement = Settlement(opened.usage or NOTHING, 1_000, opened.raw_usage)
        written = json.loads(RESPONSES.write_reply(RESPONSES.read_reply(body, target), "mock/asked", settlement))
        spliced = json.loads(RESPONSES.splice_reply(opened, target, "mock/asked", settlement))
        given = json.loads(body)
        for answer in (written, spliced):
            assert answer["model"] == "mock/asked"
            assert answer["usage"].pop("cost") == 0.000001
        assert written.pop("usage") == spliced.pop("usage")
        output, expected = written.pop("output"), given.pop("output")
        assert [item_meaning(item) for item in output] == [item_meaning(item) for item in expected], record["id"]
        for key in ("usage", "model"):
            given.pop(key, None)
            written.pop(key, None)
        assert written == given, record["id"]


# --- (b) crossing -------------------------------------------------------------------------------------------------------------


class GeminiHead:
    path, query = "/v1beta/models/upstream:generateContent", ""
    headers: dict[bytes, bytes] = {}


def crossed(call: Call, target: Target, other: Dialect) -> Request:
    """A request written in another format and read again."""
    request = RESPONSES.read_request(call)
    other.lost(request, target)
    leave_home(request, other.name)
    head = GeminiHead() if other.name == "gemini" else HEAD
    return other.read_request(other.read_call(other.write_request(request, target), "chat", head))


@every_other
def test_a_request_keeps_its_conversation_and_tools_across(other: Dialect) -> None:
    for record, call in calls():
        before = RESPONSES.read_request(call)
        if not said(before, "user")["text"]:
            continue
        after = crossed(call, recorded_target(record), other)
        for role in ("user", "assistant"):
            assert said(before, role) == said(after, role), record["id"]
        assert results(before) == results(after), record["id"]
        functions = [tool for tool in before.tools or () if tool.kind == "function"]
        others = [tool for tool in after.tools or () if tool.kind == "function"]
        assert [(t.name, t.description, t.parameters) for t in functions] == [(t.name, t.description, t.parameters) for t in others]


def said(request: Request, role: str) -> dict[str, Any]:
    told_all = told([part for message in request.messages if message.role == role for part in message.parts])
    return {key: value for key, value in told_all.items() if key != "reasoning"}


def results(request: Request) -> list[tuple[str, str]]:
    found = [part for message in request.messages for part in message.parts if type(part).__name__ == "ToolResult"]
    return [(part.call_id, "".join(inner.text for inner in part.parts if type(inner).__name__ == "Text")) for part in found]


@every_other
def test_a_reply_keeps_its_meaning_across_and_back(other: Dialect) -> None:
    for record in plain():
        target = recorded_target(record)
        reply = RESPONSES.read_reply(record["response"].encode(), target)
        before = told(reply.choices[0].parts), reply.choices[0].finish_reason
        leave_home(reply, other.name)
        settlement = Settlement(reply.usage or NOTHING, 0)
        there = other.read_reply(other.write_reply(reply, "mock/asked", settlement), target)
        assert (told(there.choices[0].parts), there.choices[0].finish_reason) == before, record["id"]
        leave_home(there, RESPONSES.name)
        back = RESPONSES.read_reply(RESPONSES.write_reply(there, "mock/asked", settlement), target)
        assert (told(back.choices[0].parts), back.choices[0].finish_reason) == before, record["id"]
        assert back.usage == reply.usage or reply.usage is None


# --- (c), (d) streams ----------------------------------------------------------------------------------------------------------


def stream_through(data: bytes, target: Target, sizes: Sequence[int] = (1 << 30,), *, is_spliced: bool = True) -> list[dict[str, Any]]:
    reader = RESPONSES.stream_reader(target, is_spliced)
    writer = RESPONSES.stream_writer(Call("openai-responses", "responses", {}, 0, ()), "mock/asked", "req_1")
    out, settlement = b"", NO_COST
    for events in [*(reader.feed(piece) for piece in slices(data, sizes)), reader.close()]:
        assert not any(event.error for event in events)
        out += writer.write(events)
        for event in events:
            if event.usage is not None:
                settlement = Settlement(event.usage, 0, event.raw_usage)
    return decoded(out + writer.finish(settlement))


def decoded(out: bytes) -> list[dict[str, Any]]:
    events = []
    for block in out.split(b"\n\n")[:-1]:
        name, data = block.split(b"\n")
        events.append(json.loads(data.removeprefix(b"data: ")))
        assert name == b"event: " + events[-1]["type"].encode()
    return events


def sent(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The recorded events as a client of ours should see them."""
    events = [json.loads(line[6:]) for line in record["response"].splitlines() if line.startswith("data: {")]
    for event in events:
        event.pop("obfuscation", None)
        if "response" in event:
            event["response"]["model"] = "mock/asked"
    events[-1]["response"]["usage"]["cost"] = 0.0
    return events


def test_a_stream_of_the_same_format_goes_through_as_it_came() -> None:
    for record in streams():
        for is_spliced in (True, False):
            assert stream_through(record["response"].encode(), recorded_target(record), is_spliced=is_spliced) == sent(record), record["id"]


def test_a_stream_reads_the_same_byte_by_byte() -> None:
    for record in streams()[::4]:
        assert stream_through(record["response"].encode(), recorded_target(record), (1,)) == sent(record), record["id"]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_stream_reads_the_same_however_it_is_cut(data: st.DataObject) -> None:
    record = data.draw(st.sampled_from(streams()))
    sizes = data.draw(st.lists(st.integers(1, 3000), min_size=1, max_size=20))
    assert stream_through(record["response"].encode(), recorded_target(record), sizes) == sent(record)


def test_a_stream_folds_into_the_reply_that_ends_it_in_openai_chat() -> None:
    """The crossing of the stream and the crossing of the reply in its last event say the same."""
    for record in streams():
        target = recorded_target(record)
        last = [json.loads(line[6:]) for line in record["response"].splitlines() if line.startswith("data: {")][-1]
        reply = RESPONSES.read_reply(json.dumps(last["response"]).encode(), target)
        reader = RESPONSES.stream_reader(target, True)
        writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), "mock/asked", "req_1")
        events = reader.feed(record["response"].encode()) + reader.close()
        out = writer.write(events) + writer.finish(NO_COST)
        chunks = [json.loads(line[6:]) for line in out.splitlines() if line.startswith(b"data: {")]
        assert folded(chunks) == (told(reply.choices[0].parts), reply.choices[0].finish_reason), record["id"]
        usage = [event.usage for event in events if event.usage is not None]
        assert usage[-1] == reply.usage


def folded(chunks: list[dict[str, Any]]) -> tuple[dict[str, Any], str | None]:
    text = reasoning = refusal = ""
    tools: list[list[str]] = []
    finish = None
    for chunk in chunks:
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or ""
            refusal += delta.get("refusal") or ""
            finish = choice["finish_reason"] or finish
            for call in delta.get("tool_calls", ()):
                if call["index"] == len(tools):
                    assert call["id"]
                    tools.append([call["function"]["name"], ""])
                tools[call["index"]][1] += call["function"]["arguments"]
    return {"text": text, "refusal": refusal, "reasoning": reasoning, "calls": [(name, json.loads(args)) for name, args in tools]}, finish


def test_what_only_the_vendor_keeps_is_refused_with_what_to_do() -> None:
    refused = [record for record in records() if any(record["request"].get(key) for key in REFUSED)]
    assert refused
    for record in refused:
        with pytest.raises(ClientError) as caught:
            RESPONSES.read_call(json.dumps(record["request"]).encode(), "responses", HEAD)
        assert caught.value.param in REFUSED


# --- OpenAI chat upstream, Responses to the client ------------------------------------------------------------------------------


def test_a_recorded_chat_reply_keeps_its_meaning_as_a_response() -> None:
    for record in plain_replies():
        target = recorded_target(record)
        try:
            reply = CHAT.read_reply(record["response"].encode(), target)
        except ProviderError:  # an error under status 200
            continue
        first = reply.choices[0]
        before, finish = told(first.parts), first.finish_reason
        leave_home(reply, RESPONSES.name)
        written = RESPONSES.write_reply(reply, "mock/asked", Settlement(reply.usage or NOTHING, 0))
        assert openai_types.Response.model_validate(json.loads(written)), record["id"]
        back = RESPONSES.read_reply(written, target).choices[0]
        assert told(back.parts) == before, record["id"]
        assert back.finish_reason == as_told(finish, before), record["id"]


def test_a_recorded_chat_stream_keeps_its_meaning_as_response_events() -> None:
    """Read by the SDK's own accumulator, which insists on the grammar."""
    for record in chat_streams():
        target = recorded_target(record)
        reader = CHAT.stream_reader(target, True)
        call = Call("openai-responses", "responses", {}, 0, ())
        writer = RESPONSES.stream_writer(call, "mock/asked", "req_1")
        same = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), "mock/asked", "req_1")
        out = chat_out = b""
        for piece in slices(record["response"].encode(), (700,)):
            events = reader.feed(piece)
            if any(event.error for event in events):
                break
            out += writer.write(events)
            chat_out += same.write(events)
        else:
            out += writer.finish(NO_COST)
            chunks = [json.loads(line[6:]) for line in chat_out.splitlines() if line.startswith(b"data: {")]
            chunks = [{"choices": [choice for choice in chunk["choices"] if choice["index"] == 0]} for chunk in chunks]
            meaning_of_chat, finish = folded(chunks)
            final = accumulated(decoded(out))
            back = RESPONSES.read_reply(json.dumps(final).encode(), target).choices[0]
            assert told(back.parts) == meaning_of_chat, record["id"]
            assert back.finish_reason == as_told(finish, meaning_of_chat), record["id"]


def as_told(finish: str | None, parts: dict[str, Any]) -> str:
    """A finish reason as this format can tell it: by status and by what stands in the output."""
    if finish in ("length", "content_filter"):
        return finish
    return "tool_calls" if parts["calls"] else "stop"


def accumulated(events: list[dict[str, Any]]) -> dict[str, Any]:
    """What the SDK makes of the events: its snapshot must be the response that the terminal event carries."""
    state = ResponseStreamState(input_tools=NOT_GIVEN, text_format=NOT_GIVEN)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        parsed = EVENTS.validate_python(event)
        state.handle_event(parsed)
    return events[-1]["response"]


# --- streams between all formats -------------------------------------------------------------------------------------------------


def folded_events(events: Sequence[Any]) -> tuple[dict[str, Any], str | None]:
    """What the first choice of a stream's events says, plain runs included."""
    said_so_far: dict[str, Any] = {"text": "", "refusal": "", "reasoning": ""}
    tools: list[list[str]] = []
    finish = None
    for event in events:
        for delta in event.chunk.deltas if event.chunk is not None else ():
            if delta.index:
                continue
            run = None if event.texts is None else json.loads(b'"' + b"".join(event.texts) + b'"')
            for key in said_so_far:
                value = getattr(delta, key)
                said_so_far[key] += (value or "") if run is None or not value else run
            for call in delta.tool_calls:
                if call.index == len(tools):
                    tools.append([call.name or "", ""])
                tools[call.index][1] += call.arguments if run is None else run
            finish = delta.finish_reason or finish
    return {**said_so_far, "calls": [(name, json.loads(args or "{}")) for name, args in tools]}, finish


@every_other
def test_a_recorded_stream_keeps_its_meaning_in_every_other_format(other: Dialect) -> None:
    for record in streams():
        target = recorded_target(record)
        reader = RESPONSES.stream_reader(target, True)
        events = [event for piece in slices(record["response"].encode(), (700,)) for event in reader.feed(piece)] + reader.close()
        writer = other.stream_writer(Call(other.name, "chat", {}, 0, ()), "mock/asked", "req_1")
        usage = next(event for event in events if event.usage is not None)
        out = writer.write(events) + writer.finish(Settlement(usage.usage or NOTHING, 0, usage.raw_usage))
        again = other.stream_reader(target, False)
        read_again = again.feed(out) + again.close()
        assert not [event.error for event in read_again if event.error]
        assert folded_events(read_again) == folded_events(events), record["id"]
        assert [event.usage for event in read_again if event.usage is not None][-1] == usage.usage, record["id"]


@cache
def foreign_streams() -> list[tuple[Dialect, dict[str, Any]]]:
    """Recorded streams of Anthropic and Gemini."""
    if not FOLDER:
        return []
    found = []
    for path in sorted(Path(FOLDER).glob("*.jsonl")):
        for record in map(json.loads, path.open(encoding="utf-8")):
            if record["status"] == 200 and record["stream"]:
                if record["path"].endswith("/v1/messages"):
                    found.append((DIALECTS["anthropic-messages"], record))
                elif ":streamGenerateContent" in record["path"]:
                    found.append((DIALECTS["gemini"], record))
    return found


def test_recorded_streams_of_other_formats_are_events_that_the_sdk_takes() -> None:
    assert {dialect.name for dialect, _ in foreign_streams()} == {"anthropic-messages", "gemini"}
    for dialect, record in foreign_streams():
        target = recorded_target(record)
        reader = dialect.stream_reader(target, True)
        events = [event for piece in slices(record["response"].encode(), (700,)) for event in reader.feed(piece)] + reader.close()
        if any(event.error for event in events):
            continue
        writer = RESPONSES.stream_writer(Call("openai-responses", "responses", {}, 0, ()), "mock/asked", "req_1")
        final = accumulated(decoded(writer.write(events) + writer.finish(NO_COST)))
        back = RESPONSES.read_reply(json.dumps(final).encode(), target).choices[0]
        before, finish = folded_events(events)
        assert told(back.parts) == before, record["id"]
        assert back.finish_reason == as_told(finish, before), record["id"]
