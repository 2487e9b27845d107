"""Usage that no provider reported, or none can believe."""

from __future__ import annotations

import asyncio

from msgspec import Raw

from aigate.core.call import Call
from aigate.core.target import Quirks
from aigate.core.usage import COUNTED, ESTIMATED, REPORTED, Usage
from aigate.worker.count import believed_usage, count_text
from tests.dialects.recorded import target


def call_with(messages: bytes) -> Call:
    return Call("openai-chat", "chat", {"messages": Raw(messages)}, len(messages), ("mock/asked",))


HI = call_with(b'[{"role": "user", "content": "one two three four"}]')


def believed(reported: Usage | None, text: str, more_bytes: int = 0, tokenizer: str = "words") -> tuple[Usage, str]:
    return asyncio.run(believed_usage(HI, target(Quirks(tokenizer=tokenizer)), reported, text, more_bytes))


def test_what_is_reported_is_believed() -> None:
    assert believed(Usage(10, 5), "a b") == (Usage(10, 5), REPORTED)
    assert believed(Usage(10, 0), "") == (Usage(10, 0), REPORTED)
    assert believed(Usage(), "") == (Usage(), REPORTED)


def test_a_usage_that_knows_nothing_of_the_text_is_counted() -> None:
    counted, how = believed(None, "a b c")
    assert (counted.output_tokens, how) == (3, COUNTED) and counted.input_tokens >= 4
    assert believed(Usage(), "a b c") == (counted, COUNTED)
    assert believed(Usage(10, 0, 4), "a b c") == (Usage(10, 3, 4), COUNTED)
    assert believed(Usage(10, 0, 4), "", 400, tokenizer="") == (Usage(10, 100, 4), ESTIMATED)


def test_a_prompt_that_only_its_provider_can_read_is_counted_by_its_text() -> None:
    messages = b'[{"role":"user","content":"hi","x":1e999}]'
    usage, how = count_text(call_with(messages), target(), "some text", 0)
    assert how == ESTIMATED and usage.input_tokens >= len(messages) // 4 and usage.output_tokens > 0
