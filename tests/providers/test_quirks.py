"""What the quirk rows do to a request: planned by the same planner as on the data path, one case a documented fact."""

import json
from fnmatch import fnmatchcase

import msgspec
import pytest
from msgspec import Raw

from aigate.core.call import Call
from aigate.core.edits import apply_to_pairs, plan_edits
from aigate.core.params import MAX_OUTPUT_TOKENS, SAMPLING
from aigate.core.target import Model, Quirks, Target
from aigate.providers.table import ROWS

NAMES = {"max_tokens": MAX_OUTPUT_TOKENS, "max_completion_tokens": MAX_OUTPUT_TOKENS}
KEYS = {MAX_OUTPUT_TOKENS: "max_tokens"}
CLOSED = {
    "effort_default": {"none", "minimal", "low", "medium", "high", "xhigh", "max"},
    "thinking": {"", "toggle", "budget", "adaptive", "both"},
    "history_reasoning": {"keep", "drop", "reasoning", "parts"},
    "reasoning_field": {"reasoning_content", "reasoning", "parts", "think_tags", "none"},
    "stream_usage": {"ask", "unasked"},
    "reasoning_tokens": {"inside", "outside", "hidden"},
    "on_cancel": {"stops", "bills_all", "unknown"},
    "tokenizer": {"", "o200k", "cl100k", "words"},
}


def quirks_of(slug):
    provider, _, name = slug.partition("/")
    return next(quirks for pattern, quirks in ROWS[provider].quirks if fnmatchcase(name, pattern))


def send(slug, *, reasons=True, **params):
    """(what reaches the provider, parameters named in warnings)."""
    quirks = quirks_of(slug)
    pairs = {key: Raw(json.dumps(value).encode()) for key, value in params.items()}
    thinking = params.get("thinking", {})
    budget = 0 if thinking.get("type") == "disabled" else thinking.get("budget_tokens")
    call = Call("openai-chat", "chat", pairs, 100, (slug,), effort=params.get("reasoning_effort"), thinking_budget=budget)
    provider, _, name = slug.partition("/")
    target = Target(slug, ROWS[provider], name, Model(slug=slug, is_reasoning=reasons), quirks, "openai-chat", "/", "chat")
    plan = plan_edits(call, target, NAMES)
    sent = apply_to_pairs(pairs, plan.edits, NAMES, KEYS)
    return {key: msgspec.json.decode(raw) for key, raw in sent.items()}, sorted(warning.param for warning in plan.warnings)


@pytest.mark.parametrize("row", ROWS.values(), ids=lambda row: row.name)
def test_rows_use_the_vocabulary(row):
    for _, quirks in row.quirks:
        for field, words in CLOSED.items():
            assert getattr(quirks, field) in words
        assert set(quirks.effort or ()) <= CLOSED["effort_default"]
        assert not (set(quirks.unsupported) & {"model", "messages", "stream", MAX_OUTPUT_TOKENS})


SUPPORTED = {"temperature": 0.5, "tools": [], "seed": 1, "stop": ["x"], "a_parameter_of_tomorrow": 1}


@pytest.mark.parametrize(
    "slug",
    ["openai/gpt-4o", "openai/gpt-5.4", "groq/llama-3.3-70b", "deepseek/deepseek-v4-pro", "openrouter/a/b", "huggingface/a/b",
     "zai/glm-5.3", "cerebras/gpt-oss-120b", "google/gemini-3.8-flash", "xai/grok-5", "together/a/b", "ollama/x", "vllm/x", "sim/echo"],
)  # fmt: skip
def test_what_no_row_speaks_of_passes_untouched(slug):
    reasons = slug not in ("xai/grok-5",)
    params = dict(SUPPORTED) if reasons else {key: value for key, value in SUPPORTED.items() if key != "stop"}
    assert send(slug, **params) == (params, [])


