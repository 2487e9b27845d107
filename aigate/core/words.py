"""The "words" tokenizer: the built-in simulated provider's, exact and public, so that anyone can count what it counts.

One token is one maximal run of non-space characters; white space costs nothing. A prompt costs the words of its texts and
MESSAGE_OVERHEAD a message. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

MESSAGE_OVERHEAD = 3  # tokens, per message, for its role and frame


def count_words(text: str) -> int:
    return len(text.split())


def message_texts(messages: Iterable[Mapping]) -> list[str]:
    """Every text of OpenAI-chat messages that counts: contents, text parts, arguments of earlier tool calls."""
    texts: list[str] = []
    for message in messages:
        content = message.get("content")
        if isinstance(content, str):
            texts.append(content)
        elif isinstance(content, list):
            texts += [part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)]
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict) and isinstance(function.get("arguments"), str):
                texts.append(function["arguments"])
    return texts
