"""What the tests of Gemini share: its recorded traffic, request heads, streams driven through it, and what a message tells in any format."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

from aigate.core.call import Call
from aigate.core.neutral import Reasoning, Refusal, Text, ToolCall
from aigate.core.target import Quirks, Target
from aigate.core.usage import NOTHING
from aigate.dialects.dialect import Settlement
from aigate.dialects.gemini import Gemini
from aigate.providers.table import ROWS
from tests.dialects.recorded import FOLDER, target
from tests.dialects.streaming import slices

GEMINI = Gemini()
ASKED = "mock/asked"


class Head:
    """A request for `model`; streams are asked for by the action."""

    headers: dict[bytes, bytes] = {}

    def __init__(self, model: str = "google/gemini-2.5-flash", action: str = "generateContent", query: str = ""):
        self.path = f"/v1beta/models/{model}:{action}"
        self.query = query


def call_of(request: dict[str, Any], head: Head | None = None) -> Call:
    return GEMINI.read_call(json.dumps(request).encode(), "chat", head or Head())


@cache
def records() -> list[dict[str, Any]]:
    """Every recorded pair that was answered."""
    if not FOLDER:
        return []
    lines = (line for path in sorted(Path(FOLDER).glob("*.jsonl")) for line in path.open(encoding="utf-8") if "enerateContent" in line)
    return [record for record in map(json.loads, lines) if "enerateContent" in record["path"] and record["status"] == 200]


def plain_replies() -> list[dict[str, Any]]:
    return [record for record in records() if not record["stream"]]


def streams() -> list[dict[str, Any]]:
    return [record for record in records() if record["stream"]]


def gemini_target(model: str = "gemini-2.5-flash", quirks: Quirks | None = None) -> Target:
    """By the row of today, unless `quirks` are given."""
    known = next((known for pattern, known in ROWS["google"].quirks if fnmatchcase(model, pattern)), Quirks())
    return target(known if quirks is None else quirks, upstream_model=model, dialect="gemini")


def recorded_target(record: dict[str, Any]) -> Target:
    return gemini_target(record["path"].rpartition("/")[2].partition(":")[0])


def told(parts: Iterable[Any]) -> dict[str, Any]:
    """What every format can say of an assistant's parts."""
    parts = list(parts)
    return {
        "text": "".join(part.text for part in parts if type(part) in (Text, Refusal)),
        "reasoning": "".join(part.text for part in parts if type(part) is Reasoning),
        "calls": [(part.name, json.loads(part.arguments or "{}")) for part in parts if type(part) is ToolCall],
    }


def stream_through(
    data: bytes, reader: Any, writer: Any, sizes: Sequence[int] = (1 << 30,)
) -> tuple[bytes, Settlement, list[Any]]:
    """(what the client gets, what it cost, errors), as the relay does it."""
    out, settlement, errors = b"", Settlement(NOTHING, 0), []
    for events in [*(reader.feed(piece) for piece in slices(data, sizes)), reader.close()]:
        for event in events:
            if event.error is not None:
                errors.append(event.error)
            if event.usage is not None:
                settlement = Settlement(event.usage, 0, event.raw_usage)
        out += writer.write([event for event in events if event.error is None])
    return out + writer.finish(settlement), settlement, errors


def sent_chunks(out: bytes) -> list[dict[str, Any]]:
    """The chunks of an event stream, in the one framing that the official SDK reads."""
    blocks = out.split(b"\r\n\r\n")
    assert blocks.pop() == b""
    assert all(block.startswith(b"data: {") for block in blocks)
    return [json.loads(block[6:]) for block in blocks]


def fold(chunks: Iterable[dict[str, Any]]) -> bytes:
    """A stream as the plain reply it stands for."""
    folded: dict[int, dict[str, Any]] = {}
    last: dict[str, Any] = {}
    for chunk in chunks:
        last |= {key: value for key, value in chunk.items() if key != "candidates"}
        for candidate in chunk.get("candidates", ()):
            known = folded.setdefault(candidate.get("index", 0), {"content": {"parts": [], "role": "model"}})
            known["content"]["parts"] += (candidate.get("content") or {}).get("parts") or []
            known |= {key: value for key, value in candidate.items() if key != "content"}
    return json.dumps({"candidates": [folded[index] for index in sorted(folded)], **last}).encode()
