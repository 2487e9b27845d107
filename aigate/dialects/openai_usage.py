"""Usage as OpenAI and its neighbours report it → our one meaning, and back into the object a client gets. Pure.

The neighbours spell cached tokens in five ways and disagree on whether reasoning tokens are inside completion tokens; what a provider
does is told by its quirks, never by its name.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from aigate.core.target import Quirks, Target
from aigate.core.usage import REPORTED, Usage
from aigate.dialects.body import open_object
from aigate.dialects.dialect import OpenedReply, Settlement
from aigate.dialects.openai_errors import error_in, read_error_object

MAX_TOKENS = 1 << 40  # of one call: keeps sums and costs far inside 64 bits
_MAX_DIGITS = 13  # of a count in a string

_decode = msgspec.json.decode
_decode_string = msgspec.json.Decoder(str).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
_encode = msgspec.json.encode


_Count = Annotated[int, Meta(ge=0, le=MAX_TOKENS)] | None


class _Details(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: _Count = None
    cache_creation_input_tokens: _Count = None
    reasoning_tokens: _Count = None
    audio_tokens: _Count = None


class _Reported(msgspec.Struct):
    """Every spelling of the neighbours. What does not decode as this is read leniently (`_read_leniently`)."""

    prompt_tokens: _Count | UnsetType = UNSET
    completion_tokens: _Count | UnsetType = UNSET
    total_tokens: _Count = None
    input_tokens: _Count = None
    output_tokens: _Count = None
    prompt_tokens_details: _Details | None = None
    prompt_token_details: _Details | None = None
    input_tokens_details: _Details | None = None
    completion_tokens_details: _Details | None = None
    output_tokens_details: _Details | None = None
    prompt_cache_hit_tokens: _Count = None
    num_cached_tokens: _Count = None
    cached_tokens: _Count = None
    reasoning_tokens: _Count = None
    cost: Any = UNSET


_decode_reported = msgspec.json.Decoder(_Reported).decode
_NO_DETAILS = _Details()


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_TOKENS


def _count(value: object) -> int | None:
    """A count that can be true, also as `12.0` or `"12"`; None for anything else."""
    if type(value) is float and value.is_integer():
        value = int(value)
    elif type(value) is str and value.isascii() and value.isdigit() and len(value) <= _MAX_DIGITS:
        value = int(value)
    return value if _is_count(value) else None  # type: ignore[return-value]


def count_of(value: object) -> int:
    """A count of a format that spells it in one way; 0 for what cannot be true."""
    return value if _is_count(value) else 0  # type: ignore[return-value]


def _read_leniently(fields: Mapping[str, object]) -> _Reported:
    """Counts that cannot be true read as not told, details that are no object as none."""
    reported: dict[str, Any] = {}
    for key in _Reported.__struct_fields__:
        value = fields.get(key)
        if not key.endswith("_details"):
            if key in fields:
                reported[key] = _count(value)
        elif type(value) is dict:
            reported[key] = _Details(**{name: _count(value.get(name)) for name in _Details.__struct_fields__})
    return _Reported(**reported)


def read_usage_object(fields: Mapping[str, object], quirks: Quirks) -> Usage | None:
    """Neutral usage; None for an object from which nobody can tell what was used: then it is counted."""
    return _to_usage(_read_leniently(fields), quirks)


def _to_usage(reported: _Reported, quirks: Quirks, makes_tokens: bool = True) -> Usage | None:
    prompt, completion, total = reported.prompt_tokens, reported.completion_tokens, reported.total_tokens or 0
    if not prompt or not completion:
        found = _find_counts(reported, makes_tokens)
        if found is None:
            return None
        prompt, completion = found
    inside = reported.prompt_tokens_details or reported.prompt_token_details or reported.input_tokens_details or _NO_DETAILS
    made = reported.completion_tokens_details or reported.output_tokens_details or _NO_DETAILS
    cached = inside.cached_tokens or reported.prompt_cache_hit_tokens or reported.num_cached_tokens or reported.cached_tokens or 0
    written = inside.cache_write_tokens or inside.cache_creation_input_tokens
    reasoning = made.reasoning_tokens or reported.reasoning_tokens or 0
    if cached > prompt:  # counted beside the prompt, not inside it
        prompt += cached
    where = quirks.reasoning_tokens
    output = completion if where == "inside" and reasoning <= completion else _output(prompt, completion, total, reasoning, where)
    if where == "hidden" and not reasoning:
        reasoning = output - completion
    audio_in, audio_out = inside.audio_tokens, made.audio_tokens
    if not (written or reasoning or audio_in or audio_out):
        return Usage(prompt, output, cached)
    return Usage(
        prompt,
        output,
        cached,
        min(written, prompt - cached) if written else 0,
        min(reasoning, output) if reasoning else 0,
        min(audio_in, prompt) if audio_in else 0,
        min(audio_out, output) if audio_out else 0,
    )


def _find_counts(reported: _Reported, makes_tokens: bool) -> tuple[int, int] | None:
    """(prompt, completion) where they are not both under their first names: the other names, then what the total leaves for one of
    them. None where one stays unknown: to take it as 0 would give it away."""
    prompt = _told(reported.prompt_tokens, reported.input_tokens)
    completion = _told(reported.completion_tokens, reported.output_tokens)
    if completion is None and not makes_tokens:
        completion = 0
    total = reported.total_tokens
    if total is not None:
        if prompt is None and completion is not None:
            prompt = total - completion
        elif completion is None and prompt is not None:
            completion = total - prompt
    if prompt is None or completion is None or prompt < 0 or completion < 0:
        return None
    return prompt, completion


def _told(first: int | None | UnsetType, second: int | None) -> int | None:
    return first or second or (0 if first == 0 or second == 0 else None)


def _is_whole(reported: _Reported, usage: Usage) -> bool:
    """Whether a client finds in the provider's own object all that `write_usage_object` would fill in, and nothing in the cost's place."""
    if not reported.prompt_tokens or not reported.completion_tokens or not reported.total_tokens or reported.cost is not UNSET:
        return False
    if usage.cached_tokens and (reported.prompt_tokens_details is None or reported.prompt_tokens_details.cached_tokens is None):
        return False
    made = reported.completion_tokens_details
    return not usage.reasoning_tokens or (made is not None and made.reasoning_tokens is not None)


def _output(prompt: int, completion: int, total: int, reasoning: int, where: str) -> int:
    """Output tokens with reasoning among them. A reported total that fits one reading decides between the two."""
    if where == "hidden":
        return max(completion, total - prompt)
    if total == prompt + completion and total:
        return completion
    if where == "outside" or reasoning > completion:
        return completion + reasoning
    return completion


def open_pairs(body: bytes, target: Target, content: str, *, makes_tokens: bool = True) -> OpenedReply | None:
    """A plain reply whose answer is under the key `content`; None where there is none. Raises the error that came under status 200.
    `makes_tokens`: the endpoint generates, so an output that is not told is not 0."""
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        pairs = open_object(body, content)
        error = None if content in pairs else error_in(_decode(body))
    except _UNREADABLE:
        return _open_leniently(body, target, content)
    if content not in pairs:
        if error:
            raise read_error_object(error)
        return None
    tier = _decode_tier(pairs["service_tier"]) if "service_tier" in pairs else ""
    raw = pairs.get("usage")
    usage, is_whole = (None, False) if raw is None else _read_usage(raw, target.quirks, makes_tokens)
    if usage is None:
        return OpenedReply(body, pairs, service_tier=tier)
    return OpenedReply(body, pairs, usage, bytes(raw), is_whole, REPORTED, tier)  # type: ignore[arg-type]


def _decode_tier(raw: Raw) -> str:
    try:
        return _decode_string(raw)
    except msgspec.ValidationError:
        return ""


def _read_usage(raw: Raw, quirks: Quirks, makes_tokens: bool) -> tuple[Usage | None, bool]:
    """What is reported, and whether the provider's object lacks nothing but the cost."""
    try:
        reported = _decode_reported(raw)
    except msgspec.ValidationError:
        fields = _decode(raw)
        return _to_usage(_read_leniently(fields), quirks, makes_tokens) if type(fields) is dict else None, False
    usage = _to_usage(reported, quirks, makes_tokens)
    return usage, usage is not None and _is_whole(reported, usage)


