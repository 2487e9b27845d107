"""Datasets, standings and winners of evals."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.evals import Defaults, Result, confidence_of, find_winner, mean_interval, percentile, read_dataset, score_interval, stand
from aigate.errors import ClientError

ITEM = {"input": "6*7?", "expected": "42"}


def result(item: int, *, score: float | None = None, cost: int = 0, latency: int = 0, error: str = "", candidate: int = 0) -> Result:
    return Result(
        item=item, candidate=candidate, call_id=f"req_{item}", score=score, cost_nanousd=cost, latency_ms=latency, error=error
    )


def test_a_text_becomes_a_user_message_with_a_bound_on_its_answer() -> None:
    (item,) = read_dataset([ITEM], Defaults(max_output_tokens=99))
    assert item.request == {"messages": [{"role": "user", "content": "6*7?"}], "max_tokens": 99}


def test_a_whole_request_keeps_its_parameters_but_not_what_the_eval_decides() -> None:
    given_ = {"messages": [{"role": "user", "content": "hi"}], "temperature": 0, "max_completion_tokens": 5, "model": "x/y", "stream": True}
    (item,) = read_dataset([{**ITEM, "input": given_}], Defaults())
    assert item.request == {"messages": given_["messages"], "temperature": 0, "max_completion_tokens": 5}


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ("hello", "dataset[1]"),
        ({"input": "", "expected": "x"}, "dataset[1].input"),
        ({"expected": "x"}, "dataset[1].input"),
        ({"input": [5], "expected": "x"}, "dataset[1].input[0]"),
        ({"input": {"messages": []}, "expected": "x"}, "dataset[1].input.messages"),
        ({"input": {"messages": [{"role": "user"}], "n": 2}, "expected": "x"}, "dataset[1].input.n"),
        ({"input": "x", "expected": "x", "weight": 2}, "dataset[1].weight"),
        ({"input": "x", "expected": "x", "scorer": "vibes"}, "dataset[1].scorer"),
        ({"input": "x"}, "dataset[1]"),
    ],
)
def test_a_wrong_item_is_refused_by_its_place(item: object, field: str) -> None:
    with pytest.raises(ClientError) as refused:
        read_dataset([ITEM, item], Defaults())
    assert refused.value.param == field


def test_items_without_anything_to_score_by_will_do_for_cost_and_speed() -> None:
    assert read_dataset([{"input": "x"}], Defaults(needs_scores=False))[0].rule.method == "none"


def test_a_failed_answer_is_worth_nothing() -> None:
    standing = stand("a/b", [result(0, score=1.0), result(1, error="500")])
    assert (standing.score, standing.failed, standing.scored) == (0.5, 1, 2)


def test_the_best_mean_score_wins_and_a_tie_goes_to_the_cheaper() -> None:
    good = stand("good", [result(0, score=1.0, cost=90), result(1, score=0.5, cost=90)])
    cheap = stand("cheap", [result(0, score=0.75, cost=10), result(1, score=0.75, cost=10)])
    poor = stand("poor", [result(0, score=0.5), result(1, score=0.5)])
    winner = find_winner([poor, good, cheap], "quality")
    assert winner is cheap


def test_who_fails_is_neither_cheap_nor_fast() -> None:
    fails = stand("fails", [result(0, cost=1, latency=1), result(1, error="500")])
    works = stand("works", [result(0, cost=50, latency=50), result(1, cost=50, latency=50)])
    assert find_winner([fails, works], "cost") is works
    assert find_winner([fails, works], "speed") is works


def test_nobody_wins_where_nothing_was_answered_or_scored() -> None:
    silent = stand("silent", [result(0, error="500")])
    unscored = stand("unscored", [result(0)])
    assert find_winner([silent], "cost") is None
    assert find_winner([silent, unscored], "quality") is None


def test_a_win_on_every_item_is_no_accident_and_one_on_half_of_them_is() -> None:
    always = [result(i, score=0.9) for i in range(10)]
    never = [result(i, score=0.1 + i * 0.001) for i in range(10)]
    mixed = [result(i, score=float(i % 2)) for i in range(10)]
    sure = confidence_of(always, never, "quality")
    unsure = confidence_of([result(i, score=0.6) for i in range(10)], mixed, "quality")
    assert sure and unsure
    assert sure["low"] > 0
    assert unsure["low"] < 0 < unsure["high"]
    assert confidence_of([result(0, score=1.0)], [result(0, score=0.0)], "quality") is None


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_the_interval_of_a_score_holds_its_mean_and_stays_a_score(scores: list[float]) -> None:
    low, high = score_interval(scores)
    assert low is not None and high is not None
    mean = sum(scores) / len(scores)
    assert 0.0 <= low <= mean + 1e-9 and mean - 1e-9 <= high <= 1.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=50))
def test_the_interval_of_a_mean_holds_it(values: list[float]) -> None:
    low, high = mean_interval(values)
    mean = sum(values) / len(values)
    assert low - 1e-3 <= mean <= high + 1e-3


@given(st.lists(st.integers(0, 10**6), min_size=1), st.sampled_from([50, 90, 99]))
def test_a_percentile_lies_among_the_values(values: list[int], percent: int) -> None:
    ordered = sorted(values)
    found = percentile(ordered, percent)
    assert ordered[0] <= found <= ordered[-1]
    assert sum(value <= found for value in ordered) * 100 >= (percent - 1) * len(ordered)
