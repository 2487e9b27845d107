"""Which media of a request a target cannot fetch for itself, so that the gateway has to. Pure; worker/fetch.py does it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from aigate.core.call import Call
from aigate.core.neutral import Media, Part, Request, ToolResult
from aigate.core.target import Target

# Wire format → kinds that it has no place for by URL.
_DATA_ONLY = {"openai-chat": frozenset({"document", "audio"})}
_NONE: frozenset[str] = frozenset()


class Wanted(NamedTuple):
    path: str  # messages[3].content[1]
    media: Media


def media_to_fetch(request: Request, target: Target) -> list[Wanted]:
    """The media that `target` takes as data only and `request` gives by URL."""
    kinds = _DATA_ONLY.get(target.dialect, _NONE) | target.quirks.needs_data
    if not kinds:
        return []
    return [
        wanted
        for place, message in enumerate(request.messages)
        for wanted in _by_url(message.parts, f"messages[{place}].content")
        if wanted.media.kind in kinds
    ]


def _by_url(parts: Sequence[Part], path: str) -> Iterator[Wanted]:
    for place, part in enumerate(parts):
        if type(part) is Media and part.url is not None:
            yield Wanted(f"{path}[{place}]", part)
        elif type(part) is ToolResult:
            yield from _by_url(part.parts, f"{path}[{place}].content")


def may_name_urls(call: Call) -> bool:
    """A look at the bytes, before anything is parsed: whether a part may be given by URL. Never false where one is."""
    content = bytes(call.pairs.get("messages") or call.pairs.get("input") or call.pairs.get("contents") or b"")
    return b"http" in content.lower() or b"\\u00" in content