def _open_leniently(body: bytes, target: Target, content: str) -> OpenedReply | None:
    """What strict JSON refuses and most clients read all the same."""
    try:
        fields = json.loads(body.decode(errors="replace"))
    except (ValueError, RecursionError):
        return None
    if type(fields) is not dict or content not in fields:
        return None
    opened = OpenedReply(body, None)
    if type(fields.get("usage")) is dict:
        opened.usage = read_usage_object(fields["usage"], target.quirks)
        opened.raw_usage = json.dumps(fields["usage"]).encode() if opened.usage is not None else b""
    return opened


def write_usage(settlement: Settlement) -> Raw | dict[str, object]:
    """`write_usage_object` to be encoded: where nothing has to be filled in, the cost is put behind the provider's own text."""
    if settlement.is_usage_whole:
        return Raw(b'%b,"cost":%b}' % (settlement.raw_usage[:-1], _encode(settlement.cost_nanousd / 1e9)))
    return write_usage_object(settlement)


def write_usage_object(settlement: Settlement, has_output: bool = True) -> dict[str, object]:
    """The usage object of a reply or usage chunk: the provider's own numbers where it gave any in this shape, what it left out
    filled from ours, and `cost` in USD. `has_output`: the endpoint makes tokens, so their number is said even when it is 0."""
    own = _decode(settlement.raw_usage) if settlement.raw_usage else {}
    usage = settlement.usage
    fields: dict[str, object] = own if "prompt_tokens" in own or ("total_tokens" in own and "input_tokens" not in own) else {}
    if not _is_count(fields.get("prompt_tokens")):
        fields["prompt_tokens"] = usage.input_tokens
    if not _is_count(fields.get("completion_tokens")) and (has_output or usage.output_tokens):
        fields["completion_tokens"] = usage.output_tokens
    if not _is_count(fields.get("total_tokens")):
        fields["total_tokens"] = usage.input_tokens + usage.output_tokens
    # Details only where they are parts of the total beside them: some leave reasoning out of completion_tokens.
    if usage.cached_tokens and fields["prompt_tokens"] == usage.input_tokens:
        _fill(fields, "prompt_tokens_details", "cached_tokens", usage.cached_tokens)
    if usage.reasoning_tokens and fields.get("completion_tokens") == usage.output_tokens:
        _fill(fields, "completion_tokens_details", "reasoning_tokens", usage.reasoning_tokens)
    fields["cost"] = settlement.cost_nanousd / 1e9  # the nearest double: prints as the exact decimal up to 15 digits
    return fields


def _fill(fields: dict[str, object], group: str, key: str, value: int) -> None:
    details = fields.get(group)
    if type(details) is not dict:
        fields[group] = {key: value}
    elif details.get(key) is None:
        details[key] = value
