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
_LENGTH_TO_COME = bytes(FRAME_HEAD_BYTES)


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


class Head(msgspec.Struct, array_like=True, gc=False):
    """The first fields of an ArchivedCall: the rest is stepped over, which costs little."""

    call_id: str
    started_ms: int


_encode_into = msgspec.msgpack.Encoder().encode_into
_decode_head = msgspec.msgpack.Decoder(Head).decode
decode_call = msgspec.msgpack.Decoder(ArchivedCall).decode


def add_frame(frames: bytearray, call: ArchivedCall) -> None:
    """Encoded where it stays: bodies are large, and copied once."""
    begin = len(frames)
    frames += _LENGTH_TO_COME
    try:
        _encode_into(call, frames, -1)
    except BaseException:
        del frames[begin:]
        raise
    _LENGTH.pack_into(frames, begin, len(frames) - begin - FRAME_HEAD_BYTES)


def read_frames(data: bytes) -> Iterator[tuple[Head, memoryview]]:
    """Head and body (for `decode_call`) of every whole frame."""
    view = memoryview(data)
    begin = FRAME_HEAD_BYTES
    while begin < len(view):
        end = begin + _LENGTH.unpack_from(view, begin - FRAME_HEAD_BYTES)[0]
        if end > len(view):
            return
        body = view[begin:end]
        try:
            head = _decode_head(body)
        except msgspec.DecodeError:
            return
        yield head, body
        begin = end + FRAME_HEAD_BYTES
