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
_GPT_5_5 = replace(_GPT_5_2, effort_default="medium", responses="tools")
_GPT_5_6 = replace(_GPT_5_5, effort=("none", "low", "medium", "high", "xhigh", "max"))

# From GPT-5.4 on, chat completions refuse tools while the model reasons (developers.openai.com/api/docs/guides/deployment-checklist,
# read 2026-11). The pro and codex models, deep research and computer use have only the Responses API (their model pages, read 2026-11).
OPENAI: QuirkRows = (
    *_rows(replace(_OPENAI_REASONING, effort=()), "o1-mini*", "o1-preview*"),
    *_rows(replace(_OPENAI, effort=None, responses="only"), "*-deep-research*", "computer-use-*"),
    *_rows(replace(_O_SERIES, responses="only"), "o1-pro*", "codex-mini*"),
    *_rows(replace(_O_SERIES, responses="only", unsupported=frozenset({"stop"})), "o3-pro*"),
    *_rows(replace(_O_SERIES, unsupported=frozenset({"stop"})), "o3", "o3-20*", "o4-mini*"),  # specification: stop
    *_rows(_O_SERIES, "o1*", "o3*", "o4*"),
    *_rows(_OPENAI, "gpt-5-chat*"),
    *_rows(replace(_GPT_5, effort=("medium",)), "gpt-5.?-chat*"),
    *_rows(replace(_GPT_5, effort=("high",), effort_default="high", responses="only"), "gpt-5-pro*"),
    *_rows(replace(_GPT_5, effort=("medium", "high", "xhigh"), responses="only"), "gpt-5.?-pro*"),
    *_rows(replace(_GPT_5, effort=("low", "medium", "high"), responses="only"), "gpt-5-codex*"),
    *_rows(replace(_GPT_5, effort=("low", "medium", "high", "xhigh"), responses="only"), "gpt-5.[123]-codex*"),
    *_rows(_GPT_5, "gpt-5", "gpt-5-*"),
    *_rows(_GPT_5_1, "gpt-5.1*"),
    *_rows(_GPT_5_2, "gpt-5.[23]*"),
    *_rows(replace(_GPT_5_2, responses="tools"), "gpt-5.4*"),
    *_rows(_GPT_5_5, "gpt-5.5*"),
    *_rows(_GPT_5_6, "gpt-5.6*"),
    *_rows(_OPENAI, "gpt-4o*", "gpt-4.1*", "gpt-4.5*", "chatgpt-4o*"),
    *_rows(_OPENAI_OLD, "gpt-4*", "gpt-3.5*", "text-embedding-*"),
    *_rows(replace(_OPENAI_REASONING, responses="tools"), "gpt-5*", "gpt-6*"),  # newer than this table: taken to reason, any effort passes
    *_rows(replace(_OPENAI, effort=None), "*"),
)

# --- Anthropic: platform.claude.com/docs (thinking, effort, migration guides; 2026-11-22) -----------------------------------------

_CLAUDE_SAMPLING = SAMPLING | {"top_k"}
# Up to 4.5 thinking is a number of tokens, and then sampling stays at its defaults.
_CLAUDE = Quirks(thinking="budget", effort_default="none", unsupported_when_reasoning=_CLAUDE_SAMPLING, clamps={"temperature": (0, 1)})
# From 4.6 on effort is a word; from 4.7 on sampling takes no value but the default, whether the model thinks or not.
_CLAUDE_4_6 = replace(_CLAUDE, thinking="adaptive", effort=("none", "low", "medium", "high", "max"))
_CLAUDE_4_7 = replace(_CLAUDE_4_6, effort=("none", "low", "medium", "high", "xhigh", "max"), unsupported=_CLAUDE_SAMPLING)
_CLAUDE_5 = replace(_CLAUDE_4_7, effort_default="high")
_CLAUDE_ALWAYS = replace(_CLAUDE_5, effort=("low", "medium", "high", "xhigh", "max"))  # thinking cannot be switched off
_CLAUDE_5_5 = replace(_CLAUDE_ALWAYS, forces_tools=False, effort_default="medium")

