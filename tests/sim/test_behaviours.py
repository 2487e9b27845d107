"""A model name is read as its behaviours, and only as a whole."""

import re

import pytest

from aigate.sim.behaviours import CUT_BEFORE_HEAD, NEVER, PARTS, Behaviour, UnknownBehaviour, read_behaviour


@pytest.mark.parametrize(
    ("model", "fields"),
    [
        ("echo", {}),
        ("slow", {"first_delay_s": 0.05, "chunk_delay_s": 0.05}),
        ("slow-2s", {"first_delay_s": 2.0, "chunk_delay_s": 2.0}),
        ("ttft-250ms", {"first_delay_s": 0.25}),
        ("long-1000", {"length": 1000}),
        ("429", {"status": 429}),
        ("429-then-ok-2", {"status": 429, "failures": 2}),
        ("503-then-ok", {"status": 503, "failures": 1}),
        ("html-502", {"status": 502, "is_html": True}),
        ("cut-5", {"cut_after": 5}),
        ("cut-0", {"cut_after": 0}),
        ("cut-head", {"cut_after": CUT_BEFORE_HEAD}),
        ("usage-groq", {"usage": "groq"}),
        ("big-2KB", {"pad_bytes": 2048}),
        ("long-9+cut-5+bills-all+crlf", {"length": 9, "cut_after": 5, "bills_all": True, "newline": b"\r\n"}),
    ],
)
def test_names_and_options(model, fields):
    assert read_behaviour(model) == Behaviour(**fields)


@pytest.mark.parametrize("model", ["gpt-5.4", "long-cat-flash", "slow-ish", "600", "org/model@2026"])
def test_any_other_name_behaves_as_echo(model):
    assert read_behaviour(model) == Behaviour()


@pytest.mark.parametrize("model", ["echo+cutt-5", "long-10+", "+echo"])
def test_a_mistyped_part_of_several_is_refused_by_name(model):
    with pytest.raises(UnknownBehaviour, match="no behaviour"):
        read_behaviour(model)


def test_every_part_has_a_working_example_that_is_a_valid_model_name():
    for part in PARTS:
        assert re.fullmatch(part.pattern, part.example)
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,199}", part.example)
        read_behaviour(part.example + "+echo")


def test_a_huge_number_is_bounded():
    assert read_behaviour("long-9999999").length == 1_000_000
    assert read_behaviour("echo").cut_after == NEVER
