"""Usage as Gemini reports it ↔ our one meaning: there thoughts are beside the candidates' tokens, and a tool's prompts beside the prompt. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from aigate.core.usage import NOTHING, Usage
from aigate.dialects.dialect import Settlement
from aigate.dialects.openai_usage import count_of

_COUNTS = ("promptTokenCount", "candidatesTokenCount", "totalTokenCount")
_TIERS = {"flex": "flex", "priority": "priority", "ON_DEMAND_FLEX": "flex", "ON_DEMAND_PRIORITY": "priority"}


def _audio(details: object) -> int:
    entries = details if type(details) is list else ()
    return sum(count_of(entry.get("tokenCount")) for entry in entries if type(entry) is dict and entry.get("modality") == "AUDIO")


def read_usage(fields: Mapping[str, object], is_blocked: bool = False) -> Usage | None:
    """None for an object that reports no token count, unless the prompt was blocked: that may be said with no count at all."""
    get = fields.get
    if not any(type(get(key)) is int for key in _COUNTS):
        return NOTHING if is_blocked else None
    prompt = count_of(get("promptTokenCount")) + count_of(get("toolUsePromptTokenCount"))
    thoughts = count_of(get("thoughtsTokenCount"))
    output = count_of(get("candidatesTokenCount")) + thoughts
    return Usage(
        prompt,
        output,
        min(count_of(get("cachedContentTokenCount")), prompt),
        0,
        thoughts,
        min(_audio(get("promptTokensDetails")), prompt),
        min(_audio(get("candidatesTokensDetails")), output),
    )


def service_tier(fields: Mapping[str, object]) -> str:
    """The tier it was served at, in the words of the prices; "" for the standard one."""
    tier = fields.get("serviceTier") or fields.get("trafficType")
    return _TIERS.get(tier, "") if isinstance(tier, str) else ""


def write_usage(settlement: Settlement) -> dict[str, object]:
    """The provider's own object where it came in this shape, else ours said in it; parts that are zero are left out, as the vendor does."""
    own = msgspec.json.decode(settlement.raw_usage) if settlement.raw_usage else {}
    if "totalTokenCount" in own or "trafficType" in own:
        return own
    usage = settlement.usage
    counts = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
        "thoughtsTokenCount": usage.reasoning_tokens,
        "cachedContentTokenCount": usage.cached_tokens,
        "totalTokenCount": usage.total_tokens,
    }
    return {key: count for key, count in counts.items() if count or key in ("promptTokenCount", "totalTokenCount")}
