"""Messages between a worker and the keeper, version 1 (docs/formats.md). Owns their shapes and framing; does no I/O.

A frame is a 4-byte big-endian length and a msgpack body (a tagged Struct). The worker opens one connection to
`run/keeper.sock` and speaks first (Hello). Every `Push` is answered by an `Ack` of the same number once it is in force.
"""

from __future__ import annotations

import struct

import msgspec

from aigate.core.call import Principal

VERSION = 1
MAX_FRAME_BYTES = 16 << 20


class Hello(msgspec.Struct, tag="hello", frozen=True):
    """A worker says who it is. `version` lets the keeper refuse what it does not speak."""

    worker: str
    pid: int
    journal_id: str
    version: int = VERSION


class LookUp(msgspec.Struct, tag="look_up", frozen=True):
    """Who owns the key with this digest? Answered by Found with the same number."""

    number: int
    digest: bytes


class Found(msgspec.Struct, tag="found", frozen=True):
    number: int
    principal: Principal | None


class Push(msgspec.Struct, tag="push", frozen=True):
    """Key changes, in force when acknowledged: each digest now belongs to the principal (None: revoked or unknown).
    `is_reset` : forget every other cached key."""

    number: int
    keys: tuple[tuple[bytes, Principal | None], ...] = ()
    is_reset: bool = False


class Ack(msgspec.Struct, tag="ack", frozen=True):
    number: int


class Health(msgspec.Struct, tag="health", frozen=True):
    """Worker → keeper, every few seconds: counters for /metrics and breaker states for /v1/health/providers.

    Counters are named `name` or `name;label=value;label=value`; a name that ends in `_total` only ever rises in one process."""

    worker: str
    counters: dict[str, float]
    targets: dict[str, dict[str, object]]  # slug → {state, failures, …}


class Ping(msgspec.Struct, tag="ping", frozen=True):
    """Keeper → worker: an authority is there; holds max_staleness_s off."""


Message = Hello | LookUp | Found | Push | Ack | Health | Ping

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Message)


def encode_frame(message: Message) -> bytes:
    body = _encoder.encode(message)
    return struct.pack(">I", len(body)) + body


def decode_frames(buffer: bytearray) -> list[Message]:
    """Takes every whole frame off the front of `buffer`. Raises ValueError for an oversized or unreadable frame."""
    messages: list[Message] = []
    at = 0
    while len(buffer) - at >= 4:
        (size,) = struct.unpack_from(">I", buffer, at)
        if size > MAX_FRAME_BYTES:
            raise ValueError(f"frame of {size} bytes, at most {MAX_FRAME_BYTES} allowed")
        if len(buffer) - at - 4 < size:
            break
        messages.append(_decoder.decode(bytes(buffer[at + 4 : at + 4 + size])))
        at += 4 + size
    del buffer[:at]
    return messages
