"""The header fields of our replies, from what is known of the call. Pure.

What never changes for a target is encoded once; the rest of a common reply is one formatting of values that are ours.
"""

from __future__ import annotations

from aigate.core.price import format_cents
from aigate.core.usage import REPORTED, Usage
from aigate.core.warnings import warning_header
from aigate.errors import GateError
from aigate.inner import COST_HEADER
from aigate.worker import heads
from aigate.worker.heads import FieldBlock, field_block
from aigate.worker.run import Run

MAX_BLOCKS = 4096  # targets whose constant fields are kept encoded

_JSON = (b"content-type", b"application/json")
_EVENTS = (
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),  # tells nginx-like proxies in front of us to pass a stream on at once
)
_blocks: dict[str, FieldBlock] = {}  # slug → the constant fields of its replies


def _constant(run: Run) -> bytes:
    target = run.target
    if target is None:  # an error before there was one
        return b""
    block = _blocks.get(target.slug)
    if block is None:
        if len(_blocks) >= MAX_BLOCKS:
            _blocks.clear()
        block = _blocks[target.slug] = field_block(
            [(b"x-aig-provider", target.provider.name.encode()), (b"x-aig-served-by", target.slug.encode())]
        )
    return block


def _rare(run: Run) -> bytes:
    """Fields that most calls do not have. Their values come from outside, so they are checked."""
    fields = []
    if run.client_request_id is not None:
        fields.append((b"x-client-request-id", run.client_request_id))
    if run.surface.id_header:
        fields.append((run.surface.id_header, run.exchange.request_id.encode()))
    if run.exchange.inner is not None:
        fields.append((COST_HEADER, b"%d" % run.cost_nanousd))
    if run.warnings:
        fields.append((b"x-aig-warning", warning_header(run.warnings).encode()))
    return run.rate_fields + field_block(fields)


def _common(run: Run) -> bytes:
    target, exchange = run.target, run.exchange
    is_rare = run.warnings or run.rate_fields or run.client_request_id is not None or run.surface.id_header or exchange.inner is not None
    return b"%b\r\nx-request-id: %b\r\nx-aig-attempts: %d%b" % (
        _blocks.get(target.slug) or _constant(run), exchange.request_id.encode(), run.attempts, _rare(run) if is_rare else b""
    )  # fmt: skip


_JSON_BLOCK, _EVENTS_BLOCK, _ARRAY_BLOCK = field_block([_JSON]), field_block(_EVENTS), field_block([_JSON, *_EVENTS[1:]])


def reply_fields(run: Run, usage: Usage) -> FieldBlock:
    """A plain reply: its cost is known."""
    cached = b"\r\nx-cached-input-units: %d" % usage.cached_tokens if usage.cached_tokens else b""
    return b"%b%b\r\nx-cost-cents: %b%b" % (_common(run), _JSON_BLOCK, format_cents(run.cost_nanousd).encode(), cached)


def count_fields(run: Run, how: str) -> FieldBlock:
    """A token count: `how` it was obtained is said where it is not the provider's own."""
    mark = b"\r\nx-aig-count: %b" % how.encode() if how != REPORTED else b""
    return _common(run) + _JSON_BLOCK + mark


def stream_fields(run: Run) -> FieldBlock:
    """A stream: what is known before its first chunk."""
    is_array = run.call is not None and run.call.is_array
    return _common(run) + (_ARRAY_BLOCK if is_array else _EVENTS_BLOCK)


def error_fields(run: Run, error: GateError) -> FieldBlock:
    """An error: whether and when a retry helps, as the official SDKs read it. Of a provider only where something was sent to one."""
    fields = field_block(heads.error_fields(error, run.exchange.request_id))
    sent = b"%b\r\nx-aig-attempts: %d" % (_constant(run), run.attempts) if run.attempts else b""
    return fields + sent + _rare(run)