ANTHROPIC: QuirkRows = (
    *_rows(replace(_CLAUDE_5, values={EFFORT: {"none": "between_tools"}}), "claude-sonnet-5[.-]5*"),
    *_rows(replace(_CLAUDE_5, effort_default="medium"), "claude-haiku-5[.-]5*"),
    *_rows(_CLAUDE_5_5, "claude-opus-5[.-]5*"),
    *_rows(replace(_CLAUDE_ALWAYS, forces_tools=False), "claude-fable-5[.-][12]*", "claude-mythos-5[.-][12]*"),
    *_rows(_CLAUDE_ALWAYS, "claude-fable-*", "claude-mythos-*"),
    *_rows(_CLAUDE_5, "claude-opus-5*", "claude-sonnet-5*"),
    *_rows(_CLAUDE_4_7, "claude-opus-4[.-][78]*"),
    *_rows(_CLAUDE_4_6, "claude-*-4[.-]6*"),
    *_rows(_CLAUDE, "claude-*-4[.-][15]*"),
    *_rows(replace(_CLAUDE, takes_schema=False), "claude-[23]*", "claude-*-4*"),  # structured outputs came with 4.1 and 4.5
    *_rows(_CLAUDE_ALWAYS, "*"),  # newer than this table
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
    unsupported=frozenset({"temperature", "top_p", "presence_penalty", "frequency_penalty"}),
    clamps={"n": (1, 1)},
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

# --- Google: ai.google.dev/gemini-api/docs (generateContent, thinking, thought-signatures, openai; read 2026-11; recorded) -------------

# The last three are for its OpenAI-compatible endpoint, where an operator chooses that.
_GEMINI = Quirks(
    needs_signatures=True,
    unsupported=frozenset({"logit_bias", "store", "metadata"}),  # unknown fields: 400 INVALID_ARGUMENT
    clamps={"n": (1, 1)},
    reasoning_field="none",
    reasoning_tokens="hidden",  # completion_tokens leaves thoughts out, total_tokens has them
    mints_tool_ids=True,
)
_GEMINI_3 = replace(_GEMINI, thinking="both", effort=("minimal", "low", "medium", "high"), effort_default="high")
_GEMINI_2_5 = replace(
    _GEMINI, needs_signatures=False, clamps={"n": (1, 8)}, thinking="budget", effort=("none", "minimal", "low", "medium", "high")
)  # 8: the reference's limit of candidateCount
# They fetch no files of the web (file-input-methods).
_GEMINI_2 = replace(_GEMINI_2_5, thinking="", effort=(), effort_default="none", needs_data=frozenset({"image", "document", "audio"}))
_BY_LEVEL = replace(_GEMINI, effort=("low", "medium", "high"))  # a budget is refused or does nothing
GOOGLE: QuirkRows = (
    *_rows(replace(_BY_LEVEL, unsupported=_GEMINI.unsupported | {"presence_penalty", "frequency_penalty"}), "gemini-4*"),
    *_rows(_BY_LEVEL, "gemini-3.[78]*"),
    *_rows(replace(_GEMINI_3, effort=("low", "medium", "high")), "gemini-3*-pro*"),
    *_rows(replace(_GEMINI_3, effort_default="medium"), "gemini-3.[56]*"),
    *_rows(_GEMINI_3, "gemini-3*"),
    *_rows(replace(_GEMINI_2_5, effort=("minimal", "low", "medium", "high")), "gemini-2.5-pro*"),  # cannot be switched off
    *_rows(replace(_GEMINI_2_5, effort_default="none"), "gemini-2.5-flash-lite*"),
    *_rows(_GEMINI_2_5, "gemini-2.5*"),
    *_rows(_GEMINI_2, "gemini-[12]*", "gemma-*", "*embedding*"),
    *_rows(_GEMINI, "*"),  # newer than this table
)

# --- Vertex AI: docs.cloud.google.com/vertex-ai/generative-ai (generateContent, partner models: Claude; read 2026-11) -------------------

# The models of two vendors; Claude's version stands in the body, where its own service has a header.
_CLAUDE_BODY = {"anthropic_version": "vertex-2023-10-16"}
VERTEX: QuirkRows = (
    *((pattern if pattern != "*" else "claude-*", replace(quirks, extra=_CLAUDE_BODY)) for pattern, quirks in ANTHROPIC),
    *((pattern, replace(quirks, counts_bare=True)) for pattern, quirks in GOOGLE),
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
        needs_data=frozenset({"image"}),
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
