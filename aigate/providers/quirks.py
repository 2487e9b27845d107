"""How models depart from their wire format, per provider: rows of (glob over upstream names, Quirks); the first match wins.

Data only; the vocabulary is `core.target.Quirks`. A parameter is named here only where the provider's own page or recorded traffic
says that it is refused or does nothing: whatever is not named passes untouched. Comments give the page and when it was read; facts
that come from client libraries tested against the live API, not from the vendor, are marked "client".
"""

from __future__ import annotations

from msgspec.structs import replace

from aigate.core.params import EFFORT, MAX_OUTPUT_TOKENS, SAMPLING
from aigate.core.target import Quirks

QuirkRows = tuple[tuple[str, Quirks], ...]

_MAX_TOKENS = {MAX_OUTPUT_TOKENS: "max_tokens"}
_MAX_COMPLETION_TOKENS = {MAX_OUTPUT_TOKENS: "max_completion_tokens"}


def _rows(quirks: Quirks, *patterns: str) -> QuirkRows:
    return tuple((pattern, quirks) for pattern in patterns)


# --- OpenAI: developers.openai.com/api (specification of 2026-08-21); effort per family: client, live 2026-07 ---------------------

_OPENAI = Quirks(effort=(), reasoning_field="none", drops=frozenset({"obfuscation"}), tokenizer="o200k")
_OPENAI_OLD = replace(_OPENAI, tokenizer="cl100k")
# Reasoning models answer 400 to max_tokens, and to sampling parameters while they reason.
_OPENAI_REASONING = replace(_OPENAI, effort=None, spelling=_MAX_COMPLETION_TOKENS, unsupported_when_reasoning=SAMPLING)
_O_SERIES = replace(_OPENAI_REASONING, effort=("low", "medium", "high"))
_GPT_5 = replace(_OPENAI_REASONING, effort=("minimal", "low", "medium", "high"))
_GPT_5_1 = replace(_OPENAI_REASONING, effort=("none", "low", "medium", "high"), effort_default="none")
_GPT_5_2 = replace(_GPT_5_1, effort=("none", "low", "medium", "high", "xhigh"))
_GPT_5_5 = replace(_GPT_5_2, effort_default="medium")
_GPT_5_6 = replace(_GPT_5_5, effort=("none", "low", "medium", "high", "xhigh", "max"))

# From GPT-5.4 on, tools together with an effort other than "none" may be refused with 400 on this endpoint (client, 2026-09; it
# varied by route), so the caller's effort is passed and the refusal, where there is one, is the caller's to read.
OPENAI: QuirkRows = (
    *_rows(replace(_OPENAI_REASONING, effort=()), "o1-mini*", "o1-preview*"),
    *_rows(replace(_O_SERIES, unsupported=frozenset({"stop"})), "o3", "o3-20*", "o3-pro*", "o4-mini*"),  # specification: stop
    *_rows(_O_SERIES, "o1*", "o3*", "o4*"),
    *_rows(_OPENAI, "gpt-5-chat*"),
    *_rows(replace(_GPT_5, effort=("medium",)), "gpt-5.?-chat*"),
    *_rows(replace(_GPT_5, effort=("high",), effort_default="high"), "gpt-5-pro*"),
    *_rows(replace(_GPT_5, effort=("medium", "high", "xhigh")), "gpt-5.?-pro*"),
    *_rows(replace(_GPT_5, effort=("low", "medium", "high")), "gpt-5-codex*"),
    *_rows(replace(_GPT_5, effort=("low", "medium", "high", "xhigh")), "gpt-5.[123]-codex*"),
    *_rows(_GPT_5, "gpt-5", "gpt-5-*"),
    *_rows(_GPT_5_1, "gpt-5.1*"),
    *_rows(_GPT_5_2, "gpt-5.[234]*"),
    *_rows(_GPT_5_5, "gpt-5.5*"),
    *_rows(_GPT_5_6, "gpt-5.6*"),
    *_rows(_OPENAI, "gpt-4o*", "gpt-4.1*", "gpt-4.5*", "chatgpt-4o*"),
    *_rows(_OPENAI_OLD, "gpt-4*", "gpt-3.5*", "text-embedding-*"),
    *_rows(_OPENAI_REASONING, "gpt-5*", "gpt-6*"),  # newer than this table: taken to reason, any effort passes
    *_rows(replace(_OPENAI, effort=None), "*"),
)

# --- Groq: console.groq.com/docs/openai, /docs/reasoning (read 2026-11); usage comes unasked (recorded) ---------------------------

