import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from aigate.core.call import Call
from aigate.core.edits import (
    EFFORTS,
    Edit,
    EditPlanner,
    apply_to_pairs,
    apply_to_request,
    effort_of_budget,
    nearest_effort,
    plan_edits,
)
from aigate.core.neutral import Request
from aigate.core.params import SAMPLING
from aigate.core.target import Model, Provider, Quirks, Target

NAMES = {"max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens"}
KEYS = {"max_output_tokens": "max_tokens"}


def target(quirks: Quirks = Quirks(), is_reasoning: bool = False) -> Target:
    provider = Provider(name="p", base_url="http://127.0.0.1:1")
    return Target("p/m", provider, "m", Model(slug="p/m", is_reasoning=is_reasoning), quirks, "openai-chat", "/v1", "chat")


def call(body: dict, **fields) -> Call:
    pairs = {key: Raw(msgspec.json.encode(value)) for key, value in body.items()}
    effort = body.get("reasoning_effort")
    return Call("openai-chat", "chat", pairs, 0, ("p/m",), effort=effort, **fields)


def sent(body: dict, where: Target, **fields) -> tuple[dict, list[str]]:
    """What the target gets, and the parameters warned about."""
    asked = call(body, **fields)
    plan = plan_edits(asked, where, NAMES)
    pairs = apply_to_pairs(asked.pairs, plan.edits, NAMES, KEYS)
    return {key: msgspec.json.decode(raw) for key, raw in pairs.items()}, [w.param for w in plan.warnings]


def test_without_quirks_everything_passes_untouched_and_unwarned():
    body = {"model": "p/m", "messages": [], "temperature": 0.2, "made_up": {"a": [1]}}
    assert sent(body, target()) == (body, [])


@given(st.lists(st.sampled_from(["temperature", "max_tokens", "seed", "stop", "made_up"]), max_size=4, unique=True), st.lists(st.integers(0, 9), min_size=2, max_size=3))
def test_a_plan_remembered_is_the_plan_made_anew(keys, values):
    planner = EditPlanner()
    for quirks in (Quirks(unsupported=frozenset({"seed"})), Quirks(clamps={"temperature": (0, 3)}, spelling={"stop": "stops"}), Quirks(extra={"stop": 1})):
        where = target(quirks)
        for value in values:
            asked = call(dict.fromkeys(keys, value))
            assert planner.plan(asked, where, NAMES) == plan_edits(asked, where, NAMES)


def test_a_plan_is_made_once_for_the_same_keys():
    planner, where = EditPlanner(), target(Quirks(unsupported=frozenset({"seed"})))
    assert planner.plan(call({"seed": 1}), where, NAMES) is planner.plan(call({"seed": 2}), where, NAMES)


def test_the_gateways_own_fields_are_never_sent_nor_warned_about():
    body = {"messages": [], "fallbacks": False, "routing": {}, "baseline_model": "x", "provider_key_id": "pk_1"}
    assert sent(body, target()) == ({"messages": []}, [])
    assert sent(body, target(Quirks(unsupported=frozenset({"seed"})))) == ({"messages": []}, [])


def test_unsupported_parameters_are_dropped_and_named_as_the_caller_spelt_them():
    quirks = Quirks(unsupported=frozenset({"logit_bias", "max_output_tokens"}))
    assert sent({"logit_bias": {"1": 1}, "max_completion_tokens": 5}, target(quirks)) == ({}, ["logit_bias", "max_completion_tokens"])


def test_a_rename_loses_nothing_and_is_no_warning():
    quirks = Quirks(spelling={"max_output_tokens": "max_completion_tokens", "seed": "random_seed"})
    assert sent({"max_tokens": 5, "seed": 7}, target(quirks)) == ({"max_completion_tokens": 5, "random_seed": 7}, [])
    assert sent({"max_completion_tokens": 5}, target(quirks)) == ({"max_completion_tokens": 5}, [])


def test_sampling_is_dropped_only_while_the_model_reasons():
    quirks = Quirks(unsupported_when_reasoning=SAMPLING, effort=("none", "low", "high"), effort_default="none")
    where = target(quirks, is_reasoning=True)
    assert sent({"temperature": 1.0}, where) == ({"temperature": 1.0}, [])
    assert sent({"temperature": 1.0, "reasoning_effort": "low"}, where) == ({"reasoning_effort": "low"}, ["temperature"])
    assert sent({"temperature": 1.0, "reasoning_effort": "none"}, where)[1] == []


def test_a_model_that_cannot_stop_reasoning_keeps_refusing_sampling():
    quirks = Quirks(unsupported_when_reasoning=SAMPLING, effort=("low", "high"))
    body, warned = sent({"temperature": 1.0, "reasoning_effort": "none"}, target(quirks, is_reasoning=True))
    assert body == {"reasoning_effort": "low"}
    assert warned == ["reasoning_effort", "temperature"]


