"""Archived calls: what is kept of one (request and reply as they were on the wire), and the frame around it in a spool. Pure; no I/O.

A spool is frames one after another: 4 bytes of length, little-endian, and a msgpack array. Whatever cannot be read ends it: a
process that was killed may leave half a frame at its end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import msgspec

_LENGTH = struct.Struct("<I")
FRAME_HEAD_BYTES = _LENGTH.size


class ArchivedCall(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """One ended call. `request` and `reply` are bytes of the surface's wire format; a stream's reply is its events as they were sent."""

    call_id: str  # req_…
    started_ms: int
    account_id: str
    sub_account_id: str | None
    key_id: str
    tag: str | None
    surface: str  # dialect the client spoke
    endpoint: str
    path: str
    asked_model: str
    served_by: str  # slug that answered; "" if none
    status: int
    is_stream: bool
    request: bytes
    reply: bytes
    is_cut: bool = False  # a body was larger than is kept: then neither is
    is_inner: bool = False  # made by the gateway itself, for somebody
    is_ours: bool = False  # kept for the gateway's own work alone: its tenant wants no bodies kept


_encode = msgspec.msgpack.Encoder().encode
decode_call = msgspec.msgpack.Decoder(ArchivedCall).decode


def encode_frame(call: ArchivedCall) -> bytes:
    body = _encode(call)
    return _LENGTH.pack(len(body)) + body


def read_frames(data: bytes) -> Iterator[tuple[str, bytes]]:
    """(call id, body for `decode_call`) of every whole frame."""
    at = 0
    while len(data) - at > _LENGTH.size:
        (length,) = _LENGTH.unpack_from(data, at)
        at += _LENGTH.size
        body = data[at : at + length]
        if not length or len(body) < length:
            return
        call_id = _call_id(body)
        if call_id is None:
            return
        yield call_id, body
        at += length


def _call_id(body: bytes) -> str | None:
    """The first field of the array, without decoding the rest. None: no such array."""
    # fixarray 0x90–0x9f or array 16 0xdc; then fixstr 0xa0–0xbf or str 8 0xd9.
    at = 1 if 0x90 <= body[0] <= 0x9F else 3 if body[0] == 0xDC else 0
    if not at or len(body) < at + 2:
        return None
    mark = body[at]
    if 0xA0 <= mark <= 0xBF:
        start, length = at + 1, mark & 0x1F
    elif mark == 0xD9:
        start, length = at + 2, body[at + 1]
    else:
        return None
    return body[start : start + length].decode("ascii", "replace") if len(body) >= start + length else None
