"""The laws of the Anthropic Messages dialect on recorded traffic. Nothing here is keyed to one recording."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.neutral import leave_home
from aigate.core.target import Quirks
from aigate.core.usage import NOTHING, Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from tests.dialects.anthropic_recorded import MESSAGES, Head, fold, message_records, message_streams, messages_target, plain_messages
from tests.dialects.recorded import HEAD, needs_recordings, target
from tests.dialects.streaming import slices

pytestmark = needs_recordings

CHAT = DIALECTS["openai-chat"]
WHERE = messages_target()
ASKED = "mock/asked"
SLICES = [(1,), (7, 300), (1700,), (64, 1, 4096)]
each_record = pytest.mark.parametrize("record", message_records(), ids=lambda record: record["id"])
each_plain = pytest.mark.parametrize("record", plain_messages(), ids=lambda record: record["id"])
each_stream = pytest.mark.parametrize("record", message_streams(), ids=lambda record: record["id"])


def settlement_of(usage: Usage | None, raw_usage: bytes) -> Settlement:
    return Settlement(usage or NOTHING, 1_234_500, raw_usage)


def normal(value: Any) -> Any:
    """Documented equivalences: a string of content is one text block; null and [] citations are none; no stream is stream false."""
    if isinstance(value, list):
        return [normal(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    fields = {key: normal(entry) for key, entry in value.items() if not (key == "citations" and not entry)}
    if fields.get("type") in ("tool_result",) and fields.get("content") in (None, []):
        fields.pop("content", None)
    if isinstance(fields.get("content"), str):
        fields["content"] = [{"type": "text", "text": fields["content"]}]
    return fields


def read(record: dict[str, Any]) -> Call:
    return MESSAGES.read_call(json.dumps({"max_tokens": 64, **record["request"]}).encode(), "chat", Head())


@each_record
def test_a_request_read_and_written_means_the_same(record: dict[str, Any]) -> None:
    call = read(record)
    wanted = {"max_tokens": 64, **record["request"], "model": WHERE.upstream_model}
    assert json.loads(MESSAGES.edit_pairs(call, (), WHERE)) == wanted
    assert normal(json.loads(MESSAGES.write_request(MESSAGES.read_request(call), WHERE))) == normal(wanted)


@each_plain
def test_a_reply_read_and_written_means_the_same(record: dict[str, Any]) -> None:
    body = record["response"].encode()
    opened = MESSAGES.open_reply(body, WHERE)
    wanted = {**json.loads(body), "model": ASKED}
    wanted["usage"] = {**wanted["usage"], "cost": 0.0012345}
    reply = MESSAGES.read_reply(body, WHERE)
    settlement = settlement_of(reply.usage, reply.raw_usage)
    assert normal(json.loads(MESSAGES.write_reply(reply, ASKED, settlement))) == normal(wanted)
    assert json.loads(MESSAGES.splice_reply(opened, WHERE, ASKED, settlement)) == wanted
    assert opened.usage == reply.usage


def stream(data: bytes, is_spliced: bool, sizes: tuple[int, ...], writer: Any = None) -> tuple[bytes, Usage | None, bool]:
    reader = MESSAGES.stream_reader(WHERE, is_spliced)
    writer = writer or MESSAGES.stream_writer(Call("anthropic-messages", "chat", {}, 0, ()), ASKED, "req_1")
    out, usage, raw_usage, is_done = b"", None, b"", False
    for events in [*(reader.feed(piece) for piece in slices(data, sizes)), reader.close()]:
        for event in events:
            assert event.error is None
            usage, raw_usage = (event.usage, event.raw_usage) if event.usage else (usage, raw_usage)
            is_done = is_done or event.is_done
        out += writer.write(events)
    return out + writer.finish(settlement_of(usage, raw_usage)), usage, is_done


@each_stream
def test_a_stream_arrives_as_it_was_however_it_is_cut(record: dict[str, Any]) -> None:
    data = record["response"].encode()
    out, usage, is_done = stream(data, True, (1 << 30,))
    assert is_done
    wanted, folded = fold(data), fold(out)
    assert folded.pop("usage") == {**wanted.pop("usage"), "cost": 0.0012345}
    assert folded == {**wanted, "model": ASKED}
    for is_spliced in (True, False):
        for sizes in SLICES:
            assert stream(data, is_spliced, sizes) == (out, usage, is_done)


@each_stream
def test_most_of_a_long_text_is_never_decoded(record: dict[str, Any]) -> None:
    data = record["response"].encode()
    reader = MESSAGES.stream_reader(WHERE, True)
    fast = sum(event.count for piece in slices(data, (1700,)) for event in reader.feed(piece) if event.texts is not None)
    deltas = data.count(b'"text_delta"')
    if deltas >= 20 and data.count(b"content_block_start") < 8:
        assert fast > deltas // 2


@each_stream
def test_a_stream_becomes_a_plain_message_of_the_same_meaning(record: dict[str, Any]) -> None:
    """Folded, the stream read as a plain reply has the same neutral parts as what the stream's writer of chat sends."""
    folded = fold(record["response"].encode())
    reply = MESSAGES.read_reply(json.dumps(folded).encode(), WHERE)
    message = json.loads(CHAT.write_reply(crossed(reply), ASKED, settlement_of(reply.usage, reply.raw_usage)))["choices"][0]
    writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1")
    for is_spliced in (True, False):
        out, _, _ = stream(record["response"].encode(), is_spliced, (900,), writer)
        text, reasoning, calls, finish = fold_chat(out)
        assert text == (message["message"]["content"] or "")
        assert reasoning == (message["message"].get("reasoning_content") or "")
        assert calls == [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"]))
                         for call in message["message"].get("tool_calls", [])]  # fmt: skip
        assert finish == message["finish_reason"]
        writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1")