@pytest.mark.parametrize(
    ("slug", "key"),
    [
        ("openai/gpt-5.6-sol", "max_completion_tokens"),
        ("openai/gpt-5-mini-2025-08-07", "max_completion_tokens"),
        ("openai/o3", "max_completion_tokens"),
        ("openai/gpt-4o-mini", "max_tokens"),
        ("openai/gpt-6-something", "max_completion_tokens"),
        ("moonshot/kimi-k3", "max_completion_tokens"),
        ("mistral/mistral-large-latest", "max_tokens"),
    ],
)
def test_the_output_limit_is_spelt_as_the_model_needs(slug, key):
    for asked in ("max_tokens", "max_completion_tokens"):
        sent, warned = send(slug, **{asked: 5})
        if key == "max_tokens" and slug.startswith("openai"):
            assert (sent, warned) == ({asked: 5}, [])  # it takes both
        else:
            assert (sent, warned) == ({key: 5}, [])


@pytest.mark.parametrize(
    ("slug", "asked", "given"),
    [
        ("openai/gpt-5", "none", "minimal"),
        ("openai/gpt-5-mini", "minimal", "minimal"),
        ("openai/gpt-5.1", "minimal", "none"),
        ("openai/gpt-5.1", "xhigh", "high"),
        ("openai/gpt-5.4", "xhigh", "xhigh"),
        ("openai/gpt-5.5", "none", "none"),
        ("openai/gpt-5.6-luna", "max", "max"),
        ("openai/o3", "none", "low"),
        ("groq/openai/gpt-oss-120b", "none", "low"),
        ("mistral/mistral-small-latest", "xhigh", "high"),
        ("mistral/mistral-large-4-0", "low", "low"),
        ("zai/glm-5.3", "medium", "low"),
        ("moonshot/kimi-k3", "max", "max"),
        ("xai/grok-4.5", "none", "low"),
        ("xai/grok-4.3", "none", "none"),
        ("cerebras/gpt-oss-120b", "max", "high"),
        ("deepseek/deepseek-flash", "medium", "medium"),
        ("google/gemini-3.1-pro-preview", "minimal", "low"),
    ],
)
def test_effort_becomes_the_nearest_the_model_takes(slug, asked, given):
    sent, warned = send(slug, reasoning_effort=asked)
    assert sent["reasoning_effort"] == given
    assert warned == ([] if asked == given else ["reasoning_effort"])


@pytest.mark.parametrize("slug", ["openai/gpt-4o", "openai/gpt-5-chat-latest", "mistral/codestral-latest", "xai/grok-4.20-0309-reasoning"])
def test_effort_is_dropped_with_a_warning_where_there_are_no_degrees(slug):
    assert send(slug, reasoning_effort="high") == ({}, ["reasoning_effort"])


@pytest.mark.parametrize("slug", ["moonshot/kimi-k2.6", "zai/glm-4.7", "deepseek/deepseek-chat"])
def test_thinking_is_switched_by_its_type_where_that_is_the_way(slug):
    assert send(slug, reasoning_effort="none")[0]["thinking"] == {"type": "disabled"}
    assert send(slug, reasoning_effort="high")[0]["thinking"] == {"type": "enabled"}


@pytest.mark.parametrize(
    ("slug", "sent"),
    [
        ("openai/gpt-5.4", {"reasoning_effort": "medium"}),
        ("groq/qwen/qwen3-32b", {"reasoning_effort": "default"}),
        ("moonshot/kimi-k2.6", {"thinking": {"type": "enabled"}}),
        ("fireworks/accounts/fireworks/models/glm-5p2", {"thinking": {"budget_tokens": 9000}}),
    ],
)
def test_a_thinking_budget_is_said_in_the_models_own_words(slug, sent):
    assert send(slug, thinking={"budget_tokens": 9000})[0] == sent


def test_groq_qwen_knows_two_efforts():
    assert send("groq/qwen/qwen3-32b", reasoning_effort="none")[0] == {"reasoning_effort": "none"}
    assert send("groq/qwen/qwen3-32b", reasoning_effort="default")[0] == {"reasoning_effort": "default"}
    assert send("groq/qwen/qwen3-32b", reasoning_effort="low")[0] == {"reasoning_effort": "default"}


