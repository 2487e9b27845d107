"""Two answers side by side: how alike they are, from 0 to 1, and where they differ. Pure.

The score is the similarity of their words (difflib's ratio over words and punctuation: 2 × what is in common / both lengths);
where both call tools, half of it is the share of calls that agree in name and arguments; of embeddings it is the mean cosine.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec

from aigate.core.scoring import cosine

MAX_WORDS = 4_000  # of each text, as they are compared: the time grows with their product
MAX_DIFF_LINES = 400
_WORD = re.compile(r"\w+|[^\w\s]")


class Output(msgspec.Struct, frozen=True):
    """What a model answered, in no format's words. `calls`: (name, arguments as JSON text)."""

    text: str = ""
    calls: tuple[tuple[str, str], ...] = ()
    vectors: tuple[tuple[float, ...], ...] = ()

    def shown(self) -> str:
        """One text of all of it."""
        if self.vectors:
            return f"{len(self.vectors)} embeddings of {len(self.vectors[0])} numbers"
        calls = "\n".join(f"{name}({arguments})" for name, arguments in self.calls)
        return "\n".join(part for part in (self.text, calls) if part)


def similarity(a: Output, b: Output) -> float:
    if a.vectors or b.vectors:
        likenesses = [cosine(x, y) for x, y in zip(a.vectors, b.vectors, strict=False)]
        known = [each for each in likenesses if each is not None]
        return sum(known) / max(len(a.vectors), len(b.vectors))
    texts = _ratio(_WORD.findall(a.text)[:MAX_WORDS], _WORD.findall(b.text)[:MAX_WORDS])
    if not a.calls and not b.calls:
        return texts
    calls = _agreeing(a.calls, b.calls) / max(len(a.calls), len(b.calls))
    return calls if not a.text and not b.text else (texts + calls) / 2


def _ratio(a: Sequence[str], b: Sequence[str]) -> float:
    return difflib.SequenceMatcher(None, a, b, autojunk=False).ratio()


def _agreeing(a: Sequence[tuple[str, str]], b: Sequence[tuple[str, str]]) -> int:
    left = [(name, _meaning(arguments)) for name, arguments in b]
    agreeing = 0
    for name, arguments in a:
        call = (name, _meaning(arguments))
        if call in left:
            left.remove(call)
            agreeing += 1
    return agreeing


def _meaning(arguments: str) -> Any:
    try:
        return json.loads(arguments)
    except ValueError:
        return arguments


def difference(a: Output, b: Output) -> dict[str, Any]:
    """`text`: a unified diff by lines; `tool_calls`: what each called; `json`: whether each text is JSON, and whether they are equal as such."""
    lines = list(difflib.unified_diff(a.text.splitlines(), b.text.splitlines(), "source", "target", lineterm="", n=2))
    found: dict[str, Any] = {"is_equal": a == b, "text": "\n".join(lines[:MAX_DIFF_LINES])}
    if len(lines) > MAX_DIFF_LINES:
        found["text_is_cut"] = True
    if a.calls or b.calls:
        found["tool_calls"] = {
            "source": [{"name": name, "arguments": arguments} for name, arguments in a.calls],
            "target": [{"name": name, "arguments": arguments} for name, arguments in b.calls],
            "agreeing": _agreeing(a.calls, b.calls),
        }
    sides = [_is_json(side.text) for side in (a, b)]
    if any(sides):
        is_equal = all(sides) and json.loads(a.text) == json.loads(b.text)
        found["json"] = {"source_is_valid": sides[0], "target_is_valid": sides[1], "is_equal": is_equal}
    return found


def _is_json(text: str) -> bool:
    """An object or a list: a lone word or number is no JSON anybody meant."""
    try:
        return isinstance(json.loads(text), dict | list)
    except ValueError:
        return False
