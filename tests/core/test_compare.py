"""Likeness and difference of two answers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aigate.core.compare import Output, difference, similarity

OUTPUTS = st.builds(
    Output,
    st.text(max_size=60),
    st.lists(st.tuples(st.sampled_from(["f", "g"]), st.sampled_from(["{}", '{"a":1}', "{broken"])), max_size=3).map(tuple),
)


@given(OUTPUTS, OUTPUTS)
def test_the_score_lies_between_0_and_1_and_equals_are_1(a: Output, b: Output) -> None:
    assert 0.0 <= similarity(a, b) <= 1.0
    assert similarity(a, a) == 1.0


@given(OUTPUTS, OUTPUTS)
def test_a_difference_says_equal_only_of_equals(a: Output, b: Output) -> None:
    assert difference(a, b)["is_equal"] == (a == b)


def test_words_count_not_letters() -> None:
    assert similarity(Output("the cat sat"), Output("the dog sat")) == 2 / 3
    assert similarity(Output("yes"), Output("no")) == 0.0


def test_tool_calls_agree_by_name_and_meaning() -> None:
    a = Output("", (("f", '{"a": 1, "b": 2}'), ("g", "{}")))
    b = Output("", (("f", '{"b":2,"a":1}'), ("h", "{}")))
    assert similarity(a, b) == 0.5
    assert difference(a, b)["tool_calls"]["agreeing"] == 1


def test_embeddings_are_compared_by_direction() -> None:
    assert similarity(Output(vectors=((1.0, 0.0),)), Output(vectors=((2.0, 0.0),))) == 1.0
    assert similarity(Output(vectors=((1.0, 0.0),)), Output(vectors=((0.0, 1.0), (0.0, 1.0)))) == 0.0


def test_json_is_told_valid_and_equal_by_value() -> None:
    found = difference(Output('{"a": 1}'), Output('{"a":1}'))
    assert found["json"] == {"source_is_valid": True, "target_is_valid": True, "is_equal": True}
    assert "json" not in difference(Output("5"), Output("word"))
    assert difference(Output("{}"), Output("oops"))["json"]["target_is_valid"] is False


def test_a_diff_names_the_lines_that_differ() -> None:
    assert "-two\n+zwei" in difference(Output("one\ntwo"), Output("one\nzwei"))["text"]
