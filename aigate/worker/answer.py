"""The header fields of our replies, from what is known of the call (contract §1.4, §7). Pure."""

from __future__ import annotations

from aigate.core.price import format_cents
from aigate.core.usage import Usage
from aigate.core.warnings import warning_header
from aigate.errors import GateError
from aigate.worker import heads
from aigate.worker.run import Run

Fields = list[tuple[bytes, bytes]]

_JSON = (b"content-type", b"application/json")
_EVENTS = (b"content-type", b"text/event-stream; charset=utf-8")
_NO_CACHE = (b"cache-control", b"no-cache")
_NO_BUFFER = (b"x-accel-buffering", b"no")  # tells nginx-like proxies in front of us to pass a stream on at once


def _common(run: Run) -> Fields:
    fields: Fields = []
    if run.client_request_id is not None:
        fields.append((b"x-client-request-id", run.client_request_id))
    target = run.target
    if target is not None:
        fields.append((b"x-aig-provider", target.provider.name.encode()))
        fields.append((b"x-aig-served-by", target.slug.encode()))
        fields.append((b"x-aig-attempts", b"%d" % run.attempts))
    if run.warnings:
        fields.append((b"x-aig-warning", warning_header(run.warnings).encode()))
    return fields


def reply_fields(run: Run, usage: Usage) -> Fields:
    """A plain reply: its cost is known."""
    fields = [(b"x-request-id", run.exchange.request_id.encode())] + _common(run)
    fields.append(_JSON)
    fields.append((b"x-cost-cents", format_cents(run.cost_nanousd).encode()))
    if usage.cached_tokens:
        fields.append((b"x-cached-input-units", b"%d" % usage.cached_tokens))
    return fields


def stream_fields(run: Run) -> Fields:
    """A stream: what is known before its first chunk."""
    fields = [(b"x-request-id", run.exchange.request_id.encode())] + _common(run)
    fields += (_EVENTS, _NO_CACHE, _NO_BUFFER)
    return fields


def error_fields(run: Run, error: GateError) -> Fields:
    """An error: whether and when a retry helps, as the official SDKs read it."""
    return heads.error_fields(error, run.exchange.request_id) + _common(run)
