"""Reasoning written into the text between tags."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.dialects.think import ThinkSplitter, split_thinking

PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "a", " ", "\n", "<thin"]), max_size=12)


@pytest.mark.parametrize(
    ("text", "reasoning", "rest"),
    [
        ("<think>a</think>b", "a", "b"),
        ("\n<think>a", "a", ""),
        ("b <think>a</think>", "", "b <think>a</think>"),
        ("<thinking>a", "", "<thinking>a"),
        ("<think>a</think>b<think>c</think>", "a", "b<think>c</think>"),
        ("<thi", "", "<thi"),
        ("", "", ""),
    ],
)
def test_only_a_tag_that_opens_the_text_counts(text: str, reasoning: str, rest: str) -> None:
    assert split_thinking(text) == (reasoning, rest)


@given(PIECES)
def test_pieces_fold_to_what_the_whole_text_gives(pieces: list[str]) -> None:
    splitter = ThinkSplitter()
    parts = [splitter.feed(piece, False) for piece in pieces] + [splitter.feed("", True)]
    assert ("".join(part[0] for part in parts), "".join(part[1] for part in parts)) == split_thinking("".join(pieces))
