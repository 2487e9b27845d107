"""Event: what a stream reader says happened, whatever the wire format. The spine, relay, price and settle see only these. Pure.

A *plain run* is any number of consecutive chunks that are equal but for one string: `chunk` is their template, in which that string is
HOLE, and `texts` are the strings, as the insides of JSON strings. It travels without being decoded, and a writer of any dialect encodes
the template once. Every other chunk is an Event of its own.
"""

from __future__ import annotations

import msgspec

from aigate.core.neutral import Chunk
from aigate.core.usage import Usage
from aigate.errors import ProviderError

HOLE = "<hole>"  # what a template's one varying string is replaced by; "<" keeps it out of model names


class Event(msgspec.Struct):
    """`count` data events it stands for, `chunk` and `texts` as above (`texts` empty: an ordinary chunk), `raw` an event that could not
    be decoded, as it came, `usage` neutral usage so far and `raw_usage` the provider's own object (the last one wins), `error` an
    in-band failure, `is_done` the format's own terminal event, `is_final` a finish reason was seen."""

    raw: bytes = b""
    count: int = 0
    chunk: Chunk | None = None
    texts: list[bytes] | None = None
    usage: Usage | None = None
    raw_usage: bytes = b""
    service_tier: str = ""  # with `usage`, where the provider says it
    error: ProviderError | None = None
    is_done: bool = False
    is_final: bool = False
