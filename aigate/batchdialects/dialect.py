"""The contract every batch dialect keeps: requests written, replies read. No I/O, no clock; the keeper sends, stores and decides when.

A part is so many lines of one model, sent to a provider together. Its lines carry our call ids, which come back with the results. Whoever
reads a reply raises ProviderError (kind "bad_reply") for what is none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

from aigate.core.target import Target
from aigate.errors import ProviderError
from aigate.jobdialects.dialect import HttpReply, HttpRequest

MAX_PART_BYTES = 16 << 20  # a part is written in memory
MAX_PART_LINES = 10_000


class Entry(msgspec.Struct, frozen=True):
    """One line as its provider gets it: the body is in the provider's format, with its own model name."""

    call_id: str
    body: bytes


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a part stands. `results`: what to fetch once it is over. `problem`: why it was refused as a whole; then nothing was done."""

    handle: str
    is_over: bool = False
    results: tuple[HttpRequest, ...] = ()
    problem: str = ""


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one line. `body`: the reply, or the error, as the plain endpoint would have given it; b"": none (`problem` says why)."""

    call_id: str
    status: int = 0
    body: bytes = b""
    problem: str = ""  # cancelled | expired | error


class BatchDialect(Protocol):
    name: str
    formats: frozenset[str]  # wire formats of lines that it takes
    can_look_up: bool  # a part can be found again by our id

    def upload(self, part_id: str, entries: Sequence[Entry], target: Target) -> HttpRequest | None:
        """What is sent before the part is made, where anything is."""

    def read_upload(self, reply: HttpReply) -> str:
        """A handle for `submit`."""

    def submit(self, part_id: str, entries: Sequence[Entry], target: Target, uploaded: str) -> HttpRequest: ...
    def look_up(self, part_id: str) -> HttpRequest:
        """Only where `can_look_up`."""

    def read_look_up(self, reply: HttpReply, part_id: str) -> State | None: ...
    def poll(self, handle: str) -> HttpRequest: ...
    def read_state(self, reply: HttpReply) -> State: ...
    def cancel(self, handle: str) -> HttpRequest: ...
    def read_outcome(self, line: bytes) -> Outcome: ...


def read_json(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise ProviderError("the provider's reply is no JSON object", kind="bad_reply")
    return found


def text_of(found: dict[str, Any], name: str) -> str:
    value = found.get(name)
    if not isinstance(value, str) or not value:
        raise ProviderError(f"the provider's reply has no {name}", kind="bad_reply")
    return value
