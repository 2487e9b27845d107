"""The neutral names of request parameters, and which of them are the gateway's own. Data only.

The vocabulary is OpenAI chat's, as that is what warnings and the contract speak; only what has several spellings there has one name here.
A key that no dialect maps keeps its wire name: an unknown parameter is passed, and dropped only where a row says so.

In a neutral request every parameter of this vocabulary has OpenAI chat's shape, whoever read it: `stop` a string or array,
`tool_choice` "auto" | "none" | "required" | {"type":"function","function":{"name"}}, `parallel_tool_calls`, `response_format`,
`reasoning_effort` a word of core/edits.EFFORTS, `thinking` {"type","budget_tokens"}, `temperature`, `top_p`, `n`, `seed`, `metadata`,
`service_tier`, `safety_identifier`, `logprobs`, `top_logprobs`, penalties, and `top_k`, which the others share. A dialect's own
parameters stay in Request.bags[its name].
"""

from __future__ import annotations

MAX_OUTPUT_TOKENS = "max_output_tokens"  # max_tokens, max_completion_tokens, maxOutputTokens, …
EFFORT = "reasoning_effort"
THINKING = "thinking"

MAX_ASKED_TOKENS = 2**31 - 1  # that a caller may ask for: no model makes so many, and what they would cost fits 64 bits

# Fields of ours in a request body: acted on here, never sent upstream, never warned about.
GATEWAY_FIELDS = frozenset({"fallbacks", "routing", "baseline_model", "x-routing", "provider_key_id"})

# Sampling parameters that reasoning models refuse or ignore; quirks name this set rather than repeat it.
SAMPLING = frozenset(
    {"temperature", "top_p", "presence_penalty", "frequency_penalty", "logit_bias", "logprobs", "top_logprobs"}
)
