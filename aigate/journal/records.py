"""Journal record bodies, version 1 (docs/formats.md). Owns their fields and their encoding (msgpack arrays); does no I/O.

Two records an attempt: `Intent` directly before its first byte goes out, `Settled` before the client gets its last byte.
The last attempt's Settled carries the call's end; a call that never reached an attempt has a `CallEnd` record alone.
Three kinds say what became of the journal's leases outside a settle; all have a `Leases` body.
New fields go at the end with a default: old journals stay readable.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

from aigate.core.budget import Lease

INTENT, SETTLED, CALL_END = 1, 2, 3
RETURNED = 4  # unused lease goes back: each lease falls by its amount
ADOPTED = 5  # a first limit turned open holds into lease: each lease rises by its amount
RESTATED = 6  # after a restored database: the journal's leases are exactly these, all others are void


class CallEnd(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One client call, ended. Times are unix milliseconds; money is nano-dollars."""

    call_id: str  # req_…
    surface: str
    endpoint: str
    asked_model: str
    served_by: str  # slug that answered; "" if none
    status: int  # HTTP status the client got
    started_ms: int
    latency_ms: int
    ttft_ms: int  # -1 = no first byte
    is_stream: bool
    attempts: int
    cost_nanousd: int  # sum over its attempts
    account_id: str
    key_id: str
    sub_account_id: str | None
    tag: str | None
    client_request_id: str | None
    error_code: str
    warnings: str = ""  # the x-aig-warning value


class Intent(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """An attempt about to be sent. Enough to make its ledger row if nothing else is ever written."""

    attempt_id: str  # att_…
    call_id: str
    number: int
    sent_ms: int
    provider: str
    model: str  # slug
    hold_nanousd: int
    price_id: str
    account_id: str
    key_id: str
    sub_account_id: str | None
    tag: str | None
    window: str = ""  # YYYY-MM that it counts in; "" in journals older than budgets: the month of sent_ms
    leases: tuple[tuple[int, int], ...] = ()  # (budget id, lease number) held on; for audits, replay does not need it
    is_stream: bool = False


class Settled(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The end of an attempt. Usage classes as core/usage.py; `raw_usage` is the provider's own JSON."""

    attempt_id: str
    end: str  # complete | aborted | failed
    usage_source: str  # reported | counted | estimated | none (core/usage.py)
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    audio_input_tokens: int
    audio_output_tokens: int
    cost_nanousd: int
    price_id: str
    provider_status: int
    error_kind: str
    latency_ms: int
    ttft_ms: int
    raw_usage: bytes
    call: CallEnd | None = None
    charges: tuple[Lease, ...] = ()  # how much of each lease ended with the attempt: its cost, or the whole hold of a slice given up


class Leases(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """Body of RETURNED, ADOPTED and RESTATED records. At most MAX_LEASES, so that any fits a record."""

    leases: tuple[Lease, ...]


MAX_LEASES = 1_500  # of at most 28 bytes each


_encode = msgspec.msgpack.Encoder().encode
encode_record = _encode
decode_intent = msgspec.msgpack.Decoder(Intent).decode
decode_settled = msgspec.msgpack.Decoder(Settled).decode
decode_call_end = msgspec.msgpack.Decoder(CallEnd).decode
decode_leases = msgspec.msgpack.Decoder(Leases).decode


# --- records too large for the room they were promised --------------------------------------------------------------------

_Record = TypeVar("_Record", CallEnd, Settled)
_CUT_TEXT_BYTES = 192  # so that all texts of a Settled and its CallEnd fit a reserved slot together


def fit_settled(body: bytes, limit_bytes: int) -> bytes:
    """The same end of an attempt in at most `limit_bytes`: raw usage and warnings go first, then long texts are cut; never a number."""
    record = msgspec.structs.replace(decode_settled(body), raw_usage=b"")
    if record.call is not None:
        record = msgspec.structs.replace(record, call=msgspec.structs.replace(record.call, warnings=""))
    fitted = _encode(record)
    if len(fitted) > limit_bytes:
        record = _cut_texts(record)
        fitted = _encode(record if record.call is None else msgspec.structs.replace(record, call=_cut_texts(record.call)))
    return fitted


def fit_call_end(body: bytes, limit_bytes: int) -> bytes:
    record = msgspec.structs.replace(decode_call_end(body), warnings="")
    fitted = _encode(record)
    return fitted if len(fitted) <= limit_bytes else _encode(_cut_texts(record))


def _cut_texts(record: _Record) -> _Record:
    texts = {name: value for name, value in msgspec.structs.asdict(record).items() if isinstance(value, str)}
    cut = {name: value.encode()[:_CUT_TEXT_BYTES].decode(errors="ignore") for name, value in texts.items()}
    return msgspec.structs.replace(record, **cut)