def crossed(reply: Any) -> Any:
    leave_home(reply, "openai-chat")
    return reply


def fold_chat(out: bytes) -> tuple[str, str, list[Any], str | None]:
    text = reasoning = ""
    calls: dict[int, list[str]] = {}
    finish = None
    for block in out.split(b"\n\n"):
        if not block.startswith(b"data: {"):
            assert block in (b"", b"data: [DONE]")
            continue
        chunk = json.loads(block[6:])
        for choice in chunk["choices"]:
            delta = choice["delta"]
            text += delta.get("content") or ""
            reasoning += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", []):
                entry = calls.setdefault(call["index"], ["", "", ""])
                entry[0] += call.get("id", "")
                entry[1] += call["function"].get("name", "")
                entry[2] += call["function"].get("arguments", "")
            finish = choice["finish_reason"] or finish
    return text, reasoning, [(call_id, name, json.loads(arguments)) for call_id, name, arguments in calls.values()], finish


# --- there and back -------------------------------------------------------------------------------------------------------


def meaning(message: dict[str, Any]) -> list[Any]:
    """What crosses: texts joined, calls with their JSON, results, images; in order of their kinds."""
    content = message["content"]
    blocks = [{"type": "text", "text": content}] if isinstance(content, str) else content
    texts = "".join(block["text"] for block in blocks if block["type"] == "text")
    calls = [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    results = [(block["tool_use_id"], texts_of(block.get("content"))) for block in blocks if block["type"] == "tool_result"]
    images = [block["source"] for block in blocks if block["type"] == "image" and block["source"]["type"] != "file"]
    return [texts, calls, results, images]


def texts_of(content: Any) -> str:
    return content if isinstance(content, str) else "".join(block.get("text", "") for block in content or [] if block["type"] == "text")


def has_nested_media(request: dict[str, Any]) -> bool:
    return any(
        isinstance(block, dict) and block.get("type") == "tool_result" and '"source"' in json.dumps(block)
        for message in request["messages"] if isinstance(message["content"], list) for block in message["content"]
    )  # fmt: skip


@each_record
def test_a_conversation_crossed_into_chat_and_back_says_the_same(record: dict[str, Any]) -> None:
    request = MESSAGES.read_request(read(record))
    chat = target()
    warnings = CHAT.lost(request, chat)
    leave_home(request, "openai-chat")
    there = CHAT.write_request(request, chat)
    back = CHAT.read_request(CHAT.read_call(there, "chat", HEAD))
    leave_home(back, "anthropic-messages")
    again = json.loads(MESSAGES.write_request(back, messages_target(quirks=Quirks(thinking="budget"))))
    if has_nested_media(record["request"]):
        assert any(warning.kind == "moved" for warning in warnings)
        return
    asked = [meaning(message) for message in record["request"]["messages"] if message["role"] != "system"]
    came = [meaning(message) for message in again["messages"]]
    assert merged(came) == merged(asked)
    names = [tool["name"] for tool in record["request"].get("tools") or [] if tool.get("type") in (None, "custom")]
    assert [tool["name"] for tool in again.get("tools", [])] == names
    lost_tools = [warning for warning in warnings if warning.param.startswith("tools[")]
    assert len(lost_tools) == len(record["request"].get("tools") or []) - len(names)


def merged(messages: list[list[Any]]) -> list[Any]:
    """All of a conversation at once: turns may be joined or split on the way."""
    return [[entry for message in messages for entry in message[place]] for place in range(4)]


@each_plain
def test_a_reply_crossed_into_chat_and_back_says_the_same(record: dict[str, Any]) -> None:
    original = json.loads(record["response"])
    reply = crossed(MESSAGES.read_reply(record["response"].encode(), WHERE))
    assert reply.usage is not None
    settlement = settlement_of(reply.usage, reply.raw_usage)
    there = json.loads(CHAT.write_reply(reply, ASKED, settlement))
    usage = there["usage"]
    own = original["usage"]
    cached, written = own.get("cache_read_input_tokens") or 0, own.get("cache_creation_input_tokens") or 0
    assert usage["prompt_tokens"] == own["input_tokens"] + cached + written
    assert usage["completion_tokens"] == own["output_tokens"]
    back = CHAT.read_reply(json.dumps(there).encode(), target())
    leave_home(back, "anthropic-messages")
    again = json.loads(MESSAGES.write_reply(back, ASKED, settlement_of(back.usage, b"")))
    assert meaning(again) == meaning(original)
    assert "".join(b["thinking"] for b in again["content"] if b["type"] == "thinking") == "".join(
        b["thinking"] for b in original["content"] if b["type"] == "thinking"
    )
    same = {"stop_sequence": "end_turn", "pause_turn": "max_tokens", "model_context_window_exceeded": "max_tokens"}
    assert again["stop_reason"] == same.get(original["stop_reason"], original["stop_reason"])
    assert again["usage"]["output_tokens"] == own["output_tokens"]
