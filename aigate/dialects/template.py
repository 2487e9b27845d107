"""The fast lane for streams: a template learnt from one chunk recognises its likes without decoding them.

A chunk that differs from the learnt one only inside one JSON string is `head + text + tail`, byte for byte. Learning proves the place:
the string is replaced by HOLE and the result is decoded again. Matching proves the rest: a text without a raw quote, a line end or a
trailing backslash cannot end its string early, so nothing but that string can differ. Everything else is decoded by the ordinary reader.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

import msgspec

from aigate.core.events import HOLE
from aigate.core.neutral import Chunk, Delta

_HOLE = HOLE.encode()
_encode = msgspec.json.encode


@cache
def padding(keys: frozenset[str]) -> re.Pattern[bytes]:
    """Matches the end of an event whose last key is one of `keys` with a string: that `}` before a blank line is the chunk's own."""
    names = b"|".join(re.escape(key.encode()) for key in sorted(keys))
    return re.compile(rb',"(?:%b)":"[^"\\]*"\}\n\n' % names)


class Template:
    """`match_run` takes all events up to the first other one at once; `match_first` takes one, where a run holds what it refuses;
    `match_one` is the quick way where a read is one event, as with paced streams."""

    __slots__ = ("chunk", "head", "tail", "_joint")

    def __init__(self, head: bytes, tail: bytes, chunk: Chunk):
        self.chunk = chunk
        self.head = head
        self.tail = tail
        self._joint = tail + head

    def match_one(self, data: bytes) -> bytes | None:
        """The text, where `data` as it came is one event of this template and nothing else. May refuse one that is."""
        head, tail = self.head, self.tail
        stop = len(data) - len(tail)
        if stop < len(head) or not data.startswith(head) or not data.endswith(tail):
            return None
        text = data[len(head) : stop]
        return None if b'"' in text or b"\n" in text or b"\r" in text or text.endswith(b"\\") else text

    def match_run(self, run: bytes, at: int) -> tuple[list[bytes], bytes, int] | None:
        """The texts of the events of this template that follow one another from `at` on, the same joined by LF, and where these
        events end. None where the first is another, or where their texts must be looked at one by one."""
        head, tail, joint = self.head, self.tail, self._joint
        if not run.startswith(head, at):
            return None
        texts: list[bytes] = []
        start = quote = at + len(head)
        # From quote to quote, as tail and joint begin with one: CPython looks for one byte many times as fast as for a long text.
        while (quote := run.find(b'"', quote)) >= 0:
            if run.startswith(joint, quote):
                texts.append(run[start:quote])
                start = quote = quote + len(joint)
            elif run.startswith(tail, quote):
                texts.append(run[start:quote])
                start = quote + len(tail) + len(head)
                break
            else:
                quote += 1
        if not texts:
            return None
        joined = texts[0] if len(texts) == 1 else b"\n".join(texts)
        if joined.count(b"\n") != len(texts) - 1 or not _are_insides(joined):
            return None
        return texts, joined, start - len(head)

    def match_first(self, run: bytes, at: int) -> tuple[list[bytes], bytes, int] | None:
        """As `match_run`, of the one event that starts at `at`."""
        if not run.startswith(self.head, at):
            return None
        start = at + len(self.head)
        end = run.find(self.tail, start)
        text = run[start:end]
        if end < 0 or b"\n" in text or not _are_insides(text):
            return None
        return [text], text, end + len(self.tail)


def _are_insides(texts: bytes) -> bool:
    """Whether texts, joined by LF, can each stand inside a JSON string. May refuse odd ones; never takes a wrong one."""
    if b"\\" not in texts:
        return b'"' not in texts
    if texts.endswith(b"\\") or b"\\\n" in texts:
        return False
    if b'"' not in texts:
        return True
    return b"\\\\" not in texts and texts.count(b'"') == texts.count(b'\\"')


def _varying(delta: Delta) -> str | None:
    """The one string of a delta that can vary from chunk to chunk; None where there is no such or more than one."""
    if delta.finish_reason is not None or delta.logprobs is not None:
        return None
    strings = [text for text in (delta.text, delta.reasoning, delta.refusal) if text]
    strings += [call.arguments for call in delta.tool_calls if call.arguments]
    return strings[0] if len(strings) == 1 else None


def _begins_a_call(delta: Delta) -> bool:
    return any(call.id is not None or call.name is not None for call in delta.tool_calls)


def learn(block: bytes, chunk: Chunk, read: Callable[[bytes], Chunk | None]) -> Template | None:
    """The template of `block`, whose decoded form is `chunk`, or None where its string is not found for certain.

    `read` decodes a block in the reader's present state, and leaves that state as it is for a block just read.
    """
    text = _varying(chunk.deltas[0]) if len(chunk.deltas) == 1 else None
    if text is None or _HOLE in block:
        return None
    token = _encode(text)
    at = block.find(token)
    if at < 0 or block.find(token, at + 1) >= 0:
        return None
    head, tail = block[: at + 1], block[at + len(token) - 1 :]
    found = read(head + _HOLE + tail)
    if found is None or len(found.deltas) != 1 or _varying(found.deltas[0]) != HOLE or _begins_a_call(found.deltas[0]):
        return None
    return Template(head, tail, found)
