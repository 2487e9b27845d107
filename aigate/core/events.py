"""Event: what a stream reader says happened, whatever the wire format. The spine, relay, price and settle see only these. Pure.

A *plain run* is any number of consecutive whole chunks that need no edit beyond the stream's constant head: it travels as its
bytes (`raw`), undecoded. Everything else (usage, finish with usage, error, done, a chunk that quirks must change) is one Event each.
"""

from __future__ import annotations

import msgspec

from aigate.core.neutral import Chunk
from aigate.core.usage import Usage
from aigate.errors import ProviderError


class Event(msgspec.Struct):
    """`raw` SSE bytes as they came (whole events, blank lines included; b"" when only decoded), `count` data events in it,
    `chunk` the decoded form (None for a plain run), `usage` neutral usage so far and `raw_usage` the provider's own object
    (the last one wins), `error` an in-band failure, `is_done` the format's own terminal event, `is_final` a finish reason was seen."""

    raw: bytes = b""
    count: int = 0
    chunk: Chunk | None = None
    usage: Usage | None = None
    raw_usage: bytes = b""
    error: ProviderError | None = None
    is_done: bool = False
    is_final: bool = False
