"""Plain replies of OpenAI Responses: the neutral form both ways, the fast lane's splice, usage, and the echo of the request. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.neutral import Bag, Choice, Message, Part, Reply, Text, ToolCall
from aigate.core.target import Target
from aigate.dialects.body import is_array, read_time
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.openai_errors import read_error_object
from aigate.dialects.openai_responses_items import NAME, ItemWriter, give_proofs, objects, read_item
from aigate.dialects.openai_usage import open_pairs, read_usage_object
from aigate.errors import ClientError, ProviderError

_decode = msgspec.json.decode
_encode = msgspec.json.encode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)

_REASONS = {"max_output_tokens": "length", "content_filter": "content_filter"}  # incomplete_details.reason → finish reason
_INCOMPLETE = {finish: reason for reason, finish in _REASONS.items()}
_STATUSES = {"rate_limit_exceeded": 429, "insufficient_quota": 429, "invalid_prompt": 400}  # of an error that came without one
# What a response says of its request where the request does not.
_DEFAULTS: Bag = {
    "instructions": None, "max_output_tokens": None, "max_tool_calls": None, "metadata": {}, "parallel_tool_calls": True,
    "previous_response_id": None, "store": False, "reasoning": {"effort": None, "summary": None}, "service_tier": None, "temperature": None,
    "text": {"format": {"type": "text"}}, "tool_choice": "auto", "tools": [], "top_p": None, "truncation": "disabled", "user": None,
}  # fmt: skip


def _bad_reply(body: bytes) -> ProviderError:
    return ProviderError(f"the provider's reply of {len(body)} bytes is not a response with output", kind="bad_reply", provider_status=200)


def read_failure(fields: Any) -> ProviderError:
    """The error inside a failed response or an `error` event."""
    code = fields.get("code") if type(fields) is dict else None
    return read_error_object(fields, _STATUSES.get(code, 0) if isinstance(code, str) else 0)


# --- the fast lane --------------------------------------------------------------------------------------------------------


def open_reply(body: bytes, target: Target) -> OpenedReply:
    opened = open_pairs(body, target, "output")
    if opened is None or (opened.pairs is not None and not is_array(opened.pairs["output"])):
        raise _bad_reply(body)
    pairs = opened.pairs
    if pairs is not None and bytes(pairs.get("status", b"")) == b'"failed"':
        raise read_failure(_decode(pairs.get("error", b"null")) or {})
    return opened


def splice_reply(opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes:
    pairs: dict[str, Any] | None = opened.pairs
    if pairs is None:
        return opened.body
    pairs["model"] = asked
    pairs["usage"] = write_usage(settlement)
    return _encode(pairs | kept_state(opened.echo))


# --- the neutral form -----------------------------------------------------------------------------------------------------


def read_reply(body: bytes, target: Target) -> Reply:
    try:
        fields = _decode(body)
    except _UNREADABLE:
        raise _bad_reply(body) from None
    output = fields.pop("output", None) if type(fields) is dict else None
    if type(output) is not list or any(type(item) is not dict for item in output):
        raise _bad_reply(body)
    try:
        parts = give_proofs([part for place, item in enumerate(output) for part in read_item(item, f"output[{place}]")])
    except ClientError as error:  # the items are read as a request's are
        raise ProviderError(f"the provider's reply: {error.message}", kind="bad_reply", provider_status=200) from None
    usage = fields.pop("usage", None)
    reply_id, created, model = fields.pop("id", None), fields.pop("created_at", None), fields.pop("model", None)
    tokens = [each for part in parts if type(part) is Text for each in objects(part.bag.get("logprobs"))]
    choice = Choice(0, parts, finish_reason(fields, parts), {"content": tokens} if tokens else None)
    return Reply(
        reply_id if isinstance(reply_id, str) else "",
        read_time(created),
        model if isinstance(model, str) else "",
        [choice],
        read_usage_object(usage, target.quirks) if type(usage) is dict else None,
        _encode(usage) if type(usage) is dict else b"",
        {NAME: fields},
        NAME,
    )


def finish_reason(response: Bag, parts: list[Part]) -> str:
    if response.get("status") == "incomplete":
        details = response.get("incomplete_details")
        reason = details.get("reason") if type(details) is dict else None
        return _REASONS.get(reason, reason) if isinstance(reason, str) else "length"
    return "tool_calls" if any(type(part) is ToolCall for part in parts) else "stop"


def ending(finish: str | None) -> tuple[str, Bag | None]:
    """(status, incomplete_details) that a finish reason stands for."""
    reason = _INCOMPLETE.get(finish or "")
    return ("completed", None) if reason is None else ("incomplete", {"reason": reason})


def response_id(given: str) -> str:
    return given if given.startswith("resp_") else "resp_" + given


def write_reply(reply: Reply, asked: str, settlement: Settlement) -> bytes:
    own = reply.bags.get(NAME)
    choice = reply.choices[0] if reply.choices else Choice(0, [], None)
    reply_id = reply.id if own is not None else response_id(reply.id)
    writer = ItemWriter(reply_id)
    _add_logprobs(choice)
    writer.write_message(Message("assistant", choice.parts))
    fields: Bag = {"id": reply_id, "object": "response", "created_at": reply.created}
    if own is None:
        status, details = ending(choice.finish_reason)
        own = {"status": status, "error": None, "incomplete_details": details, **echo(reply.echo), "background": False}
    return _encode({**fields, **own, **kept_state(reply.echo), "model": asked, "output": writer.items, "usage": write_usage(settlement)})


def _add_logprobs(choice: Choice) -> None:
    """Log-probabilities stand with their text here; with the first where nobody knows better."""
    tokens = choice.logprobs.get("content") if type(choice.logprobs) is dict else None
    first = next((part for part in choice.parts if type(part) is Text), None)
    if tokens and first is not None:
        first.bag.setdefault("logprobs", tokens)


def echo(pairs: Mapping[str, Raw]) -> Bag:
    """The request as a response repeats it. `pairs` are the caller's, with the parameters of nested objects under their paths."""
    fields: Bag = {key: pairs.get(key, default) for key, default in _DEFAULTS.items()}
    if "reasoning.effort" in pairs:
        fields["reasoning"] = {"summary": None, **_object(pairs, "reasoning"), "effort": pairs["reasoning.effort"]}
    if "text.format" in pairs or "text.verbosity" in pairs:
        inside = {key[5:]: raw for key, raw in pairs.items() if key.startswith("text.")}
        fields["text"] = {"format": {"type": "text"}, **inside}
    return fields


def kept_state(pairs: Mapping[str, Raw]) -> Bag:
    """What a response says of what is kept here, whatever its provider says of itself."""
    return {key: pairs.get(key) for key in ("store", "previous_response_id")} if "store" in pairs else {}


def _object(pairs: Mapping[str, Raw], key: str) -> Bag:
    return (_decode(pairs[key], type=dict[str, Raw] | None) or {}) if key in pairs else {}


def write_usage(settlement: Settlement) -> Bag:
    """The usage object: the provider's own numbers where it gave them in this shape, with `cost` in USD."""
    own = _decode(settlement.raw_usage) if settlement.raw_usage else {}
    usage = settlement.usage
    if "input_tokens" not in own or "output_tokens" not in own or "input_tokens_details" not in own:
        own = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": usage.cache_write_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
    return {**own, "cost": settlement.cost_nanousd / 1e9}
