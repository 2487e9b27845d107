"""Losses that are the same whatever is crossed into: parameters only the caller's own format has. Pure."""

from __future__ import annotations

from msgspec import Raw

from aigate.core.call import Warning
from aigate.core.neutral import Request

# They steer what is kept, cached or padded, or which detail comes along; the answer is the same without.
_QUIET = frozenset({"store", "include", "stream", "stream_options", "truncation", "cache_control", "labels", "reasoning", "text", "output_config"})
# Surfaces whose whole work an ordinary call does, where the provider has no such endpoint.
_EMULATED = {"openai-compaction": Warning("emulated", "compact", "the model is asked for a summary in words")}
_SAYS_NOTHING = frozenset({b"null", b"false", b"{}", b"[]", b'""'})


def lost_fields(request: Request, dialect: str) -> list[Warning]:
    """What of the bag of a request is said in its own format and cannot be in `dialect`."""
    if request.dialect == dialect:
        return []
    return [warning for name, warning in _EMULATED.items() if name == request.dialect] + [
        Warning("dropped", name, "only the format of the request has it")
        for name, value in request.bags.get(request.dialect, {}).items()
        if name not in _QUIET and value is not None and (not isinstance(value, Raw) or bytes(value) not in _SAYS_NOTHING)
    ]
