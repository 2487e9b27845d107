"""What a call costs by our one meaning of usage is what it costs by the provider's own fields, on every usage block ever recorded."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

from aigate.core.price import price_usage
from aigate.core.target import Price
from aigate.dialects.openai_usage import read_usage_object
from tests.dialects.recorded import chat_records, needs_recordings, recorded_target

# Nano-dollars of a token; all different, so that a token in the wrong class shows.
INPUT, CACHED, WRITTEN, AUDIO_IN, OUTPUT, AUDIO_OUT = 1_000, 107, 1_250, 3_001, 5_003, 9_007
PRICE = Price(
    id="prc_test",
    rates={
        "input": (INPUT * 1000, 1),
        "cached_input": (CACHED * 1000, 1),
        "cache_write": (WRITTEN * 1000, 1),
        "audio_input": (AUDIO_IN * 1000, 1),
        "output": (OUTPUT * 1000, 1),
        "audio_output": (AUDIO_OUT * 1000, 1),
    },
)


def usage_blocks(record: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """As the provider wrote them: of a reply, or of any chunk of a stream."""
    lines = record["response"].splitlines() if record["stream"] else ["data:" + record["response"]]
    for line in lines:
        if line.startswith("data:") and line[5:].strip() not in ("", "[DONE]"):
            document = json.loads(line[5:])
            yield from (block for block in (document.get("usage"), (document.get("x_groq") or {}).get("usage")) if block)


def own_cost(usage: dict[str, Any]) -> int:
    """By what the providers write of their fields: whatever the total has beyond prompt and completion was thought, and is output."""
    prompt, completion = usage["prompt_tokens"], usage.get("completion_tokens") or 0
    inside, made = usage.get("prompt_tokens_details") or {}, usage.get("completion_tokens_details") or {}
    output = max(completion, (usage.get("total_tokens") or 0) - prompt)
    audio_out, audio_in = made.get("audio_tokens") or 0, inside.get("audio_tokens") or 0
    written = inside.get("cache_write_tokens") or 0
    if "prompt_cache_miss_tokens" in usage:
        cached = prompt - usage["prompt_cache_miss_tokens"]
    else:
        cached = inside.get("cached_tokens") or usage.get("num_cached_tokens") or usage.get("cached_tokens") or 0
    new = prompt - cached - written - audio_in
    inputs = new * INPUT + cached * CACHED + written * WRITTEN + audio_in * AUDIO_IN
    return inputs + (output - audio_out) * OUTPUT + audio_out * AUDIO_OUT


@needs_recordings
def test_every_recorded_usage_costs_the_same_by_the_provider_s_own_fields() -> None:
    seen: Counter[str] = Counter()
    wrong = []
    for record in chat_records():
        if record["status"] != 200:
            continue
        quirks = recorded_target(record).quirks
        for block in usage_blocks(record):
            if not block.get("prompt_tokens"):
                continue
            seen[record["provider"]] += 1
            usage = read_usage_object(block, quirks)
            assert usage is not None
            if price_usage(PRICE, usage) != own_cost(block):
                wrong.append((record["id"], record["provider"], block, usage))
    assert not wrong, wrong[:3]
    assert len(seen) >= 10 and sum(seen.values()) > 400, seen
