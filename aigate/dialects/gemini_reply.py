"""Plain replies of Gemini: the neutral form both ways, the fast lane's splice, and usage without decoding the rest. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from aigate.core.neutral import Bag, Choice, Part, Reply, Text, ToolCall
from aigate.core.target import Target
from aigate.dialects.body import open_object
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.gemini_candidate import read_citations, read_finish, read_logprobs, write_citations, write_finish, write_logprobs
from aigate.dialects.gemini_errors import read_error_object
from aigate.dialects.gemini_parts import NAME, made_up_id, read_part, write_part
from aigate.dialects.gemini_usage import read_usage, service_tier, write_usage
from aigate.errors import ProviderError

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _bad_reply(body: bytes) -> ProviderError:
    return ProviderError(f"the provider's reply of {len(body)} bytes is not a generateContent response", kind="bad_reply", provider_status=200)


# --- the fast lane --------------------------------------------------------------------------------------------------------


def open_reply(body: bytes, target: Target) -> OpenedReply:
    try:
        pairs = open_object(body, "candidates")
    except _UNREADABLE:
        raise _bad_reply(body) from None
    if "candidates" not in pairs and "promptFeedback" not in pairs:
        if "error" in pairs:
            raise read_error_object(_decode(pairs["error"]))
        raise _bad_reply(body)
    opened = OpenedReply(body, pairs)
    raw = pairs.get("usageMetadata")
    fields = None if raw is None else _decode(raw)
    if type(fields) is dict:
        opened.usage = read_usage(fields, "candidates" not in pairs)
        opened.service_tier = service_tier(fields)
        if opened.usage is not None:
            opened.raw_usage = bytes(raw)  # type: ignore[arg-type]
    return opened


def splice_reply(opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes | None:
    pairs: dict[str, Any] | None = opened.pairs
    if pairs is None:
        return opened.body
    pairs["modelVersion"] = asked
    if opened.usage is None:
        pairs["usageMetadata"] = write_usage(settlement)
    return _encode(pairs)


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_reply(body: bytes, target: Target) -> Reply:
    try:
        pairs = _decode(body)
    except _UNREADABLE:
        raise _bad_reply(body) from None
    if type(pairs) is list and len(pairs) == 1:
        pairs = pairs[0]
    if type(pairs) is not dict:
        raise _bad_reply(body)
    candidates = pairs.pop("candidates", None)
    if type(candidates) is not list or any(type(candidate) is not dict for candidate in candidates):
        if pairs.get("error"):
            raise read_error_object(pairs["error"])
        if type(pairs.get("promptFeedback")) is not dict:
            raise _bad_reply(body)
        candidates = []
    usage, reply_id, model = pairs.pop("usageMetadata", None), pairs.pop("responseId", None), pairs.pop("modelVersion", None)
    reply_id = reply_id if isinstance(reply_id, str) else ""
    choices = [_read_candidate(candidate, reply_id, place) for place, candidate in enumerate(candidates)]
    return Reply(
        reply_id,
        created_at(pairs),
        model if isinstance(model, str) else "",
        choices or [Choice(0, [], "content_filter" if blocked(pairs) else "stop")],
        read_usage(usage, not choices) if type(usage) is dict else None,
        _encode(usage) if type(usage) is dict else b"",
        {NAME: pairs},
        NAME,
    )


def created_at(pairs: Bag) -> int:
    """Unix seconds of `createTime`, which only Vertex says; 0 where there is none."""
    created = pairs.get("createTime")
    if not isinstance(created, str):
        return 0
    try:
        return int(datetime.fromisoformat(created[:19] + "+00:00").timestamp())
    except ValueError:
        return 0


def blocked(pairs: Bag) -> bool:
    """Whether the prompt was refused: then there are no candidates."""
    feedback = pairs.get("promptFeedback")
    return type(feedback) is dict and "blockReason" in feedback


def _read_candidate(candidate: Bag, reply_id: str, place: int) -> Choice:
    index = candidate.pop("index", place)
    index = index if type(index) is int else place
    content = candidate.pop("content", None)
    wire_parts = content.get("parts") if type(content) is dict else None
    parts = [read_part(part) for part in wire_parts] if type(wire_parts) is list else []
    calls = [part for part in parts if type(part) is ToolCall]
    for number, call in enumerate(calls):
        if not call.id:
            call.id = made_up_id(reply_id, index, number)
    read_citations(candidate.get("groundingMetadata"), [part for part in parts if type(part) is Text])
    return Choice(
        index,
        parts,
        read_finish(candidate.get("finishReason"), bool(calls)),
        read_logprobs(candidate.get("logprobsResult")),
        {},
        candidate,  # finishReason and logprobsResult stay: the neutral words say less
    )


def write_reply(reply: Reply, asked: str, settlement: Settlement) -> bytes:
    own = reply.bags.get(NAME)
    fields: Bag = {}
    if own is None or not blocked(own):
        fields["candidates"] = [_write_candidate(choice) for choice in reply.choices]
    if own is None and reply.created:
        fields["createTime"] = datetime.fromtimestamp(reply.created, UTC).isoformat().replace("+00:00", "Z")
    return _encode(fields | (own or {}) | {"usageMetadata": write_usage(settlement), "modelVersion": asked, "responseId": reply.id})


def write_parts(parts: list[Part]) -> list[Any]:
    return [written for part in parts if (written := write_part(part, is_for_client=True)) is not None]


def _write_candidate(choice: Choice) -> Bag:
    fields: Bag = {"content": {"parts": write_parts(choice.parts), "role": "model"}}
    if choice.finish_reason is not None:
        fields["finishReason"] = write_finish(choice.finish_reason, choice.bag)
    fields["index"] = choice.index
    if not choice.bag:
        grounding, logprobs = write_citations(choice.parts), write_logprobs(choice.logprobs)
        if grounding is not None:
            fields["groundingMetadata"] = grounding
        if logprobs is not None:
            fields["logprobsResult"] = logprobs
    return fields | choice.bag
