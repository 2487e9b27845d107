"""Which behaviour a model name asks for: `part+part+…`, each part a row of PARTS. Pure.

A name without any known part behaves as `echo`, so any name can be used; a name of several parts must know them all, so that
a typing error in a test is a 404 and not a silent success.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import msgspec

MAX_TOKENS = 1_000_000
MAX_TOOL_CALLS = 128
CUT_BEFORE_HEAD = -1
NEVER = 1 << 60  # "after this many tokens", when it never happens


class Behaviour(msgspec.Struct, frozen=True, kw_only=True):
    """How one request is answered. `*_after` counts tokens sent; a plain reply has one place "after some": half its body."""

    # what is said
    length: int = 0  # tokens of content; 0 = as many as the echo takes
    reasoning: int = 0  # tokens of reasoning before it
    tool_calls: int = 0
    cached: bool = False  # half of the prompt counts as cached
    bills_all: bool = False  # a stream the client left is billed whole
    # when
    first_delay_s: float = 0.0
    chunk_delay_s: float = 0.0
    hangs: bool = False
    stall_after: int = NEVER
    # refusals
    status: int = 200
    failures: int = NEVER  # so many failures for one prompt, then it answers
    retry_after_s: int | None = None
    is_html: bool = False
    # broken bodies
    cut_after: int = NEVER
    reset_after: int = NEVER
    error_after: int = NEVER
    is_garbage: bool = False
    # odd streams
    usage: str = "asked"  # asked | none | first | every | finish | groq | choices
    sends_done: bool = True
    newline: bytes = b"\n"
    # odd bytes
    dribbles: bool = False
    is_gzip: bool = False
    pad_bytes: int = 0
    sends_103: bool = False
    sends_extra: bool = False
    is_close_delimited: bool = False
    is_wrong_type: bool = False

    @property
    def is_instant(self) -> bool:
        """A plain reply needs no waiting and no odd writes: it can go out at once, in one."""
        return not (
            self.first_delay_s
            or self.hangs
            or self.dribbles
            or self.pad_bytes
            or self.sends_103
            or self.cut_after != NEVER
            or self.reset_after != NEVER
            or self.stall_after != NEVER
        )


class UnknownBehaviour(ValueError):
    """A name of several parts has one nobody knows."""


class Part(msgspec.Struct, frozen=True):
    """One row: what it looks like, what it does, and how the groups of its pattern become fields of Behaviour."""

    example: str
    says: str
    pattern: str
    fields: Callable[..., dict[str, object]]


def always(**fields: object) -> Callable[[], dict[str, object]]:
    return lambda: fields


def _number(field: str, default: int, most: int = MAX_TOKENS) -> Callable[[str | None], dict[str, object]]:
    return lambda digits: {field: min(int(digits), most) if digits else default}


def _seconds(number: str | None, unit: str | None) -> float:
    return 0.05 if number is None else int(number) / (1000 if unit == "ms" else 1)


_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20}
_COUNT = r"(?:-(\d{1,7}))?"
_DELAY = r"(?:-(\d{1,6})(ms|s))?"
_STATUS = r"([45]\d\d)"

PARTS: tuple[Part, ...] = (
    Part("echo", "says what it is and repeats the last user message", "echo", always()),
    Part("slow-50ms", "waits before the first token and between chunks", "slow" + _DELAY,
          lambda number, unit: {"first_delay_s": _seconds(number, unit), "chunk_delay_s": _seconds(number, unit)}),
    Part("ttft-200ms", "waits before the first token only", "ttft" + _DELAY, lambda number, unit: {"first_delay_s": _seconds(number, unit)}),
    Part("long-1000", "answers in exactly so many tokens", "long" + _COUNT, _number("length", 200)),
    Part("tools", "calls the first tool given, answers from its result; tools-2 calls the first two at once (one twice)", "tools" + _COUNT, _number("tool_calls", 1, most=MAX_TOOL_CALLS)),
    Part("reasoning", "reasons before it answers", "reasoning" + _COUNT, _number("reasoning", 24)),
    Part("embed", "a name for embeddings (any name embeds)", "embed", always()),
    Part("cached", "half of the prompt counts as cached", "cached", always(cached=True)),
    Part("bills-all", "bills a whole stream even when its reader leaves", "bills-all", always(bills_all=True)),
    Part("429", "fails with this status (any 4xx, 5xx)", _STATUS, lambda status: {"status": int(status)}),
    Part("429-then-ok-2", "fails so many times for one prompt, then answers", _STATUS + "-then-ok" + _COUNT,
          lambda status, count: {"status": int(status), "failures": int(count or 1)}),
    Part("retry-after-3", "names these seconds in Retry-After (429 and 503 say 1)", r"retry-after-(\d{1,6})",
          lambda seconds: {"retry_after_s": int(seconds)}),
    Part("html-502", "fails with a web page", "html-" + _STATUS, lambda status: {"status": int(status), "is_html": True}),
    Part("garbage", "a reply, or one chunk, that is not JSON", "garbage", always(is_garbage=True)),
    Part("wrong-type", "says text/plain", "wrong-type", always(is_wrong_type=True)),
    Part("cut-5", "ends the connection after so many tokens, the reply unfinished", "cut" + _COUNT, _number("cut_after", 3)),
    Part("cut-head", "ends the connection instead of answering", "cut-head", always(cut_after=CUT_BEFORE_HEAD)),
    Part("reset-5", "resets the connection (RST) after so many tokens", "reset" + _COUNT, _number("reset_after", 3)),
    Part("reset-head", "resets the connection instead of answering", "reset-head", always(reset_after=CUT_BEFORE_HEAD)),
    Part("stall-5", "falls silent after so many tokens", "stall" + _COUNT, _number("stall_after", 3)),
    Part("hang", "never answers", "hang", always(hangs=True)),
    Part("error-midstream-5", "an error event after so many tokens, and the end", "error-midstream" + _COUNT, _number("error_after", 3)),
    Part("no-usage", "never reports usage", "no-usage", always(usage="none")),
    Part("usage-finish", "usage (asked or not) on the chunk with the finish reason; also usage-first, usage-every, usage-groq "
          "(x_groq.usage), usage-choices (choices[0].usage and again in a last chunk)",
          "usage-(first|every|finish|groq|choices)", lambda place: {"usage": place}),
    Part("no-done", "no [DONE] at the end", "no-done", always(sends_done=False)),
    Part("crlf", "CR LF between lines of a stream", "crlf", always(newline=b"\r\n")),
    Part("one-byte", "one byte a write", "one-byte", always(dribbles=True)),
    Part("gzip", "compresses, asked or not", "gzip", always(is_gzip=True)),
    Part("big-100MB", "a reply, or one chunk, of this size (also KB, B)", r"big-(\d{1,6})(B|KB|MB)",
          lambda number, unit: {"pad_bytes": int(number) * _UNITS[unit]}),
    Part("early-103", "103 Early Hints first", "early-103", always(sends_103=True)),
    Part("extra-bytes", "bytes after the end of the reply", "extra-bytes", always(sends_extra=True)),
    Part("close-delimited", "no length: the end of the connection ends the reply", "close-delimited", always(is_close_delimited=True)),
)


@lru_cache(maxsize=1024)
def read_behaviour(model: str) -> Behaviour:
    """Raises UnknownBehaviour naming the part, for a name of several parts."""
    fields: dict[str, object] = {}
    parts = model.split("+")
    for part in parts:
        found = fields_of(part, PARTS)
        if found is not None:
            fields.update(found)
        elif len(parts) > 1:
            raise UnknownBehaviour(f"The simulated provider knows no behaviour {part!r} (of the model name {model!r}).")
    return Behaviour(**fields)


def fields_of(part: str, table: Sequence[Part]) -> dict[str, object] | None:
    for row in table:
        match = re.fullmatch(row.pattern, part)
        if match:
            return row.fields(*match.groups())
    return None
