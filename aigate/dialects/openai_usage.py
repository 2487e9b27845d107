"""Usage as OpenAI and its neighbours report it → our one meaning, and back into the object a client gets. Pure.

The neighbours spell cached tokens in five ways and disagree on whether reasoning tokens are inside completion tokens; what a provider
does is told by its quirks, never by its name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

import msgspec
from msgspec import Raw

from aigate.core.target import Quirks, Target
from aigate.core.usage import Usage
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.openai_errors import read_error_object

_decode = msgspec.json.decode
_decode_pairs = msgspec.json.Decoder(dict[str, Raw]).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.encode


def _whole(value: object) -> int:
    """A whole number above zero, or 0 for anything else."""
    return value if type(value) is int and value > 0 else 0


def _details(fields: Mapping[str, object], *keys: str) -> Mapping[str, object]:
    for key in keys:
        value = fields.get(key)
        if type(value) is dict:
            return value
    return {}


def read_usage_object(fields: Mapping[str, object], quirks: Quirks) -> Usage | None:
    """Neutral usage; None for an object that reports no token count at all."""
    get = fields.get
    prompt = _whole(get("prompt_tokens")) or _whole(get("input_tokens"))
    completion = _whole(get("completion_tokens")) or _whole(get("output_tokens"))
    total = _whole(get("total_tokens"))
    if not (prompt or completion or total) and "prompt_tokens" not in fields and "completion_tokens" not in fields:
        return None
    inside = _details(fields, "prompt_tokens_details", "prompt_token_details", "input_tokens_details").get
    made = _details(fields, "completion_tokens_details", "output_tokens_details").get
    cached = (
        _whole(inside("cached_tokens"))
        or _whole(get("prompt_cache_hit_tokens"))
        or _whole(get("num_cached_tokens"))
        or _whole(get("cached_tokens"))
    )
    written = _whole(inside("cache_write_tokens")) or _whole(inside("cache_creation_input_tokens"))
    reasoning = _whole(made("reasoning_tokens")) or _whole(get("reasoning_tokens"))
    if cached > prompt:  # counted beside the prompt, not inside it
        prompt += cached
    where = quirks.reasoning_tokens
    output = completion if where == "inside" and reasoning <= completion else _output(prompt, completion, total, reasoning, where)
    if where == "hidden" and not reasoning:
        reasoning = output - completion
    audio_in, audio_out = _whole(inside("audio_tokens")), _whole(made("audio_tokens"))
    return Usage(
        prompt,
        output,
        cached,
        written and min(written, prompt - cached),
        reasoning and min(reasoning, output),
        audio_in and min(audio_in, prompt),
        audio_out and min(audio_out, output),
    )


def _output(prompt: int, completion: int, total: int, reasoning: int, where: str) -> int:
    """Output tokens with reasoning among them. A reported total that fits one reading decides between the two."""
    if where == "hidden":
        return max(completion, total - prompt)
    if total == prompt + completion and total:
        return completion
    if where == "outside" or reasoning > completion:
        return completion + reasoning
    return completion


def open_pairs(body: bytes, target: Target, content: str) -> OpenedReply | None:
    """A plain reply whose answer is under the key `content`; None where there is none. Raises the error that came under status 200."""
    try:
        pairs = _decode_pairs(body)
    except _UNREADABLE:
        return _open_leniently(body, target, content)
    if content not in pairs:
        error = _decode(pairs["error"]) if "error" in pairs else None
        if error:
            raise read_error_object(error)
        return None
    opened = OpenedReply(body, pairs)
    raw = pairs.get("usage")
    fields = None if raw is None else _decode(raw)
    if type(fields) is dict:
        opened.usage = read_usage_object(fields, target.quirks)
        if opened.usage is not None:
            opened.raw_usage, opened.usage_fields = bytes(raw), fields  # type: ignore[arg-type]
    if "service_tier" in pairs:
        tier = _decode(pairs["service_tier"])
        opened.service_tier = tier if type(tier) is str else ""
    return opened


def _open_leniently(body: bytes, target: Target, content: str) -> OpenedReply | None:
    """What strict JSON refuses and most clients read all the same."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if type(fields) is not dict or content not in fields:
        return None
    opened = OpenedReply(body, None)
    if type(fields.get("usage")) is dict:
        opened.usage = read_usage_object(fields["usage"], target.quirks)
        opened.raw_usage = json.dumps(fields["usage"]).encode() if opened.usage is not None else b""
    return opened


def write_usage_object(settlement: Settlement) -> dict[str, object]:
    """The usage object of a reply or usage chunk: the provider's own numbers where it gave any in this shape, what it left out
    filled from ours, and `cost` in USD."""
    own = settlement.usage_fields
    if own is None:
        own = _decode(settlement.raw_usage) if settlement.raw_usage else {}
    usage = settlement.usage
    fields: dict[str, object] = own if "prompt_tokens" in own or "total_tokens" in own else {}
    if fields.get("prompt_tokens") is None:
        fields["prompt_tokens"] = usage.input_tokens
    if fields.get("completion_tokens") is None:
        fields["completion_tokens"] = usage.output_tokens
    if fields.get("total_tokens") is None:
        fields["total_tokens"] = usage.input_tokens + usage.output_tokens
    # Details only where they are parts of the total beside them: some leave reasoning out of completion_tokens.
    if usage.cached_tokens and fields["prompt_tokens"] == usage.input_tokens:
        _fill(fields, "prompt_tokens_details", "cached_tokens", usage.cached_tokens)
    if usage.reasoning_tokens and fields["completion_tokens"] == usage.output_tokens:
        _fill(fields, "completion_tokens_details", "reasoning_tokens", usage.reasoning_tokens)
    fields["cost"] = settlement.cost_nanousd / 1e9  # the nearest double: prints as the exact decimal up to 15 digits
    return fields


def _fill(fields: dict[str, object], group: str, key: str, value: int) -> None:
    details = fields.get(group)
    if type(details) is not dict:
        fields[group] = {key: value}
    elif details.get(key) is None:
        details[key] = value
