"""Plain replies of Anthropic Messages: the neutral form both ways, the fast lane's splice, and usage without decoding the rest. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from aigate.core.neutral import Bag, Choice, Media, Part, Reasoning, Reply, Text, ToolCall
from aigate.core.target import Target
from aigate.dialects.anthropic_errors import read_error_object
from aigate.dialects.anthropic_message import CALL_PROOF, NAME, read_content, seal_reasoning, write_block
from aigate.dialects.anthropic_usage import read_usage, write_usage
from aigate.dialects.body import is_array, open_object
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.proof import seal
from aigate.errors import ProviderError

FINISH_REASONS = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "pause_turn": "length",  # to be continued by the caller
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}
STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use", "content_filter": "refusal"}
_ENDS = ("stop_reason", "stop_sequence", "stop_details")

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def _bad_reply(body: bytes) -> ProviderError:
    return ProviderError(f"the provider's reply of {len(body)} bytes is not a message", kind="bad_reply", provider_status=200)


def message_id(given: str) -> str:
    """A reply's id as this format spells it."""
    return given if given.startswith("msg_") else "msg_" + given.rpartition("_")[2].rpartition("-")[2]


def finish_reason(stop_reason: object) -> str | None:
    return FINISH_REASONS.get(stop_reason, stop_reason) if isinstance(stop_reason, str) else None


def stop_reason(finish: str | None, has_calls: bool) -> str:
    """Some providers say `stop` where they call a tool; what was called decides."""
    return "tool_use" if has_calls and finish in ("stop", None) else STOP_REASONS.get(finish or "stop", "end_turn")


# --- the fast lane --------------------------------------------------------------------------------------------------------


def open_reply(body: bytes, target: Target) -> OpenedReply:
    try:
        pairs = open_object(body, "content")
    except _UNREADABLE:
        raise _bad_reply(body) from None
    content = pairs.get("content")
    if content is None or not is_array(content):
        error = _decode(pairs["error"]) if "error" in pairs else None
        raise read_error_object(error) if error else _bad_reply(body)
    opened = OpenedReply(body, pairs)
    raw = pairs.get("usage")
    fields = None if raw is None else _decode(raw)
    if type(fields) is dict:
        opened.usage = read_usage(fields)
        if opened.usage is not None:
            opened.raw_usage = bytes(raw)  # type: ignore[arg-type]
            tier = fields.get("service_tier")
            opened.service_tier = tier if isinstance(tier, str) else ""
    return opened


def splice_reply(opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes | None:
    pairs: dict[str, Any] | None = opened.pairs
    if pairs is None:
        return None
    pairs["model"] = asked
    pairs["usage"] = write_usage(settlement)
    return _encode(pairs)


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_reply(body: bytes, target: Target) -> Reply:
    try:
        pairs = _decode(body)
    except _UNREADABLE:
        raise _bad_reply(body) from None
    content = pairs.pop("content", None) if type(pairs) is dict else None
    if type(content) is not list:
        if type(pairs) is dict and pairs.get("error"):
            raise read_error_object(pairs["error"])
        raise _bad_reply(body)
    for key in ("type", "role"):
        pairs.pop(key, None)
    usage = pairs.pop("usage", None)
    reply_id, model = pairs.pop("id", None), pairs.pop("model", None)
    ends = {key: pairs.pop(key) for key in _ENDS if key in pairs}
    return Reply(
        reply_id if isinstance(reply_id, str) else "",
        0,
        model if isinstance(model, str) else "",
        [Choice(0, read_content(content)[0], finish_reason(ends.get("stop_reason")), bag=ends)],
        read_usage(usage) if type(usage) is dict else None,
        _encode(usage) if type(usage) is dict else b"",
        {NAME: pairs},
        NAME,
    )


def write_reply(reply: Reply, asked: str, settlement: Settlement) -> bytes:
    choice = reply.choices[0] if reply.choices else Choice(0, [], "stop")
    has_calls = any(type(part) is ToolCall for part in choice.parts)
    ends = choice.bag if reply.dialect == NAME else {"stop_reason": stop_reason(choice.finish_reason, has_calls), "stop_sequence": None}
    return _encode(
        {
            "id": message_id(reply.id),
            "type": "message",
            "role": "assistant",
            "model": asked,
            "content": [block for part in choice.parts for block in _write_answer(part)],
            **ends,
            **reply.bags.get(NAME, {}),
            "usage": write_usage(settlement),
        }
    )


def _write_answer(part: Part) -> list[Any]:
    block = write_answer_block(part)
    if block is None:
        return []
    if type(part) is ToolCall and part.signature is not None:
        return [write_call_proof(part.origin, part.signature), block]
    return [block]


def write_call_proof(origin: str, signature: str) -> Bag:
    """The block before a tool call that carries its foreign proof."""
    return {"type": "redacted_thinking", "data": seal(origin, signature + CALL_PROOF)}


def write_answer_block(part: Part) -> Any:
    """A block of an answer: foreign thinking shows with its proof sealed."""
    kind = type(part)
    if kind is Reasoning:
        return write_thinking(part)  # type: ignore[arg-type]
    if kind is Media:
        return None  # assistants have no media here
    block = write_block(part)
    if kind is Text and block is not None:
        block.setdefault("citations", None)
    return block


def write_thinking(part: Reasoning) -> Bag:
    if part.origin != NAME:
        return {"type": "thinking", "thinking": part.text, "signature": seal_reasoning(part.origin, part.signature, part.encrypted), **part.bag}
    if part.encrypted is not None:
        return {"type": "redacted_thinking", "data": part.encrypted, **part.bag}
    return {"type": "thinking", "thinking": part.text, **({} if part.signature is None else {"signature": part.signature}), **part.bag}
