"""Conversations made by hypothesis: every kind of part in every role that may have it, whatever a format has for it."""

from __future__ import annotations

import base64
import json
from typing import Any

from hypothesis import strategies as st
from msgspec import Raw

from aigate.core.events import Event
from aigate.core.neutral import (
    Chunk,
    Citation,
    Delta,
    Media,
    Message,
    Opaque,
    Reasoning,
    Refusal,
    Request,
    Text,
    Tool,
    ToolCall,
    ToolCallDelta,
    ToolResult,
)  # fmt: skip
from aigate.core.usage import Usage

TEXTS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip)
NAMES = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
DATA = st.binary(min_size=1, max_size=6).map(lambda data: base64.b64encode(data).decode())
ARGUMENTS = st.dictionaries(NAMES, st.one_of(TEXTS, st.integers(-9, 9), st.booleans(), st.none(), st.lists(TEXTS, max_size=2)), max_size=3).map(json.dumps)
ORIGINS = ("openai-responses", "anthropic-messages", "gemini", "openai-chat")

_TYPES = {"image": "image/png", "audio": "audio/wav", "video": "video/mp4", "document": "application/pdf"}


@st.composite
def media(draw: Any) -> Media:
    kind = draw(st.sampled_from(sorted(_TYPES)))
    how = draw(st.sampled_from(("data", "url", "file")))
    if how == "data":
        return Media(kind, data=draw(DATA), media_type=_TYPES[kind])
    if how == "url":
        return Media(kind, url=f"https://example.com/{draw(NAMES)}.{ {'image': 'png', 'audio': 'wav', 'video': 'mp4', 'document': 'pdf'}[kind] }")
    return Media(kind, file_id=f"file-{draw(NAMES)}")


@st.composite
def reasoning(draw: Any) -> Reasoning:
    proof = base64.b64encode(draw(TEXTS).encode()).decode()
    origin = draw(st.sampled_from(ORIGINS))
    return draw(st.sampled_from((Reasoning(draw(TEXTS), proof, origin=origin), Reasoning("", None, proof, origin=origin), Reasoning(draw(TEXTS)))))


def texts() -> st.SearchStrategy[Text]:
    return st.builds(Text, TEXTS, cache=st.sampled_from((None, None, "", "5m")))


@st.composite
def answer(draw: Any, number: int) -> list[Message]:
    """A turn of the assistant, and the results of the tools that it called."""
    if draw(st.integers(0, 5)) == 0:
        return [Message("assistant", [Refusal(draw(TEXTS))], is_plain=False)]  # nothing is said beside it
    said: list[Any] = draw(st.lists(st.one_of(reasoning(), texts()), min_size=1, max_size=3))
    if draw(st.booleans()):
        said.append(Text(draw(TEXTS), citations=[Citation("url", url="https://example.com/", title="t", start=0, end=1)]))
    if draw(st.integers(0, 4)) == 0:
        said.append(Opaque(draw(st.sampled_from(ORIGINS)), Raw(b'{"type":"newer_than_this"}'), "newer_than_this"))
    calls = [
        ToolCall(f"call_{number}_{place}", draw(NAMES), draw(ARGUMENTS), signature=draw(st.sampled_from((None, "c2ln"))), origin="gemini")
        for place in range(draw(st.integers(0, 3)))
    ]
    results = [
        ToolResult(
            call.id, [Text(draw(TEXTS)), *draw(st.lists(media(), max_size=1))], draw(st.sampled_from((None, True, False))), False, call.name,
        )
        for call in calls
    ]  # fmt: skip
    for result in results:
        result.is_plain = len(result.parts) == 1
    return [Message("assistant", [*said, *calls], is_plain=False), *([Message("tool", [result]) for result in results])]


@st.composite
def requests(draw: Any) -> Request:
    messages = [Message(draw(st.sampled_from(("system", "developer"))), [Text(draw(TEXTS))])] if draw(st.booleans()) else []
    for number in range(draw(st.integers(1, 3))):
        asked: list[Any] = [Text(draw(TEXTS)), *draw(st.lists(st.one_of(media(), texts()), max_size=3))]
        messages.append(Message("user", asked, is_plain=len(asked) == 1))
        messages += draw(answer(number))
    messages.append(Message("user", [Text(draw(TEXTS))]))
    tools = [
        Tool("function", name, draw(st.one_of(st.none(), TEXTS)), {"type": "object", "properties": {}}, draw(st.sampled_from((None, True, False))))
        for name in draw(st.lists(NAMES, max_size=2, unique=True))
    ]
    return Request("mock/asked", messages, tools or None, dialect="generated")


@st.composite
def said(draw: Any) -> list[Any]:
    """What an assistant says in one turn, in the order of a reply: reasoning, texts, calls; or a refusal alone."""
    if draw(st.integers(0, 5)) == 0:
        return [Refusal(draw(TEXTS))]
    parts: list[Any] = draw(st.lists(reasoning(), max_size=2)) + draw(st.lists(texts(), max_size=3))
    calls = [ToolCall(f"call_{place}", draw(NAMES), draw(ARGUMENTS)) for place in range(draw(st.integers(0, 3)))]
    return parts + calls or [Text(draw(TEXTS))]


def events_of(parts: list[Any], usage: Usage) -> list[Event]:
    """The same as a stream, texts and arguments in pieces."""
    deltas = [Delta(0, role="assistant")]
    calls = 0
    for part in parts:
        if type(part) is ToolCall:
            middle = len(part.arguments) // 2
            deltas.append(Delta(0, tool_calls=[ToolCallDelta(calls, part.id, part.name, part.arguments[:middle])]))
            deltas.append(Delta(0, tool_calls=[ToolCallDelta(calls, arguments=part.arguments[middle:])]))
            calls += 1
        elif type(part) is Reasoning:
            deltas += [Delta(0, reasoning=char) for char in part.text]
            if part.signature or part.encrypted:
                deltas.append(Delta(0, signature=part.signature, encrypted=part.encrypted, origin=part.origin))
        else:
            key = "refusal" if type(part) is Refusal else "text"
            deltas += [Delta(0, **{key: char}) for char in part.text]
    deltas.append(Delta(0, finish_reason="tool_calls" if calls else "stop"))
    events = [Event(chunk=Chunk("made-up", 1, "m", [delta], dialect="generated"), is_final=delta.finish_reason is not None) for delta in deltas]
    return [*events, Event(usage=usage, is_done=True)]
