"""Usage as Anthropic reports it ↔ our one meaning: there `input_tokens` excludes what was read from and written to the cache. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aigate.core.usage import Usage
from aigate.dialects.dialect import Settlement
from aigate.dialects.openai_usage import count_of


def read_usage(fields: Mapping[str, object]) -> Usage | None:
    """None for an object that reports no token count."""
    if fields.get("input_tokens") is None and fields.get("output_tokens") is None:
        return None
    read, written = count_of(fields.get("cache_read_input_tokens")), count_of(fields.get("cache_creation_input_tokens"))
    output = count_of(fields.get("output_tokens"))
    details = fields.get("output_tokens_details")
    thinking = count_of(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    return Usage(count_of(fields.get("input_tokens")) + read + written, output, read, written, min(thinking, output))


def write_usage(settlement: Settlement) -> dict[str, object]:
    """The provider's own object where it came in this shape, else ours said in it; and `cost` in USD."""
    own = msgspec.json.decode(settlement.raw_usage) if settlement.raw_usage else {}
    usage = settlement.usage
    if "input_tokens" in own and "total_tokens" not in own and "prompt_tokens" not in own:
        fields = dict(own)
    else:
        fields = {
            "input_tokens": max(0, usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens),
            "cache_creation_input_tokens": usage.cache_write_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
        }
        if usage.reasoning_tokens:
            fields["output_tokens_details"] = {"thinking_tokens": usage.reasoning_tokens}
    if fields.get("output_tokens") is None:
        fields["output_tokens"] = usage.output_tokens
    fields["cost"] = settlement.cost_nanousd / 1e9
    return fields
