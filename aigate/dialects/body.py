"""JSON bodies as callers send them: top-level pairs, and the checks that every surface makes of them. Pure.

Values stay raw; a surface decodes the few fields it acts on with `typed`. All failures are ClientErrors that say what came and what is
allowed, never more of the body than a few characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw

from aigate.core.call import Call
from aigate.core.neutral import Tool
from aigate.errors import ClientError

MAX_DEPTH = 100
MAX_TIME = 253_402_300_799  # the end of the year 9999
_SHOWN_CHARS = 60

decode_pairs = msgspec.json.Decoder(dict[str, Raw]).decode
_fallbacks = msgspec.json.Decoder(bool | list[str] | None).decode
_POSITION = re.compile(r"\(byte (\d+)\)")
_LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])")
_STRING = re.compile(rb'"[^"]*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKET = bytes(set(range(256)) - set(b'[]{}"'))


def read_pairs(body: bytes, acted_on: frozenset[str]) -> dict[str, Raw]:
    """The body's top-level pairs; of a key given twice the last. `acted_on`: keys the surface reads, of which no other case is taken."""
    try:
        pairs = decode_pairs(body)
        if not body.isascii():
            str(body, "utf-8")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ClientError(_explain(body, error)) from None
    # The quickest count of few brackets in a long text is a split.
    openers = len(body.split(b"[", MAX_DEPTH + 1)) + len(body.split(b"{", MAX_DEPTH + 1)) - 2
    if openers > MAX_DEPTH and _depth_exceeds(body, MAX_DEPTH):
        raise ClientError(f"the body is nested more than {MAX_DEPTH} levels deep")
    _check_case(acted_on, *pairs)
    return pairs


def open_object(body: bytes, content: str) -> dict[str, Raw]:
    """The top-level pairs of a provider's JSON. Raw ones must be UTF-8 too, which decoding the pairs does not look at; but not `content`: what
    only that is wrong in goes to its own clients as it came, and to others as an error, paid for by the usage beside it."""
    pairs = decode_pairs(body)
    if not body.isascii():
        for key, raw in pairs.items():
            if key != content:
                str(raw, "utf-8")
    return pairs


def read_time(value: object) -> int:
    """A provider's time in whole seconds; 0 for what is none, or beyond what a calendar can say."""
    return int(value) if isinstance(value, int | float) and 0 <= value <= MAX_TIME else 0


@lru_cache(1024)  # calls of one application have the same keys
def _check_case(acted_on: frozenset[str], *keys: str) -> None:
    for key in keys:
        if key not in acted_on and key.lower() in acted_on:
            raise ClientError(f"{key[:_SHOWN_CHARS]!r} is not {key.lower()!r}: keys are case-sensitive; send {key.lower()!r}", param=key)


def value_of(pairs: Mapping[str, Raw], key: str) -> Any:
    """Decoded, as it is known to be good; None when it is absent or null."""
    raw = pairs.get(key)
    return None if raw is None else msgspec.json.decode(raw)


def typed(pairs: Mapping[str, Raw], key: str, decode: Callable[[Raw], object], allowed: str) -> object:
    """The value of `key` decoded, None when it is absent or null; ClientError where it is not `allowed`."""
    raw = pairs.get(key)
    if raw is None:
        return None
    try:
        return decode(raw)
    except (msgspec.DecodeError, RecursionError):
        raise wrong(key, allowed, raw) from None


def read_fallbacks(call: Call) -> None:
    """The gateway's own field, the same in every format."""
    if "fallbacks" in call.pairs:
        fallbacks = typed(call.pairs, "fallbacks", _fallbacks, "true, false or an array of model names")
        call.allows_fallback = fallbacks is not False
        call.fallbacks = tuple(fallbacks) if isinstance(fallbacks, list) else ()


def wrong(key: str, allowed: str, raw: Raw) -> ClientError:
    text = bytes(memoryview(raw)[: 4 * _SHOWN_CHARS]).decode("utf-8", "replace")
    shown = text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
    return ClientError(f"{key} must be {allowed}, not {shown}", param=key)


_WORDS = {str: "a string", dict: "an object", list: "an array"}


def check_fields(fields: Mapping[str, Any], needed: Mapping[str, type], path: str) -> None:
    """What must be there of an object inside a request, and of which type."""
    for key, kind in needed.items():
        if not isinstance(fields.get(key), kind):
            raise ClientError(f"{path}.{key} must be {_WORDS[kind]}", param=f"{path}.{key}")


def read_tools(raw: Raw, read: Callable[[dict[str, Any], str], Tool]) -> list[Tool] | None:
    """`read`: one tool, of its object and path. None: null was sent."""
    value = msgspec.json.decode(raw)
    if value is None:
        return None
    if type(value) is not list or any(type(tool) is not dict for tool in value):
        raise wrong("tools", "an array of tools", raw)
    return [read(tool, f"tools[{place}]") for place, tool in enumerate(value)]


def is_array(raw: Raw) -> bool:
    return memoryview(raw)[0] == 0x5B


def _explain(body: bytes, error: Exception) -> str:
    """True words for a body that is no JSON object."""
    if not body.strip():
        return "the request body is empty: send a JSON object"
    if body.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return "the request body begins with a byte order mark: send UTF-8 without one"
    if isinstance(error, UnicodeDecodeError):
        return f"the request body is not UTF-8 (byte {error.start})"
    if isinstance(error, RecursionError):
        return f"the body is nested more than {MAX_DEPTH} levels deep"
    text = str(error)
    if isinstance(error, msgspec.ValidationError):
        return "the request body must be a JSON object, not " + text.rpartition("got ")[2].strip("`")
    position = _POSITION.search(text)
    if (position is None or "surrogate" in text or "escape" in text) and _LONE_SURROGATE.search(body):
        return "the request body is not JSON: half of a surrogate pair stands alone in a string"
    if position is None:
        return f"the request body is not JSON: it ends early, after {len(body)} bytes"
    at = int(position[1])
    if body.startswith((b"NaN", b"Infinity", b"-Infinity"), at) or body.startswith(b"-I", max(0, at - 1)):
        return f"the request body is not JSON: NaN and Infinity are not JSON numbers (byte {at})"
    return f"the request body is not JSON: {text.removeprefix('JSON is malformed: ')}"


def _depth_exceeds(body: bytes, limit: int) -> bool:
    """Brackets outside strings are cancelled level by level: what is left after `limit` rounds is deeper."""
    marks = body.replace(b"\\\\", b"").replace(b'\\"', b"").translate(_BRACKETS, _NO_BRACKET)
    marks = _STRING.sub(b"", marks)
    for _ in range(limit):
        marks = marks.replace(b"[]", b"")
        if not marks:
            return False
    return bool(marks)
