"""What a call used, in one meaning for every provider.

Cached and cache-written tokens are inside `input_tokens`; reasoning tokens are inside `output_tokens`; audio likewise.
Dialects translate each provider's own counting into this; prices read only this. Pure.
"""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Token counts of one attempt. All classes after the two totals are parts of them, never additions to them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0  # ⊂ input
    cache_write_tokens: int = 0  # ⊂ input
    reasoning_tokens: int = 0  # ⊂ output
    audio_input_tokens: int = 0  # ⊂ input
    audio_output_tokens: int = 0  # ⊂ output

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


NOTHING = Usage()

# How the numbers of a row were obtained (the ledger says so on each row).
REPORTED = "reported"  # by the provider
COUNTED = "counted"  # by us, from the text that went through, with the model's own tokenizer
ESTIMATED = "estimated"  # by us, from bytes
NONE = "none"  # there are none: the attempt failed before anything to pay for came
