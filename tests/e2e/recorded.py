"""Recorded pairs of the OpenAI-compatible endpoints, and changes of their JSON that mean nothing. Read from AIGATE_RECORDINGS."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from tests.dialects.recorded import FOLDER

_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_PIECE = re.compile(r"\\u....|\\.|[A-Za-z]")


class Record(NamedTuple):
    id: str
    provider: str
    endpoint: str  # path after /v1
    request: dict[str, Any]
    status: int
    content_type: str
    is_stream: bool
    response: str

    @property
    def slug(self) -> str:
        return f"{self.provider}/{self.upstream_model}"

    @property
    def upstream_model(self) -> str:
        return self.request.get("model", "deployment")

    @property
    def events(self) -> list[Any]:
        """The decoded data events of a stream."""
        lines = self.response.replace("\r\n", "\n").split("\n")
        payloads = [line.removeprefix("data:").strip() for line in lines if line.startswith("data:")]
        return [json.loads(payload) for payload in payloads if payload and payload != "[DONE]"]


@cache
def records() -> list[Record]:
    if not FOLDER:
        return []
    found = []
    for path in sorted(Path(FOLDER).glob("*.jsonl")):
        for line in path.open(encoding="utf-8"):
            pair = json.loads(line)
            endpoint = re.search(r"/(?:chat/completions|embeddings)$", pair["path"])
            if endpoint and pair["request"].keys() & {"messages", "input"}:
                request, reply = pair["request"], (pair["status"], pair["content_type"], pair["stream"], pair["response"])
                found.append(Record(pair["id"], pair["provider"], endpoint[0], request, *reply))
    return found


Spelling = Callable[[Any], str]  # a JSON value → one of its texts


def as_it_is(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def shuffled(value: Any) -> str:
    """Keys in another order, the same for the same keys (as one provider would send them), and white space."""
    return json.dumps(_shuffle(value), ensure_ascii=False, separators=(" ,", "\t:  "))


def escaped(value: Any) -> str:
    """Some letters of strings, keys included, as escapes; whatever is not ASCII too."""
    return _STRING.sub(lambda string: _PIECE.sub(_escape, string[0]), json.dumps(value))


def _shuffle(value: Any) -> Any:
    if isinstance(value, dict):
        keys = sorted(value)
        random.Random(",".join(keys)).shuffle(keys)
        return {key: _shuffle(value[key]) for key in keys}
    return [_shuffle(entry) for entry in value] if isinstance(value, list) else value


def _escape(found: re.Match[str]) -> str:
    """Every fourth letter or so, told by where it stands, so that a text is always escaped in the same way."""
    char = found[0]
    return f"\\u{ord(char):04x}" if len(char) == 1 and (found.start() * 7 + ord(char)) % 11 < 3 else char


def respell(record: Record, spell: Spelling) -> bytes:
    """The recorded response in another spelling; a body that is no JSON stays as it is."""
    if spell is as_it_is:
        return record.response.encode()
    if record.is_stream and record.status == 200:
        return _DATA.sub(lambda line: "data: " + spell(json.loads(line[1])), record.response).encode()
    try:
        return spell(json.loads(record.response)).encode()
    except ValueError:
        return record.response.encode()


_DATA = re.compile(r"^data: ?(\{.*\})\r?$", re.MULTILINE)
