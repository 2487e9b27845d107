"""What the stream tests share: a stream driven through a reader and a writer in any slicing, and its chunks folded into one reply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aigate.core.call import Call
from aigate.core.target import Target
from aigate.core.usage import NOTHING, Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ProviderError
from tests.dialects.recorded import ALL

CHAT = DIALECTS["openai-chat"]
ASKED = "mock/asked"
MAX_BYTES_ONE_BY_ONE = 40_000 if ALL else 6_000


class Streamed(NamedTuple):
    chunks: list[Any]  # the decoded data events the client got; bytes where one is no JSON
    usage: Usage | None
    errors: list[ProviderError]
    text: tuple[str, int]
    is_done: bool
    fast_chunks: int  # how many went undecoded


def slices(data: bytes, sizes: Sequence[int]) -> Iterable[bytes]:
    """`data` cut into pieces of the given sizes, over and over."""
    at = turn = 0
    while at < len(data):
        size = sizes[turn % len(sizes)]
        yield data[at : at + size]
        at += size
        turn += 1


def cuts(data: bytes, *sizes: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """`sizes`, and byte by byte where that does not take long."""
    return ((1,), *sizes) if len(data) <= MAX_BYTES_ONE_BY_ONE else sizes


def stream_through(
    data: bytes, target: Target, *, is_spliced: bool = True, sizes: Sequence[int] = (1 << 30,), include_usage: bool | None = None
) -> Streamed:
    """`data` through a reader and the writer of the same dialect, as the relay does it."""
    reader = CHAT.stream_reader(target, is_spliced)
    writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, (), include_usage=include_usage), ASKED, "req_1")
    out, usage, raw_usage, errors, fast, is_done = b"", None, b"", [], 0, False
    batches = [reader.feed(piece) for piece in slices(data, sizes)] + [reader.close()]
    for events in batches:
        for event in events:
            if event.usage is not None:
                usage, raw_usage = event.usage, event.raw_usage
            if event.error is not None:
                errors.append(event.error)
            is_done = is_done or event.is_done
            fast += event.count if event.texts is not None else 0
        out += writer.write([event for event in events if event.error is None])
    out += writer.finish(Settlement(usage or NOTHING, 1_234_500, raw_usage))
    return Streamed(sent_chunks(out), usage, errors, reader.text_so_far(), is_done, fast)


def sent_chunks(out: bytes) -> list[Any]:
    """The data events of what a client gets, decoded; checks their framing."""
    blocks = out.split(b"\n\n")
    assert blocks.pop() == b""
    assert blocks.pop() == b"data: [DONE]"
    chunks: list[Any] = []
    for block in blocks:
        if not block.startswith(b":"):
            assert block.startswith(b"data: "), block
            chunks.append(json.loads(block[6:]) if block[6:7] == b"{" else block)
    return chunks


def content_chunk(text: str, **fields: object) -> dict[str, Any]:
    return chunk_of({"content": text}, **fields)


def chunk_of(delta: dict[str, Any], *, finish_reason: str | None = None, index: int = 0, **fields: object) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1_700_000_000, "model": "upstream"}
    return {**head, "choices": [choice], **fields}


def sse(*chunks: object, end: bytes = b"\n\n", done: bool = True) -> bytes:
    """An SSE body of these chunks (bytes as they are) and [DONE]."""
    events = [chunk if isinstance(chunk, bytes) else json.dumps(chunk, separators=(",", ":")).encode() for chunk in chunks]
    events += [b"[DONE]"] if done else []
    return b"".join(b"data: " + event + end for event in events)


def fold(chunks: Iterable[dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Choice index → what its deltas add up to."""
    choices: dict[int, dict[str, Any]] = {}
    for chunk in chunks:
        for choice in chunk.get("choices") or []:
            folded = choices.setdefault(choice["index"], {"content": "", "reasoning_content": "", "tool_calls": {}, "finish_reason": None})
            delta = choice.get("delta") or {}
            for key in ("content", "reasoning_content", "role"):
                if delta.get(key) is not None:
                    folded[key] = folded.get(key, "") + delta[key]
            for call in delta.get("tool_calls") or []:
                _fold_call(folded["tool_calls"].setdefault(call["index"], {"id": "", "name": "", "arguments": ""}), call)
            folded["finish_reason"] = choice.get("finish_reason") or folded["finish_reason"]
    return choices


def _fold_call(folded: dict[str, str], call: dict[str, Any]) -> None:
    function = call.get("function") or {}
    folded["id"] += call.get("id") or ""
    folded["name"] += function.get("name") or ""
    folded["arguments"] += function.get("arguments") or ""
