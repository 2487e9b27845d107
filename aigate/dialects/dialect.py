"""The contract every wire format keeps: one pure module (or one per direction), both directions, no I/O, no clock, no random.

Bytes come in as they arrived and go out as they are sent. Errors in the caller's input are ClientError, unusable provider replies
ProviderError (kind "bad_reply"). Readers and writers are made per attempt and hold stream state only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
from msgspec import Raw

from aigate.core.call import Call, Warning
from aigate.core.edits import Edit
from aigate.core.events import Event
from aigate.core.neutral import Reply, Request
from aigate.core.target import Target
from aigate.core.usage import REPORTED, Usage
from aigate.errors import GateError, ProviderError


class Head(Protocol):
    """What a surface may read of a request besides its body (worker/exchange.Exchange). Header names are lower-case."""

    path: str
    query: str
    headers: dict[bytes, bytes]


class Settlement(msgspec.Struct):
    """What a finished attempt cost, as the client is told: written into the reply's usage object."""

    usage: Usage
    cost_nanousd: int
    raw_usage: bytes = b""  # provider's own object, kept where the dialects agree
    source: str = REPORTED
    is_usage_whole: bool = False  # `raw_usage` lacks nothing but the cost


class OpenedReply(msgspec.Struct):
    """A plain reply of a provider, decoded as far as metering and splicing need, once. `pairs` None: only a lenient reader can read
    the body (NaN, half a surrogate pair); it goes to the client as it came."""

    body: bytes
    pairs: dict[str, Raw] | None
    usage: Usage | None = None
    raw_usage: bytes = b""
    is_usage_whole: bool = False  # `raw_usage` lacks nothing that a client is told but the cost
    usage_source: str = REPORTED
    service_tier: str = ""  # as the provider says it served; it may set the price
    echo: Mapping[str, Raw] = {}  # the caller's own pairs, for formats whose replies repeat the request


class StreamReader(Protocol):
    """Provider bytes → events, the same however the bytes are sliced."""

    def feed(self, data: bytes) -> list[Event]: ...

    def close(self) -> list[Event]:
        """The body ended. What is left over becomes events, or an error event when the stream was cut."""

    def text_so_far(self) -> tuple[str, int]:
        """(text generated so far where it was kept, bytes of text beyond what was kept): for counting an unreported usage."""


class StreamWriter(Protocol):
    """Events → client bytes. Adds the one usage chunk and the terminal event; never two of either."""

    def write(self, events: Sequence[Event]) -> bytes: ...

    def finish(self, settlement: Settlement) -> bytes: ...

    def fail(self, error: GateError, request_id: str) -> bytes: ...

    def keep_alive(self) -> bytes: ...


class TokenEndpoint(Protocol):
    """How a format asks for the tokens of a prompt without a model call, where it can."""

    def path(self, url_path: str) -> str:
        """Of the endpoint that counts, from the path that generates."""

    def write(self, request: bytes, target: Target) -> bytes:
        """The body for counting, from the one for generating."""

    def read(self, body: bytes) -> int: ...


class Dialect(Protocol):
    name: str
    id_header: bytes  # where this format's clients look for the request id, besides x-request-id; b"" where nowhere
    params: Mapping[str, str]  # key on this wire → neutral parameter name (core/params.py)

    # client side
    def read_call(self, body: bytes, endpoint: str, head: Head) -> Call: ...
    def read_request(self, call: Call) -> Request: ...
    def write_reply(self, reply: Reply, asked: str, settlement: Settlement) -> bytes: ...
    def splice_reply(self, opened: OpenedReply, target: Target, asked: str, settlement: Settlement) -> bytes | None:
        """Same-dialect lane: the provider's reply with model and usage set and quirks mended; None where it must go by the neutral form."""

    def stream_writer(self, call: Call, asked: str, reply_id: str) -> StreamWriter: ...
    def write_error(self, error: GateError, request_id: str) -> bytes: ...

    # provider side
    def lost(self, request: Request, target: Target) -> list[Warning]:
        """What of `request` this dialect cannot say to `target`, as paths of the neutral form (messages[3].content[1])."""

    def write_request(self, request: Request, target: Target) -> bytes: ...
    def edit_pairs(self, call: Call, edits: Sequence[Edit], target: Target) -> bytes:
        """Same-dialect lane: the caller's pairs with the planned edits applied, re-encoded."""

    def read_reply(self, body: bytes, target: Target) -> Reply: ...
    def open_reply(self, body: bytes, target: Target) -> OpenedReply:
        """Raises ProviderError: the error that came under status 200, or bad_reply for what nobody can read as a reply."""

    def stream_reader(self, target: Target, is_spliced: bool) -> StreamReader: ...
    def read_error(self, status: int, headers: Mapping[bytes, bytes], body: bytes) -> ProviderError: ...


