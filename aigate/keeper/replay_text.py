"""An archived call as a request to another model, and what was answered. Pure: each format's bytes are read by its own dialect."""

from __future__ import annotations

import base64
import struct
from typing import Any

import msgspec

from aigate.archive.records import ArchivedCall
from aigate.core.compare import Output
from aigate.core.neutral import Reply, Text, ToolCall
from aigate.core.target import Model, Provider, Quirks, Target
from aigate.dialects import DIALECTS
from aigate.errors import ClientError, GateError

_NOT_SENT_AGAIN = ("stream", "stream_options", "fallbacks", "background", "store")  # how it was delivered, not what was asked
_EMBEDDINGS, _COMPLETIONS, _GEMINI = "openai-embeddings", "openai-completions", "gemini"


def request_for(call: ArchivedCall, target_model: str) -> tuple[str, bytes]:
    """(path, body) that ask the other model the same, in one plain reply. Raises ClientError where the request cannot be read."""
    try:
        pairs = msgspec.json.decode(call.request, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        raise ClientError("source_request_id: that request is no JSON object and cannot be sent again.", param="source_request_id") from None
    if call.surface == _GEMINI:
        return f"/v1beta/models/{target_model}:generateContent", call.request
    for name in _NOT_SENT_AGAIN:
        pairs.pop(name, None)
    pairs["model"] = target_model
    if call.surface == "openai-chat":
        pairs["fallbacks"] = False
    if call.surface == "openai-responses":
        pairs["store"] = False
    return call.path.removeprefix("/anthropic"), msgspec.json.encode(pairs)


def output_of(surface: str, reply: bytes, *, is_stream: bool) -> Output:
    """Raises GateError for what cannot be read as an answer."""
    if surface == _EMBEDDINGS:
        return _vectors(reply)
    if surface == _COMPLETIONS:
        return _completion(reply, is_stream)
    dialect = DIALECTS[surface]
    target = _target(surface)
    if not is_stream:
        return _of_reply(dialect.read_reply(reply, target))
    if surface == _GEMINI and reply.startswith(b"["):  # its streams may be one JSON array
        reply = b"".join(b"data: %b\n\n" % bytes(each) for each in msgspec.json.decode(reply, type=list[msgspec.Raw]))
    reader = dialect.stream_reader(target, is_spliced=False)
    texts: list[str] = []
    calls: dict[int, list[str]] = {}
    for event in (*reader.feed(reply), *reader.close()):
        if event.error is not None:
            raise event.error
        for delta in () if event.chunk is None else event.chunk.deltas:
            if delta.index == 0:
                texts.append(delta.text or "")
                for each in delta.tool_calls:
                    call = calls.setdefault(each.index, ["", ""])
                    call[0] = each.name or call[0]
                    call[1] += each.arguments
    return Output("".join(texts), tuple((name, arguments) for name, arguments in calls.values()))


def _of_reply(reply: Reply) -> Output:
    parts = reply.choices[0].parts if reply.choices else []
    text = "".join(part.text for part in parts if isinstance(part, Text))
    return Output(text, tuple((part.name, part.arguments) for part in parts if isinstance(part, ToolCall)))


def _vectors(reply: bytes) -> Output:
    try:
        return Output(vectors=tuple(_vector(each["embedding"]) for each in msgspec.json.decode(reply)["data"]))
    except (msgspec.DecodeError, LookupError, TypeError, ValueError):
        raise GateError("the reply cannot be read as embeddings", status=502) from None


def _vector(embedding: str | list[float]) -> tuple[float, ...]:
    """A list of numbers, or little-endian floats in base64."""
    if isinstance(embedding, str):
        data = base64.b64decode(embedding)
        return struct.unpack(f"<{len(data) // 4}f", data)
    return tuple(map(float, embedding))


def _completion(reply: bytes, is_stream: bool) -> Output:
    try:
        if not is_stream:
            return Output(msgspec.json.decode(reply)["choices"][0]["text"])
        events = [line[6:] for line in reply.split(b"\n") if line.startswith(b"data: {")]
        return Output("".join(choice["text"] for event in events for choice in msgspec.json.decode(event)["choices"] if choice.get("index", 0) == 0))
    except (msgspec.DecodeError, LookupError, TypeError):
        raise GateError("the reply cannot be read as a completion", status=502) from None


def _target(surface: str) -> Target:
    """Replies and streams were written by us: as their format has it, with no provider's oddities."""
    provider = Provider(name="aigate", base_url="")
    return Target("", provider, "", Model(slug=""), Quirks(), surface, "", "chat")