def test_sampling_goes_while_an_openai_model_reasons_and_stays_while_it_does_not():
    params = dict.fromkeys(SAMPLING, 1)
    assert send("openai/gpt-5", **params) == ({}, sorted(SAMPLING))
    assert send("openai/gpt-5.4", **params) == (params, [])  # does not reason unless asked
    assert send("openai/gpt-5.4", **params, reasoning_effort="low") == ({"reasoning_effort": "low"}, sorted(SAMPLING))
    assert send("openai/gpt-5.5", **params, reasoning_effort="none")[1] == []


@pytest.mark.parametrize(
    ("slug", "refused"),
    [
        ("groq/openai/gpt-oss-120b", ["logit_bias", "logprobs", "top_logprobs"]),
        ("cerebras/gpt-oss-120b", ["frequency_penalty", "logit_bias", "parallel_tool_calls", "presence_penalty", "service_tier"]),
        ("moonshot/kimi-k3", ["frequency_penalty", "presence_penalty", "temperature", "top_p"]),
        ("mistral/mistral-large-latest", ["logit_bias", "logprobs", "store", "user"]),
        ("openai/o4-mini", ["stop"]),
        ("xai/grok-4.5", ["frequency_penalty", "presence_penalty", "stop"]),
        ("ollama/llama3", ["logit_bias", "tool_choice", "user"]),
    ],
)
def test_what_the_provider_refuses_is_dropped_and_named(slug, refused):
    assert send(slug, **dict.fromkeys(refused, 2), custom=1) == ({"custom": 1}, refused)


def test_mistral_has_its_own_words():
    assert send("mistral/mistral-large-latest", seed=7, tool_choice="required") == ({"random_seed": 7, "tool_choice": "any"}, [])
    assert send("mistral/mistral-large-latest", tool_choice="any") == ({"tool_choice": "any"}, [])


def test_who_makes_one_choice_is_asked_for_one():
    assert send("groq/llama-3.3-70b", n=3) == ({"n": 1}, ["n"])
    assert send("groq/llama-3.3-70b", n=1) == ({"n": 1}, [])
    assert send("ollama/llama3", n=3) == ({"n": 1}, ["n"])
    assert send("ollama/llama3", n=1) == ({"n": 1}, [])
    assert quirks_of("groq/llama-3.3-70b").message_fields_dropped == {"name"}


@pytest.mark.parametrize(
    ("slug", "field", "tokens"),
    [
        ("openai/gpt-5.4", "none", "inside"),
        ("moonshot/kimi-k3", "reasoning_content", "inside"),
        ("deepseek/deepseek-flash", "reasoning_content", "inside"),
        ("zai/glm-5.3", "reasoning_content", "inside"),
        ("xai/grok-4.5", "reasoning_content", "outside"),
        ("groq/openai/gpt-oss-120b", "reasoning", "inside"),
        ("groq/qwen/qwen3-32b", "think_tags", "inside"),
        ("cerebras/gpt-oss-120b", "reasoning", "inside"),
        ("openrouter/openai/gpt-5.6-sol", "reasoning", "inside"),
        ("mistral/magistral-medium-latest", "parts", "inside"),
        ("huggingface/deepseek-ai/DeepSeek-R1", "think_tags", "inside"),
        ("google/gemini-3.8-flash", "none", "hidden"),
    ],
)
def test_where_reasoning_sits_and_how_it_is_counted(slug, field, tokens):
    quirks = quirks_of(slug)
    assert (quirks.reasoning_field, quirks.reasoning_tokens) == (field, tokens)


@pytest.mark.parametrize(("slug", "usage"), [("groq/x", "unasked"), ("mistral/x", "unasked"), ("openai/x", "ask"), ("openrouter/x", "ask")])
def test_stream_usage_is_asked_for_where_it_must_be(slug, usage):
    assert quirks_of(slug).stream_usage == usage


def test_a_cancelled_stream_stops_costing_only_where_that_is_known():
    assert quirks_of("sim/echo").on_cancel == quirks_of("vllm/x").on_cancel == "stops"
    assert quirks_of("sim/long+bills-all").on_cancel == "bills_all"
    assert quirks_of("openai/gpt-5.4").on_cancel == quirks_of("openrouter/x").on_cancel == "unknown"
    assert Quirks().on_cancel == "unknown"
