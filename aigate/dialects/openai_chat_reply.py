"""Plain replies of OpenAI chat: the neutral form both ways, the fast lane's splice, and usage without decoding the rest. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from aigate.core.neutral import Bag, Choice, Part, Reasoning, Refusal, Reply, Text, ToolCall
from aigate.core.target import Quirks, Target
from aigate.dialects.body import is_array, read_time
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.openai_chat_details import DETAILS, write_details
from aigate.dialects.openai_chat_message import (
    LEGACY_CALL,
    NAME,
    mint_call_id,
    put_signature,
    read_citations,
    read_parts,
    split_content,
    write_annotation,
    write_parts,
)
from aigate.dialects.openai_errors import error_in, read_error_object
from aigate.dialects.openai_usage import open_pairs, read_usage_object, write_usage
from aigate.dialects.think import split_thinking
from aigate.errors import ClientError, ProviderError

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_SAID = (Text, Refusal, Reasoning, ToolCall)  # the parts an answer of this format is made of
_CONTENT_IN_PARTS = re.compile(rb'"content"\s*:\s*\[')
_ARGUMENTS_NO_TEXT = re.compile(rb'"arguments"\s*:\s*[^"\s]')
_ESCAPED_LETTER = b"\\u00"  # keys and tags may be spelt with it


def _bad_reply(body: bytes) -> ProviderError:
    return ProviderError(f"the provider's reply of {len(body)} bytes is not a chat completion", kind="bad_reply", provider_status=200)


# --- the fast lane --------------------------------------------------------------------------------------------------------


def open_reply(body: bytes, target: Target) -> OpenedReply:
    """Usage and the top-level pairs; the choices stay as they are."""
    opened = open_pairs(body, target, "choices")
    if opened is None or (opened.pairs is not None and not is_array(opened.pairs["choices"])):
        raise _bad_reply(body)
    return opened


def splice_reply(opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes | None:
    pairs: dict[str, Any] | None = opened.pairs
    if pairs is None:
        return opened.body
    quirks = target.quirks
    if _needs_mending(bytes(pairs["choices"]), quirks):
        return None
    if quirks.drops:
        for key in quirks.drops:
            pairs.pop(key, None)
    pairs["object"] = "chat.completion"
    pairs["model"] = asked
    pairs["usage"] = write_usage(settlement)
    return _encode(pairs)


def _needs_mending(text: bytes, quirks: Quirks) -> bool:
    """Whether the text of the choices shows what only the neutral form puts right. May say yes for nothing; never no wrongly."""
    if b'"reasoning"' in text or (b"\\" in text and _ESCAPED_LETTER in text):
        return True
    if text.count(b"[") > 1 and _CONTENT_IN_PARTS.search(text):
        return True
    field = quirks.reasoning_field
    if field == "parts" and b'"thinking"' in text:
        return True
    if field == "think_tags" and b"<think>" in text:
        return True
    if b'"function"' not in text:
        return False
    if quirks.mints_tool_ids or b'"type"' not in text or b'""' in text:  # calls without type or id, or whose id may be empty
        return True
    return _ARGUMENTS_NO_TEXT.search(text) is not None


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_reply(body: bytes, target: Target) -> Reply:
    try:
        pairs = _decode(body)
    except _UNREADABLE:
        raise _bad_reply(body) from None
    choices = pairs.pop("choices", None) if type(pairs) is dict else None
    if type(choices) is not list or any(type(choice) is not dict for choice in choices):
        if error := error_in(pairs):
            raise read_error_object(error)
        raise _bad_reply(body)
    quirks = target.quirks
    for key in (*quirks.drops, "object"):
        pairs.pop(key, None)
    usage = pairs.pop("usage", None)
    reply_id, created, model = pairs.pop("id", None), pairs.pop("created", None), pairs.pop("model", None)
    reply_id = reply_id if isinstance(reply_id, str) else ""
    try:
        read = [_read_choice(choice, reply_id, quirks) for choice in choices]
    except ClientError:  # a part that would be wrong in a request too
        raise _bad_reply(body) from None
    return Reply(
        reply_id,
        read_time(created),
        model if isinstance(model, str) else "",
        read,
        read_usage_object(usage, quirks) if type(usage) is dict else None,
        _encode(usage) if type(usage) is dict else b"",
        {NAME: pairs},
        NAME,
    )


def _read_choice(choice: Bag, reply_id: str, quirks: Quirks) -> Choice:
    index = choice.pop("index", 0)
    index = index if type(index) is int else 0
    message = choice.pop("message", None)
    message = message if type(message) is dict else {}
    message.pop("role", None)
    _gather_reasoning(message, quirks.reasoning_field)
    parts, _ = read_parts(message)
    cited = read_citations(message.get("annotations"))
    text = next((part for part in parts if type(part) is Text), None)
    if cited and text is not None:
        text.citations = cited
    calls = [part for part in parts if type(part) is ToolCall and part.kind in ("function", "custom")]
    for place, call in enumerate(calls):
        if not call.id:
            call.id = mint_call_id(reply_id, index, place)
    finish_reason = choice.pop("finish_reason", None)
    logprobs = choice.pop("logprobs") if choice.get("logprobs") is not None else None
    return Choice(index, parts, finish_reason if isinstance(finish_reason, str) else None, logprobs, message, choice)


def _gather_reasoning(message: Bag, field: str) -> None:
    """Reasoning from wherever this provider puts it to `reasoning_content`, content to one string."""
    content = message.get("content")
    reasoning = None
    if isinstance(message.get("reasoning"), str):
        reasoning = message.pop("reasoning")
    if field == "think_tags" and isinstance(content, str):
        thought, text = split_thinking(content)
        if thought:
            reasoning, message["content"] = thought, text
    if type(content) is list:
        text, thought, others = split_content(content)
        reasoning = reasoning if thought is None else thought
        message["content"] = text
        if others:
            message["content_parts"] = others
    if isinstance(reasoning, str) and not isinstance(message.get("reasoning_content"), str):
        message["reasoning_content"] = reasoning


def write_reply(reply: Reply, asked: str, settlement: Settlement) -> bytes:
    own = reply.bags.get(NAME)
    return _encode(
        {
            "id": reply.id,
            "object": "chat.completion",
            "created": reply.created,
            "model": asked,
            **(own or {}),
            "choices": [_write_choice(choice, own is not None) for choice in reply.choices],
            "usage": write_usage(settlement),
        }
    )


def _write_choice(choice: Choice, is_own: bool) -> Bag:
    """`is_own`: it came in this format, so what it left out is left out."""
    parts = choice.parts if is_own else [part for part in choice.parts if type(part) in _SAID]
    message: Bag = {"role": "assistant", **write_parts(parts, True)}
    calls = [part for part in parts if type(part) is ToolCall and part.kind != LEGACY_CALL]
    for call, written in zip(calls, message.get("tool_calls", ()), strict=True):
        put_signature(written, call)
    if not is_own:
        message.setdefault("content", None)
        details = write_details(parts)
        if details:
            message[DETAILS] = details
        annotations = _annotations(parts)
        if annotations:
            message["annotations"] = annotations
    for key, value in choice.message_bag.items():
        message.setdefault(key, value)
    fields: Bag = {"index": choice.index, "message": message, **choice.bag, "finish_reason": choice.finish_reason}
    if choice.logprobs is not None:
        fields["logprobs"] = choice.logprobs
    return fields


def _annotations(parts: Sequence[Part]) -> list[Bag]:
    """The citations of all texts, by their place in the one text these become."""
    annotations: list[Bag] = []
    offset = 0
    for part in parts:
        if type(part) is not Text:
            continue
        for citation in part.citations:
            if citation.url is not None:
                start = offset + (citation.start or 0)
                end = offset + (len(part.text) if citation.end is None else citation.end)
                annotations.append(write_annotation(citation, start, end))
        offset += len(part.text)
    return annotations
