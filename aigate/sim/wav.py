"""A real little tune: 16-bit mono WAV, the notes chosen by the seed. Says in its comment that it is simulated. Pure."""

from __future__ import annotations

import math
import struct
from array import array
from functools import lru_cache
from sys import byteorder

RATE_HZ = 8000
_NOTE_S = 0.25
_SCALE_HZ = (261.63, 293.66, 329.63, 392.0, 440.0, 523.25)  # pentatonic: any order of them sounds well
_LOUDNESS = 9000


def make_tune(seconds: float, seed: int, note: str) -> bytes:
    """A WAV of so many seconds; the same for the same arguments."""
    wanted = max(1, round(seconds * RATE_HZ)) * 2
    sound, state = bytearray(), seed
    while len(sound) < wanted:
        state = (state * 1_103_515_245 + 12_345) & 0x7FFFFFFF
        sound += _tone(_SCALE_HZ[(state >> 16) % len(_SCALE_HZ)])
    comment = note.encode("utf-8", "replace")[:1000] + b"\x00"
    comment += bytes(len(comment) % 2)
    info = _chunk(b"LIST", b"INFO" + _chunk(b"ICMT", comment))
    head = _chunk(b"fmt ", struct.pack("<HHIIHH", 1, 1, RATE_HZ, RATE_HZ * 2, 2, 16))
    body = b"WAVE" + head + info + _chunk(b"data", bytes(sound[:wanted]))
    return _chunk(b"RIFF", body)


def padded(tune: bytes, size: int) -> bytes:
    """`tune` with its length and the head of a chunk that readers skip, for `size` bytes (an even number) to follow."""
    whole = tune + struct.pack("<4sI", b"JUNK", size)
    return whole[:4] + struct.pack("<I", len(whole) - 8 + size) + whole[8:]


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack("<4sI", kind, len(body)) + body


@lru_cache(maxsize=16)
def _tone(pitch_hz: float) -> bytes:
    """One note that swells and fades, so that nothing clicks."""
    count = round(_NOTE_S * RATE_HZ)
    samples = array("h", (
        round(_LOUDNESS * math.sin(math.pi * at / count) * math.sin(2 * math.pi * pitch_hz * at / RATE_HZ)) for at in range(count)
    ))  # fmt: skip
    if byteorder == "big":
        samples.byteswap()
    return samples.tobytes()
