"""The simulated model is deterministic, and its token counts are those of the words tokenizer."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.words import MESSAGE_OVERHEAD, count_words
from aigate.sim.answers import INTRODUCTION, ChatRequest, answer, embed
from aigate.sim.behaviours import Behaviour

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"enum": ["degrees Celsius, exactly: so", "F"]},
                "days": {"type": "integer"},
            },
        },
    },
}


def ask(text="hello there", behaviour=Behaviour(), **fields):
    request = ChatRequest(**{"model": "echo", "messages": [{"role": "user", "content": text}], **fields})
    return answer(request, behaviour, 0)


def test_it_says_what_it_is_and_repeats_the_question():
    content = "".join(ask("how are you?").choices[0].content)
    assert content.startswith(INTRODUCTION + " You said: how are you?")


def test_the_same_request_has_the_same_answer_and_another_has_another():
    assert ask() == ask()
    assert ask().choices != ask("hello you").choices
    assert ask(seed=1) == ask(seed=1)
    assert ask(seed=1).choices != ask(seed=2).choices
    assert ask(model="a", seed=1).choices == ask(model="b", seed=1).choices


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))), st.sampled_from([Behaviour(), Behaviour(length=7), Behaviour(reasoning=5)]))
def test_tokens_are_the_words_of_what_is_said(text, behaviour):
    answers = ask(text, behaviour)
    said = "".join(answers.choices[0].reasoning + answers.choices[0].content)
    assert answers.completion_tokens == count_words(said)
    assert answers.prompt_tokens == MESSAGE_OVERHEAD + count_words(text)


@pytest.mark.parametrize("length", [1, 5, 1000])
def test_a_long_answer_has_exactly_so_many_tokens(length):
    assert ask(behaviour=Behaviour(length=length)).completion_tokens == length


def test_an_answer_stops_at_its_limit_over_reasoning_and_content():
    answers = ask(behaviour=Behaviour(reasoning=4, length=10), max_tokens=6)
    (choice,) = answers.choices
    assert (len(choice.reasoning), len(choice.content), choice.finish_reason) == (4, 2, "length")
    assert ask(behaviour=Behaviour(length=10), max_completion_tokens=10).choices[0].finish_reason == "stop"


def test_stop_sequences_end_the_text_before_them():
    content = "".join(ask("say STOP now", stop="STOP").choices[0].content)
    assert content.endswith("You said: say") and "STOP" not in content


def test_n_choices_differ_and_are_all_counted():
    answers = ask(n=3)
    assert len({"".join(choice.content) for choice in answers.choices}) == 3
    assert answers.completion_tokens == sum(choice.tokens for choice in answers.choices)


def test_a_tool_call_has_valid_arguments_and_its_result_gets_a_text():
    (choice,) = ask(behaviour=Behaviour(tool_calls=1), tools=[WEATHER]).choices
    (call,) = choice.calls
    assert choice.finish_reason == "tool_calls" and not choice.content
    assert json.loads("".join(call.fragments)) == {"city": "sim", "unit": "degrees Celsius, exactly: so", "days": 1}
    assert len(call.fragments) > 1 and choice.tokens == count_words("".join(call.fragments))
    messages = [{"role": "user", "content": "weather?"}, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    (after,) = ask(behaviour=Behaviour(tool_calls=1), tools=[WEATHER], messages=messages).choices
    assert not after.calls and "sunny" in "".join(after.content)


def test_tool_choice_is_honoured():
    other = {"type": "function", "function": {"name": "other"}}
    forced = {"type": "function", "function": {"name": "other"}}
    asked = ask(behaviour=Behaviour(tool_calls=2), tools=[WEATHER, other], tool_choice=forced)
    assert [call.name for call in asked.choices[0].calls] == ["other", "other"]
    assert len({call.id for call in asked.choices[0].calls}) == 2
    assert not ask(behaviour=Behaviour(tool_calls=1), tools=[WEATHER], tool_choice="none").choices[0].calls


@given(st.text(alphabet=st.characters(exclude_categories=("Cs",))), st.integers(1, 64))
def test_embeddings_are_unit_vectors_of_the_text(text, dimensions):
    vector = embed(text, dimensions, 0)
    assert len(vector) == dimensions
    assert sum(number * number for number in vector) == pytest.approx(1)
    assert vector == embed(text, dimensions, 0)