_GROQ = Quirks(
    unsupported=frozenset({"logprobs", "top_logprobs", "logit_bias"}),
    message_fields_dropped=frozenset({"name"}),
    clamps={"n": (1, 1)},
    reasoning_field="reasoning",
    stream_usage="unasked",
)
# qwen3 knows only "none" and "default" (client; recorded), and thinks inside the content unless reasoning_format is "parsed".
_GROQ_QWEN = replace(
    _GROQ,
    values={EFFORT: dict.fromkeys(("minimal", "low", "medium", "high", "xhigh", "max"), "default")},
    reasoning_field="think_tags",
)
GROQ: QuirkRows = (
    *_rows(replace(_GROQ, effort=("low", "medium", "high")), "openai/gpt-oss-*"),
    *_rows(_GROQ_QWEN, "qwen/*"),
    *_rows(replace(_GROQ, reasoning_field="think_tags"), "deepseek-r1-*"),
    *_rows(_GROQ, "*"),
)

# --- Mistral: docs.mistral.ai/capabilities/reasoning (read 2026-11); unknown fields are answered with 422 -------------------------

_MISTRAL = Quirks(
    spelling={**_MAX_TOKENS, "seed": "random_seed"},
    values={"tool_choice": {"required": "any"}},
    unsupported=frozenset(
        {"logprobs", "top_logprobs", "logit_bias", "user", "store", "service_tier", "verbosity", "safety_identifier",
         "prompt_cache_retention", "web_search_options", "modalities", "audio", "functions", "function_call"}
    ),
    effort=(),
    effort_default="none",
    history_reasoning="parts",
    reasoning_field="parts",
    drops=frozenset({"p"}),
    stream_usage="unasked",
)  # fmt: skip
_MISTRAL_ADJUSTABLE = replace(_MISTRAL, effort=("none", "high"))
MISTRAL: QuirkRows = (
    *_rows(_MISTRAL_ADJUSTABLE, "mistral-small-latest", "mistral-small-2603", "mistral-medium-latest", "mistral-medium-3-5*"),
    *_rows(replace(_MISTRAL, effort=None), "mistral-large-4*"),  # takes more values than the page's excerpt shows
    *_rows(replace(_MISTRAL, effort_default="medium"), "magistral-*"),  # always thinks
    *_rows(_MISTRAL, "*"),
)

# --- DeepSeek: api-docs.deepseek.com/guides/thinking_mode (read 2026-11) -----------------------------------------------------------

# It maps the efforts it lacks itself, and ignores sampling parameters while thinking, so both pass. Earlier reasoning must come back
# with tool calls (400 otherwise).
_DEEPSEEK = Quirks(
    spelling=_MAX_TOKENS,
    thinking="toggle",
    effort=("minimal", "low", "medium", "high", "xhigh", "max"),
)
DEEPSEEK: QuirkRows = (
    *_rows(replace(_DEEPSEEK, effort_default="none"), "deepseek-chat*"),
    *_rows(_DEEPSEEK, "*"),
)

# --- Cerebras: inference-docs.cerebras.ai/resources/openai, /capabilities/reasoning (read 2026-11) --------------------------------

_CEREBRAS = Quirks(
    spelling=_MAX_COMPLETION_TOKENS,
    unsupported=frozenset({"frequency_penalty", "presence_penalty", "logit_bias", "parallel_tool_calls", "service_tier"}),
    history_reasoning="reasoning",
    reasoning_field="reasoning",
)
CEREBRAS: QuirkRows = (
    *_rows(replace(_CEREBRAS, effort=("low", "medium", "high")), "gpt-oss-*"),  # cannot be switched off (client)
    *_rows(replace(_CEREBRAS, effort=("none", "low", "medium", "high"), effort_default="high"), "qwen-3.8-*"),
    *_rows(_CEREBRAS, "*"),
)

# --- Z.ai: docs.z.ai/guides/capabilities/thinking (client, 2026-08); recorded requests agree ---------------------------------------

_ZAI = Quirks(spelling=_MAX_TOKENS, thinking="toggle", effort=(), stream_usage="unasked")
ZAI: QuirkRows = (
    *_rows(replace(_ZAI, thinking="", effort=("low", "high", "max"), effort_default="max"), "glm-5.3*"),  # always thinks
    *_rows(replace(_ZAI, thinking="", effort=None), "glm-5.2*"),  # takes the whole ladder, and thinking.type beside it
    *_rows(_ZAI, "*"),
)

# --- Moonshot: platform.kimi.ai/docs/api/chat, /models-overview (read 2026-11); limits per family: client, 2026-10 -----------------

_MOONSHOT = Quirks(spelling=_MAX_COMPLETION_TOKENS, schema_keys_dropped=frozenset({"$schema"}))
# K-series: sampling is fixed, other values are answered with 400.
_KIMI = replace(
    _MOONSHOT,
    unsupported=frozenset({"temperature", "top_p", "n", "presence_penalty", "frequency_penalty"}),
    effort=(),
)
MOONSHOT: QuirkRows = (
    *_rows(replace(_KIMI, effort=("low", "high", "max"), effort_default="max"), "kimi-k3*"),  # always thinks
    *_rows(_KIMI, "kimi-k2.7*"),  # always thinks, without degrees
    *_rows(replace(_KIMI, thinking="toggle"), "kimi-k2.[56]*"),
    *_rows(replace(_MOONSHOT, effort=(), effort_default="none", clamps={"temperature": (0, 1)}), "moonshot-v1*"),
    *_rows(_MOONSHOT, "*"),
)

