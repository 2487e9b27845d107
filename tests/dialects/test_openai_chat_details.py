"""Proofs of thinking that travel through messages of OpenAI chat."""

from __future__ import annotations

import copy

from aigate.core.neutral import Reasoning, Text, ToolCall
from aigate.dialects.openai_chat_details import DETAILS, take_details, write_details
from aigate.dialects.openai_chat_message import read_message, read_parts, write_message

CLAUDE = "anthropic-messages"
THOUGHT = Reasoning("a greeting", "signed", origin=CLAUDE)
HIDDEN = Reasoning("", None, "redacted", origin=CLAUDE)


def test_thoughts_before_everything_else_come_back_as_they_were():
    details = write_details([THOUGHT, HIDDEN, Text("Hello"), ToolCall("c", "f", "{}")])
    assert [entry["index"] for entry in details] == [0, 1]
    assert "signed" not in str(details) and details[0]["text"] == "a greeting"
    message = {"role": "assistant", "content": "Hello", "reasoning_content": "a greeting", DETAILS: copy.deepcopy(details)}
    parts, _ = read_parts(message)
    assert parts == [THOUGHT, HIDDEN, Text("Hello")]
    assert DETAILS not in message and "reasoning_content" not in message


def test_of_thoughts_in_between_nothing_is_brought_back():
    details = write_details([THOUGHT, Text("Let me see."), Reasoning("more", "signed too", origin=CLAUDE), ToolCall("c", "f", "{}")])
    parts, _ = read_parts({"content": "Let me see.", "reasoning_content": "a greetingmore", DETAILS: details})
    assert parts == [Reasoning("a greetingmore"), Text("Let me see.")]


def test_what_is_not_sealed_here_stays_as_it_is():
    for foreign in ([{"type": "reasoning.text", "text": "x", "signature": "of a router", "index": 0}], [], "x", [3], [{"signature": None}], None):
        fields = {DETAILS: foreign}
        assert take_details(fields) is None and fields == {DETAILS: foreign}
    assert write_details([Reasoning("unsigned", origin=CLAUDE), Reasoning("nobody's", "signed")]) == []


def test_another_provider_of_this_format_is_shown_the_text_alone():
    message = read_message({"role": "assistant", "content": "Hello", DETAILS: write_details([THOUGHT, HIDDEN])})
    assert write_message(message) == [{"role": "assistant", "content": "Hello", "reasoning_content": "a greeting"}]


def test_a_thought_without_a_proof_keeps_its_text_beside_one_that_has_one():
    for thoughts in ([THOUGHT, Reasoning(" and more")], [Reasoning("first "), THOUGHT]):
        message = {"content": "Hello", "reasoning_content": "".join(each.text for each in thoughts), DETAILS: write_details([*thoughts, Text("Hello")])}
        assert read_parts(message)[0] == [*thoughts, Text("Hello")]
    streamed = {"content": "Hello", "reasoning_content": "a greeting and more", DETAILS: write_details([THOUGHT])}
    assert read_parts(streamed)[0] == [THOUGHT, Reasoning(" and more"), Text("Hello")]
