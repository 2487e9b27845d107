"""Recorded streams of real providers: both lanes agree in any slicing and after any change that means nothing, and what is forwarded
folds to what was sent. Nothing here is keyed to one recording."""

from __future__ import annotations

import json
import random
import re
from typing import Any

import pytest

from aigate.core.sse import read_block
from tests.dialects.recorded import needs_recordings, recorded_target, streams
from tests.dialects.streaming import ASKED, cuts, fold, stream_through

pytestmark = needs_recordings

RECORDS = streams()
each_stream = pytest.mark.parametrize("record", RECORDS, ids=[record["id"] for record in RECORDS])
SLICES = ((1 << 30,), (7, 300), (1700,), (64, 1, 4096))


def events_of(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The decoded data events of a recording, independently of our reader."""
    payloads = (read_block(block.encode() + b"\n\n") for block in record["response"].replace("\r\n", "\n").split("\n\n"))
    return [json.loads(payload) for payload in payloads if payload and payload.strip() != b"[DONE]"]


def mutate(value: Any, chance: random.Random) -> Any:
    """The same JSON value with its keys in another order."""
    if isinstance(value, dict):
        keys = list(value)
        chance.shuffle(keys)
        return {key: mutate(value[key], chance) for key in keys}
    return [mutate(entry, chance) for entry in value] if isinstance(value, list) else value


_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_PIECE = re.compile(r"\\u....|\\.|[A-Za-z]")


def escape(text: str, chance: random.Random) -> str:
    """JSON text with some letters of its strings written as escapes, keys included."""

    def piece(found: re.Match[str]) -> str:
        char = found[0]
        return f"\\u{ord(char):04x}" if len(char) == 1 and chance.random() < 0.05 else char

    return _STRING.sub(lambda string: _PIECE.sub(piece, string[0]), text)


def mutations(record: dict[str, Any]) -> dict[str, bytes]:
    chance = random.Random(record["id"])
    events = events_of(record)
    order = list(range(8))

    def stable(event: dict[str, Any]) -> Any:  # one order for the whole stream, as a provider would have
        return mutate(event, random.Random(sum(order)))

    def body(texts: list[str], end: str = "\n\n") -> bytes:
        return "".join(f"data: {text}{end}" for text in [*texts, "[DONE]"]).encode()

    return {
        "key order of each chunk": body([json.dumps(mutate(event, chance), separators=(",", ":")) for event in events]),
        "key order of the stream": body([json.dumps(stable(event), ensure_ascii=False) for event in events]),
        "white space": body([json.dumps(event, separators=(" ,", " : ")) for event in events]),
        "escapes": body([escape(json.dumps(event, separators=(",", ":")), chance) for event in events], "\r\n\r\n"),
    }


def _reasoning(delta: dict[str, Any]) -> str:
    content = delta.get("content")
    parts = content if isinstance(content, list) else []
    thoughts = [piece["text"] for part in parts if part.get("type") == "thinking" for piece in part["thinking"]]
    return (delta.get("reasoning_content") or delta.get("reasoning") or "") + "".join(thoughts)


def _content(delta: dict[str, Any]) -> str:
    content = delta.get("content")
    return "".join(part.get("text", "") for part in content) if isinstance(content, list) else content or ""


def said(events: list[dict[str, Any]]) -> dict[int, tuple[str, dict[int, Any]]]:
    """Choice index → (all that was said, in whatever field; tool calls), by a reading of our own."""
    choices: dict[int, tuple[str, dict[int, Any]]] = {}
    normal = []
    for event in events:
        for choice in event.get("choices") or []:
            delta = choice["delta"]
            normal.append({"choices": [{**choice, "delta": {**delta, "content": _reasoning(delta) + _content(delta), "role": None}}]})
    for index, folded in fold(normal).items():
        choices[index] = (folded["content"].replace("<think>", "").replace("</think>", ""), folded["tool_calls"])
    return choices


@each_stream
def test_both_lanes_and_every_slicing_send_the_same(record: dict[str, Any]) -> None:
    target, data = recorded_target(record), record["response"].encode()
    plain = stream_through(data, target)
    for is_spliced in (True, False):
        for sizes in cuts(data, *SLICES):
            other = stream_through(data, target, is_spliced=is_spliced, sizes=sizes)
            assert other.chunks == plain.chunks
            assert (other.usage, other.text) == (plain.usage, plain.text)


@each_stream
def test_changes_that_mean_nothing_change_nothing(record: dict[str, Any]) -> None:
    target = recorded_target(record)
    plain = stream_through(record["response"].encode(), target)
    if plain.errors:
        pytest.skip("the recording ends in an error")
    for name, data in mutations(record).items():
        for is_spliced in (True, False):
            other = stream_through(data, target, is_spliced=is_spliced, sizes=(900,))
            assert other.chunks == plain.chunks, name
            assert (other.usage, other.text) == (plain.usage, plain.text), name


@each_stream
def test_what_was_said_arrives_once_and_usage_is_the_providers(record: dict[str, Any]) -> None:
    streamed = stream_through(record["response"].encode(), recorded_target(record))
    events = events_of(record)
    if not streamed.errors:
        assert streamed.is_done
        assert said(streamed.chunks) == said(events)
    reported = [usage for event in events if (usage := event.get("usage") or (event.get("x_groq") or {}).get("usage"))]
    assert (streamed.usage is None) == (not reported)
    if reported:
        assert streamed.chunks[-1]["usage"] == {**reported[-1], "cost": 0.0012345}
    assert [place for place, chunk in enumerate(streamed.chunks) if "usage" in chunk] == [len(streamed.chunks) - 1]
    for chunk in streamed.chunks:
        assert (chunk["model"], chunk["object"]) == (ASKED, "chat.completion.chunk")
        assert isinstance(chunk["choices"], list)


@each_stream
def test_the_official_sdk_can_fold_what_is_sent(record: dict[str, Any]) -> None:
    from openai._models import construct_type
    from openai.lib.streaming.chat._completions import ChatCompletionStreamState
    from openai.types.chat import ChatCompletionChunk

    streamed = stream_through(record["response"].encode(), recorded_target(record), include_usage=True)
    state: Any = ChatCompletionStreamState()
    for chunk in streamed.chunks:
        state.handle_chunk(construct_type(type_=ChatCompletionChunk, value=chunk))
    final = state.current_completion_snapshot
    folded = fold(streamed.chunks)
    for choice in final.choices:
        assert (choice.message.content or "") == folded[choice.index]["content"]
        assert choice.message.role in (None, "assistant")
        assert [call.id for call in choice.message.tool_calls or []] == [call["id"] for call in folded[choice.index]["tool_calls"].values()]
