"""Streams of other formats as Messages clients get them: valid to the strictest reader, whatever the provider does and however it is cut."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.core.call import Call
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.dialects.proof import unseal
from aigate.errors import ClientError
from tests.dialects.anthropic_recorded import MESSAGES, fold, message_streams, messages_target
from tests.dialects.recorded import needs_recordings, recorded_target, streams, target
from tests.dialects.streaming import chunk_of, content_chunk, cuts, slices, sse
from tests.dialects.streaming import fold as fold_chat

CHAT = DIALECTS["openai-chat"]
ASKED = "mock/asked"


def events_of(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(block.partition(b"data: ")[2]) for block in out.split(b"\n\n") if block]


def crossed(data: bytes, where: Any = None, *, is_spliced: bool = True, sizes: tuple[int, ...] = (1 << 30,)) -> bytes:
    reader = CHAT.stream_reader(where or target(), is_spliced)
    writer = MESSAGES.stream_writer(Call("anthropic-messages", "chat", {}, 0, ()), ASKED, "req_7f")
    usage, raw_usage, out = None, b"", b""
    for events in [*(reader.feed(piece) for piece in slices(data, sizes)), reader.close()]:
        for event in events:
            usage, raw_usage = (event.usage, event.raw_usage) if event.usage else (usage, raw_usage)
        out += writer.write([event for event in events if event.error is None])
    return out + writer.finish(Settlement(usage or NOTHING, 1_234_500, raw_usage))


def call_chunk(index: int, arguments: str, call_id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    return chunk_of({"tool_calls": [{"index": index, **({"id": call_id, "type": "function"} if call_id else {}), "function": function}]})


def test_reasoning_text_and_calls_become_blocks_in_order() -> None:
    data = sse(
        chunk_of({"role": "assistant", "content": ""}),
        chunk_of({"reasoning_content": "let me "}),
        chunk_of({"reasoning_content": "see"}),
        content_chunk("I "),
        content_chunk("look."),
        call_chunk(0, "", "call_1", "f"),
        call_chunk(0, '{"a":'),
        call_chunk(0, "1}"),
        call_chunk(1, "", "call_2", "g"),
        call_chunk(1, "{}"),
        chunk_of({}, finish_reason="tool_calls"),
        {"choices": [], "usage": {"prompt_tokens": 9, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": 5}}},
    )
    message = fold(crossed(data))
    thinking, text, first, second = message["content"]
    assert (thinking["thinking"], text) == ("let me see", {"type": "text", "text": "I look."})
    assert unseal(thinking["signature"]) is not None  # it is known again when it comes back
    assert first == {"type": "tool_use", "id": "call_1", "name": "f", "input": {"a": 1}}
    assert second == {"type": "tool_use", "id": "call_2", "name": "g", "input": {}}
    assert (message["stop_reason"], message["model"], message["id"]) == ("tool_use", ASKED, "msg_1")
    assert message["usage"] == {
        "input_tokens": 4, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 0, "output_tokens": 4, "cost": 0.0012345
    }  # fmt: skip


def test_calls_that_come_interleaved_are_told_one_after_the_other() -> None:
    data = sse(
        call_chunk(0, "", "a", "f"),
        call_chunk(1, "", "b", "g"),
        call_chunk(1, '{"y":'),
        call_chunk(0, '{"x":1}'),
        call_chunk(1, "2}"),
        chunk_of({}, finish_reason="stop"),
    )
    message = fold(crossed(data))
    assert [(block["id"], block["name"], block["input"]) for block in message["content"]] == [("a", "f", {"x": 1}), ("b", "g", {"y": 2})]
    assert message["stop_reason"] == "tool_use"


def test_a_call_without_arguments_has_an_empty_object() -> None:
    message = fold(crossed(sse(call_chunk(0, "", "a", "f"), chunk_of({}, finish_reason="tool_calls"))))
    assert message["content"] == [{"type": "tool_use", "id": "a", "name": "f", "input": {}}]


@pytest.mark.parametrize(("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("eos", "end_turn")])
def test_a_stream_without_content_is_still_a_message(finish: str, reason: str) -> None:
    message = fold(crossed(sse(chunk_of({"role": "assistant"}), chunk_of({}, finish_reason=finish))))
    assert (message["content"], message["stop_reason"]) == ([], reason)


def test_only_the_first_choice_is_told() -> None:
    data = sse(content_chunk("a"), content_chunk("x", index=1), content_chunk("b"), chunk_of({}, finish_reason="stop"))
    assert fold(crossed(data))["content"] == [{"type": "text", "text": "ab"}]


def test_a_failure_is_an_event_and_keep_alives_are_pings() -> None:
    writer = MESSAGES.stream_writer(Call("anthropic-messages", "chat", {}, 0, ()), ASKED, "req_7f")
    assert writer.keep_alive() == b'event: ping\ndata: {"type":"ping"}\n\n'
    told = writer.fail(ClientError("no", status=529), "req_7f")
    assert told.startswith(b"event: error\n")
    (event,) = events_of(told)
    assert (event["type"], event["error"]["type"], event["error"]["message"], event["request_id"]) == ("error", "overloaded_error", "no", "req_7f")


TEXTS = st.lists(st.tuples(st.sampled_from(["content", "reasoning_content"]), st.text(max_size=12)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(TEXTS, st.lists(st.integers(1, 60), min_size=1, max_size=4), st.booleans())
def test_what_was_said_arrives_however_it_is_cut(said: list[tuple[str, str]], sizes: list[int], is_spliced: bool) -> None:
    data = sse(*(chunk_of({kind: text}) for kind, text in said), chunk_of({}, finish_reason="stop"))
    content = fold(crossed(data, is_spliced=is_spliced, sizes=tuple(sizes)))["content"]
    for kind, wire in (("content", "text"), ("reasoning_content", "thinking")):
        assert "".join(block.get(wire, "") for block in content) == "".join(text for name, text in said if name == kind)


RECORDED = pytest.mark.parametrize("record", streams(), ids=lambda record: record["id"])


@needs_recordings
@RECORDED
def test_every_recorded_chat_stream_becomes_a_message(record: dict[str, Any]) -> None:
    where, data = recorded_target(record), record["response"].encode()
    reader_fails = any(event.error for event in [*CHAT.stream_reader(where, True).feed(data)])
    if reader_fails:
        pytest.skip("the recording ends in an error")
    own = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1").write(CHAT.stream_reader(where, False).feed(data))
    chunks = [json.loads(block[6:]) for block in own.split(b"\n\n") if block.startswith(b"data: {")]
    wanted = fold_chat(chunks).get(0, {"content": "", "reasoning_content": "", "tool_calls": {}})
    message = fold(crossed(data, where))
    blocks = message["content"]
    assert "".join(block["text"] for block in blocks if block["type"] == "text") == wanted["content"]
    assert "".join(block["thinking"] for block in blocks if block["type"] == "thinking") == wanted["reasoning_content"]
    calls = [(block["id"], block["name"], block["input"]) for block in blocks if block["type"] == "tool_use"]
    assert calls == [(call["id"], call["name"], json.loads(call["arguments"] or "{}")) for call in wanted["tool_calls"].values()]
    for is_spliced in (True, False):
        for sizes in cuts(data, (7, 300), (1700,)):
            assert fold(crossed(data, where, is_spliced=is_spliced, sizes=sizes)) == message


# --- from the provider ----------------------------------------------------------------------------------------------------


@given(st.binary(max_size=300) | st.lists(st.sampled_from([b"event: x\n", b"data: ", b"{}", b'{"type":"content_block_delta"}', b'{"type":"error"}',
       b'{"type":"message_delta","delta":3,"usage":4}', b'{"type":"message_start","message":[]}', b"\n\n", b'{"type":7}', b"[]"])).map(b"".join))
def test_no_bytes_of_a_provider_break_the_reader(data: bytes) -> None:
    reader = MESSAGES.stream_reader(messages_target(), True)
    writer = MESSAGES.stream_writer(Call("anthropic-messages", "chat", {}, 0, ()), ASKED, "req_7f")
    for events in (reader.feed(data), reader.close()):
        writer.write([event for event in events if event.error is None])
    writer.finish(Settlement(NOTHING, 0))


@needs_recordings
def test_most_of_a_long_text_is_never_decoded() -> None:
    for record in message_streams():
        data = record["response"].encode()
        reader = MESSAGES.stream_reader(messages_target(), True)
        fast = sum(event.count for piece in slices(data, (1700,)) for event in reader.feed(piece) if event.texts is not None)
        deltas = data.count(b'"text_delta"')
        if deltas >= 20 and data.count(b"content_block_start") < 8:
            assert fast > deltas // 2, record["id"]
