"""What is newer than this code, in every format: kinds of parts and events that nobody here knows pass on in their own format, are warned of
when they would have to cross, and are never fatal."""

from __future__ import annotations

import json
from typing import Any, NamedTuple

import pytest

from aigate.core.neutral import leave_home
from aigate.core.usage import NOTHING
from aigate.dialects.dialect import Settlement
from tests.dialects.formats import ASKED, FORMATS, PAIRS, Format, call_of, crossed, name_of, streamed, where
from tests.dialects.meaning import told

each_pair = pytest.mark.parametrize(("form", "other"), PAIRS, ids=name_of)
NEWER = "newerThanThisCode"


class Sample(NamedTuple):
    """A request, a reply and the events of a stream that say `hi` and hold one thing of an unknown kind."""

    request: dict[str, Any]
    reply: dict[str, Any]
    events: list[dict[str, Any]]


def _chat(delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    head = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return {**head, "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}]}


_UNKNOWN = {"type": NEWER, NEWER: {"a": 1}}
_MESSAGE = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1}}
_TEXT = {"type": "output_text", "text": "hi", "annotations": []}
_ITEM = {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": [_TEXT]}
_RESPONSE = {"id": "resp_1", "object": "response", "created_at": 1, "model": "m", "error": None, "usage": {"input_tokens": 1, "output_tokens": 1, "total_tokens": 2}}
_PLACE = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
SAMPLES = {
    "openai-chat": Sample(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, _UNKNOWN]}]},
        {"id": "c", "object": "chat.completion", "created": 1, "model": "m", NEWER: 1, "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
         "choices": [{"index": 0, "message": {"role": "assistant", "content": "hi", "refusal": None, NEWER: {"a": 1}}, "finish_reason": "stop"}]},
        [_chat({"role": "assistant", "content": ""}), _chat({"content": "hi"}), _chat({NEWER: {"a": 1}}), _chat({}, "stop")],
    ),
    "openai-responses": Sample(
        {"input": [{"role": "user", "content": "hi"}, _UNKNOWN]},
        {**_RESPONSE, "status": "completed", "output": [_ITEM, {"id": "x", **_UNKNOWN}]},
        [
            {"type": "response.created", "response": {**_RESPONSE, "status": "in_progress", "output": [], "usage": None}},
            {"type": "response.output_item.added", "output_index": 0, "item": {**_ITEM, "content": []}},
            {"type": "response.content_part.added", **_PLACE, "part": {**_TEXT, "text": ""}},
            {"type": "response.output_text.delta", **_PLACE, "delta": "hi", "logprobs": []},
            {"type": f"response.{NEWER}", "a": 1},
            {"type": "response.output_text.done", **_PLACE, "text": "hi", "logprobs": []},
            {"type": "response.output_item.done", "output_index": 0, "item": _ITEM},
            {"type": "response.completed", "response": {**_RESPONSE, "status": "completed", "output": [_ITEM]}},
        ],
    ),
    "anthropic-messages": Sample(
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}, _UNKNOWN]}]},
        {**_MESSAGE, "content": [{"type": "text", "text": "hi"}, _UNKNOWN], "stop_reason": "end_turn"},
        [
            {"type": "message_start", "message": {**_MESSAGE, "content": [], "stop_reason": None}},
            {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
            {"type": "content_block_stop", "index": 0},
            {"type": NEWER, "a": 1},
            {"type": "content_block_start", "index": 1, "content_block": _UNKNOWN},
            {"type": "content_block_delta", "index": 1, "delta": {"type": f"{NEWER}_delta", "a": 1}},
            {"type": "content_block_stop", "index": 1},
            {"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": {"output_tokens": 1}},
            {"type": "message_stop"},
        ],
    ),
    "gemini": Sample(
        {"contents": [{"role": "user", "parts": [{"text": "hi"}, {NEWER: {"a": 1}}]}]},
        {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}, {NEWER: {"a": 1}}]}, "finishReason": "STOP", "index": 0}],
         "usageMetadata": {"promptTokenCount": 1, "candidatesTokenCount": 1, "totalTokenCount": 2}, "modelVersion": "m", "responseId": "r"},
        [
            {"candidates": [{"content": {"role": "model", "parts": [{"text": "hi"}, {NEWER: {"a": 1}}]}, "index": 0}], "responseId": "r"},
            {"candidates": [{"content": {"role": "model", "parts": []}, "finishReason": "STOP", "index": 0}], NEWER: 1, "responseId": "r"},
        ],
    ),
}  # fmt: skip


def stream_of(form: Format) -> bytes:
    out = b""
    for number, event in enumerate(SAMPLES[form.name].events):
        name = f"event: {event['type']}\n".encode() if "type" in event else b""
        numbered = {**event, "sequence_number": number} if form.name == "openai-responses" else event
        out += name + b"data: " + json.dumps(numbered).encode() + b"\n\n"
    return out + (b"data: [DONE]\n\n" if form.name == "openai-chat" else b"")


@each_pair
def test_an_unknown_part_of_a_request_passes_on_or_is_warned_of(form: Format, other: Format) -> None:
    there, warnings, body = crossed(form, call_of(form, SAMPLES[form.name].request), other, where(other))
    assert (NEWER in body.decode()) == (form is other)
    assert any(NEWER in warning.reason for warning in warnings) == (form is not other), warnings
    assert "".join(part.text for message in there.messages for part in told_texts(message)) == "hi"


def told_texts(message: Any) -> list[Any]:
    return [part for part in message.parts if type(part).__name__ == "Text"]


@each_pair
def test_an_unknown_part_of_a_reply_passes_on_or_is_left_out(form: Format, other: Format) -> None:
    reply = form.dialect.read_reply(json.dumps(SAMPLES[form.name].reply).encode(), where(form))
    settlement = Settlement(reply.usage or NOTHING, 0, reply.raw_usage if form is other else b"")
    leave_home(reply, other.name)
    written = other.dialect.write_reply(reply, ASKED, settlement)
    assert (NEWER in written.decode()) == (form is other), written
    assert told(other.dialect.read_reply(written, where(other)).choices[0].parts)["text"] == "hi"


@each_pair
@pytest.mark.parametrize("is_spliced", [True, False])
def test_an_unknown_event_passes_on_or_is_left_out(form: Format, other: Format, is_spliced: bool) -> None:
    sent = streamed(stream_of(form), form, other, where(form), is_spliced=is_spliced)
    assert not sent.errors
    assert (NEWER in sent.out.decode()) == (form is other), sent.out
    reply = other.dialect.read_reply(json.dumps(other.fold(sent.out)).encode(), where(other))
    assert told(reply.choices[0].parts)["text"] == "hi"


@each_pair
def test_the_data_of_an_image_is_never_decoded(form: Format, other: Format) -> None:
    data = "not base64 at all, but nobody looks!"
    image: dict[str, Any] = {
        "openai-chat": {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}]}]},
        "openai-responses": {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": f"data:image/png;base64,{data}"}]}]},
        "anthropic-messages": {"messages": [{"role": "user", "content": [{"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}]}]},
        "gemini": {"contents": [{"role": "user", "parts": [{"inlineData": {"mimeType": "image/png", "data": data}}]}]},
    }[form.name]  # fmt: skip
    assert data in crossed(form, call_of(form, image), other, where(other))[2].decode()


def test_every_format_has_a_sample() -> None:
    assert SAMPLES.keys() == FORMATS.keys()
