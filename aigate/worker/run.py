"""Run: what the spine knows of one call while it runs, and the facts it leaves behind. No I/O, no decisions."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from aigate.core.call import Call, Principal, Warning
from aigate.core.neutral import Reply
from aigate.core.rate import Want
from aigate.core.switch import read_switch
from aigate.core.tag import read_tag
from aigate.core.target import Target
from aigate.core.usage import Usage
from aigate.core.warnings import warning_header
from aigate.dialects.dialect import Dialect, StreamWriter
from aigate.journal.records import CallEnd
from aigate.worker.fetch import Known
from aigate.worker.listener import Exchange

CLIENT_CLOSED = 499  # what the ledger says of a call whose client left; never sent

_CLIENT_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")


class Part(NamedTuple):
    """The answer to one choice of several, before all are put together."""

    reply: Reply | None  # None where it was streamed
    usage: Usage
    source: str
    cost_nanousd: int


class Run:
    """One call: its exchange, who calls, what was asked, what has been tried."""

    __slots__ = (
        "exchange", "surface", "endpoint", "principal", "call", "tag", "client_request_id", "is_strict", "attempts",
        "cost_nanousd", "warnings", "target", "asked", "first_byte_ms", "has_ended",
        "permits", "tokens", "rate_fields", "on_sent", "keep", "fetched", "parent", "part", "writer", "archive_days",
    )  # fmt: skip

    def __init__(self, exchange: Exchange, surface: Dialect, endpoint: str):
        self.exchange = exchange
        self.surface = surface
        self.endpoint = endpoint
        # These come in this order, as far as the call gets; only what runs after a failure (`end_record`, the spine's `_fail`)
        # may find them missing, and looks.
        self.principal: Principal = None  # type: ignore[assignment]
        self.call: Call = None  # type: ignore[assignment]
        self.target: Target = None  # type: ignore[assignment]
        self.tag: str | None = None
        self.client_request_id: bytes | None = None
        self.is_strict = self.has_ended = False  # `has_ended`: its end is in the journal
        self.attempts = self.cost_nanousd = 0
        self.warnings: tuple[Warning, ...] = ()
        self.asked = ""
        self.first_byte_ms = -1
        self.permits: tuple[Want, ...] = ()  # taken under its rate limits
        self.tokens = 0  # used by all attempts
        self.rate_fields = b""  # x-ratelimit-*, encoded
        self.fetched: Known | None = None  # media read from URLs, for all its attempts
        self.parent: Run | None = None  # the call's own, where this is one of several choices
        self.part: Part | None = None  # then its answer, instead of a reply to the client
        self.archive_days = 0  # how long its bodies are kept, if they are; 0 = for us alone
        self.writer: StreamWriter | None = None  # … or what writes its part of the stream
        self.on_sent: Callable[[], None] | None = None  # called as an attempt goes out
        self.keep: Callable[[bytes], None] | None = None  # takes what is sent to the client, where it is to be kept

    def fork(self, call: Call) -> Run:
        """A run for one of several choices: `call` asks for that one alone."""
        run = Run(self.exchange, self.surface, self.endpoint)
        run.parent, run.call, run.principal, run.asked, run.tag = self, call, self.principal, self.asked, self.tag
        run.is_strict, run.permits = self.is_strict, self.permits
        run.fetched = self.fetched = self.fetched or {}
        return run

    def next_attempt(self) -> int:
        """Numbers run on over all choices of a call, as they name its attempts."""
        self.attempts += 1
        return self.attempts if self.parent is None else self.parent.next_attempt()

    def read_headers(self, principal: Principal) -> None:
        """The request headers that steer a call. Raises ClientError for a wrong one."""
        headers = self.exchange.headers
        self.tag = read_tag(headers[b"x-aig-tag"]) if b"x-aig-tag" in headers else principal.default_tag
        if b"x-request-id" in headers and _CLIENT_REQUEST_ID.fullmatch(headers[b"x-request-id"]):
            self.client_request_id = headers[b"x-request-id"]
        if b"x-aig-strict" in headers:
            self.is_strict = read_switch("x-aig-strict", headers[b"x-aig-strict"].decode("latin-1"), "true", "false")

    def end_record(self, now: float, unix_offset_s: float, status: int, error_code: str) -> CallEnd:
        """The call's end as the journal keeps it. `now` is the loop's clock; `unix_offset_s` turns it into wall time."""
        exchange, call, principal, target = self.exchange, self.call, self.principal, self.target
        started_at = exchange.started_at
        return CallEnd(
            exchange.request_id,
            self.surface.name,
            self.endpoint,
            self.asked,
            "" if target is None or error_code else target.slug,
            status,
            int((started_at + unix_offset_s) * 1000),
            int((now - started_at) * 1000),
            self.first_byte_ms,
            call is not None and call.is_stream,
            self.attempts,
            self.cost_nanousd,
            principal.account_id,
            principal.key_id,
            principal.sub_account_id,
            self.tag,
            None if self.client_request_id is None else self.client_request_id.decode(),
            error_code,
            warning_header(self.warnings) if self.warnings else "",
        )