# --- xAI: docs.x.ai/developers (read 2026-11); effort: client, live 2026-07 ---------------------------------------------------------

_XAI = Quirks(
    spelling=_MAX_COMPLETION_TOKENS,
    unsupported_when_reasoning=frozenset({"presence_penalty", "frequency_penalty", "stop"}),
    reasoning_tokens="outside",  # completion_tokens is the answer alone
)
XAI: QuirkRows = (
    *_rows(replace(_XAI, effort=(), effort_default="none"), "grok-4.20*-non-reasoning"),
    *_rows(replace(_XAI, effort=()), "grok-4.20*"),  # every value is refused
    *_rows(replace(_XAI, effort=("none", "low", "medium", "high")), "grok-4.3*"),
    *_rows(replace(_XAI, effort=("low", "medium", "high")), "grok-4.[567]*"),  # cannot be switched off
    *_rows(_XAI, "*"),
)

# --- Google, OpenAI-compatible: ai.google.dev/gemini-api/docs/openai (read 2026-11; recorded) ---------------------------------------

_GEMINI = Quirks(
    unsupported=frozenset({"logit_bias", "store", "metadata"}),  # unknown fields: 400 INVALID_ARGUMENT
    reasoning_field="none",
    reasoning_tokens="hidden",  # completion_tokens leaves thoughts out, total_tokens has them
    mints_tool_ids=True,
)
GOOGLE: QuirkRows = (
    *_rows(replace(_GEMINI, effort=("low", "medium", "high")), "gemini-3*-pro*"),
    *_rows(replace(_GEMINI, effort=("minimal", "low", "medium", "high")), "gemini-3*"),
    *_rows(_GEMINI, "*"),
)

# --- routers and hosts of many models: each backend decides, so nearly everything passes -------------------------------------------

# openrouter.ai/docs/use-cases/reasoning-tokens (read 2026-11); both spellings of the maximum are kept to (recorded).
OPENROUTER: QuirkRows = _rows(Quirks(reasoning_field="reasoning"), "*")

# huggingface.co/docs/inference-providers (2026-08-22); R1 answers with <think> in its content (recorded).
HUGGINGFACE: QuirkRows = (
    *_rows(Quirks(spelling=_MAX_TOKENS, reasoning_field="think_tags"), "*DeepSeek-R1*", "*deepseek-r1*"),
    *_rows(Quirks(spelling=_MAX_TOKENS), "*"),
)

# docs.together.ai/docs/inference/chat/reasoning (read 2026-11).
_TOGETHER = Quirks(spelling=_MAX_TOKENS, reasoning_field="reasoning")
TOGETHER: QuirkRows = (
    *_rows(replace(_TOGETHER, effort=("low", "medium", "high")), "openai/gpt-oss-*"),
    *_rows(replace(_TOGETHER, reasoning_field="think_tags"), "deepseek-ai/DeepSeek-R1*"),
    *_rows(_TOGETHER, "*"),
)

# docs.fireworks.ai/guides/reasoning (read 2026-11): effort or thinking.budget_tokens, as asked.
FIREWORKS: QuirkRows = _rows(Quirks(spelling=_MAX_TOKENS, thinking="budget", stream_usage="unasked"), "*")

# --- local servers: closing the connection stops the work -------------------------------------------------------------------------

# docs/api/openai-compatibility.mdx of 2026-08-21: what it lists as not supported.
OLLAMA: QuirkRows = _rows(
    Quirks(
        spelling=_MAX_TOKENS,
        unsupported=frozenset({"tool_choice", "logit_bias", "user", "logprobs", "top_logprobs"}),
        clamps={"n": (1, 1)},
        effort=("none", "low", "medium", "high", "max"),
        reasoning_field="reasoning",
        on_cancel="stops",
    ),
    "*",
)
# docs.vllm.ai reasoning_outputs (read 2026-11): `reasoning`, called reasoning_content before.
VLLM: QuirkRows = _rows(Quirks(reasoning_field="reasoning", on_cancel="stops"), "*")
# tools/server/README.md (read 2026-11).
LLAMACPP: QuirkRows = _rows(Quirks(spelling=_MAX_TOKENS, on_cancel="stops"), "*")
# lmstudio.ai/docs/developer/openai-compat (2026-04-29).
LMSTUDIO: QuirkRows = _rows(Quirks(spelling=_MAX_TOKENS, on_cancel="stops"), "*")

# --- the built-in simulated provider ------------------------------------------------------------------------------------------------

_SIM = Quirks(on_cancel="stops", tokenizer="words")
SIM: QuirkRows = (
    *_rows(replace(_SIM, on_cancel="bills_all"), "*bills-all*"),
    *_rows(_SIM, "*"),
)