def test_numbers_are_clamped_with_a_warning_and_other_types_left_to_the_provider():
    quirks = Quirks(clamps={"temperature": (0.01, 1.0)})
    assert sent({"temperature": 2}, target(quirks)) == ({"temperature": 1}, ["temperature"])
    assert sent({"temperature": 0}, target(quirks)) == ({"temperature": 0.01}, ["temperature"])
    assert sent({"temperature": 0.5}, target(quirks)) == ({"temperature": 0.5}, [])
    assert sent({"temperature": "hot"}, target(quirks)) == ({"temperature": "hot"}, [])
    assert sent({"temperature": True}, target(quirks)) == ({"temperature": True}, [])


def test_values_are_translated_silently():
    quirks = Quirks(values={"tool_choice": {"required": "any"}})
    assert sent({"tool_choice": "required"}, target(quirks)) == ({"tool_choice": "any"}, [])
    assert sent({"tool_choice": {"type": "function"}}, target(quirks)) == ({"tool_choice": {"type": "function"}}, [])


def test_extras_are_sent_unless_the_caller_said_otherwise():
    quirks = Quirks(extra={"tool_stream": True})
    assert sent({}, target(quirks)) == ({"tool_stream": True}, [])
    assert sent({"tool_stream": False}, target(quirks)) == ({"tool_stream": False}, [])


def test_a_thinking_budget_becomes_the_effort_of_models_that_speak_effort():
    body = {"thinking": {"type": "enabled", "budget_tokens": 9000}}
    assert sent(body, target(), thinking_budget=9000) == ({"reasoning_effort": "medium"}, [])
    assert sent(body, target(Quirks(thinking="budget")), thinking_budget=9000) == (body, [])


def test_an_effort_the_model_lacks_becomes_the_nearest_and_says_so():
    body, warned = sent({"reasoning_effort": "xhigh"}, target(Quirks(effort=("low", "medium", "high"))))
    assert (body, warned) == ({"reasoning_effort": "high"}, ["reasoning_effort"])


def test_models_that_take_no_effort_lose_it_with_a_warning():
    assert sent({"reasoning_effort": "high"}, target(Quirks(effort=()))) == ({}, ["reasoning_effort"])


def test_effort_switches_thinking_on_and_off_where_that_is_all_there_is():
    where = target(Quirks(thinking="toggle", effort=()))
    assert sent({"reasoning_effort": "none"}, where) == ({"thinking": {"type": "disabled"}}, [])
    assert sent({"reasoning_effort": "medium"}, where) == ({"thinking": {"type": "enabled"}}, [])
    assert sent({"reasoning_effort": "high"}, where) == ({"thinking": {"type": "enabled"}}, ["reasoning_effort"])


def test_a_toggle_with_degrees_gets_both():
    where = target(Quirks(thinking="toggle", effort=("low", "high", "max")))
    body, warned = sent({"thinking": {"budget_tokens": 30_000}}, where, thinking_budget=30_000)
    assert (body, warned) == ({"thinking": {"type": "enabled"}, "reasoning_effort": "high"}, [])
    assert sent({"reasoning_effort": "none"}, where) == ({"thinking": {"type": "disabled"}}, [])


@given(st.sampled_from(EFFORTS), st.lists(st.sampled_from(EFFORTS), min_size=1, unique=True))
def test_nearest_effort_is_allowed_and_none_is_nearer(asked, allowed):
    found = nearest_effort(asked, allowed)
    assert found in allowed
    distance = abs(EFFORTS.index(found) - EFFORTS.index(asked))
    assert all(abs(EFFORTS.index(other) - EFFORTS.index(asked)) >= distance for other in allowed)


@given(st.integers(0, 200_000), st.integers(0, 200_000))
def test_a_larger_budget_never_means_less_effort(one, other):
    low, high = sorted((one, other))
    assert EFFORTS.index(effort_of_budget(low)) <= EFFORTS.index(effort_of_budget(high))


@pytest.mark.parametrize("edit", [Edit("drop", "seed"), Edit("set", "seed", Raw(b"3"))])
def test_both_appliers_do_the_same(edit):
    pairs = {"seed": Raw(b"7"), "top_p": Raw(b"1")}
    request = Request("m", [], params=dict(pairs))
    apply_to_request(request, [edit])
    assert request.params == apply_to_pairs(pairs, [edit], {}, {})


def test_pairs_of_the_call_stay_as_they_were():
    asked = call({"seed": 1, "max_tokens": 2})
    before = dict(asked.pairs)
    where = target(Quirks(unsupported=frozenset({"seed"}), spelling={"max_output_tokens": "max_completion_tokens"}))
    apply_to_pairs(asked.pairs, plan_edits(asked, where, NAMES).edits, NAMES, KEYS)
    assert asked.pairs == before
