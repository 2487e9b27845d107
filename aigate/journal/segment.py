"""Segment format, version 1 (docs/formats.md): the header of a journal file and the frame around each record. Pure; no I/O.

A segment is preallocated: what was never written reads as zeros, so a length of 0 ends it. A frame that does not match its checksum
is *torn*: a record cut by a crash, or one that is still being written.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from zlib import crc32

MAGIC = b"AIGJ"
VERSION = 1
SEGMENT_HEADER_BYTES = 64
_SEGMENT_HEAD = struct.Struct("<4sHHQ40sI4x")  # magic, version, header bytes, segment number, journal id, crc32 of all before it

FRAME_PREFIX = struct.Struct("<II")  # length, crc32
FRAME_INNER = struct.Struct("<QB")  # seq, kind: counted in length and crc
FRAME_HEAD = struct.Struct("<IIQB")
FRAME_HEAD_BYTES = FRAME_HEAD.size  # 17
INNER_BYTES = FRAME_INNER.size  # 9
MAX_RECORD_BYTES = 64 << 10  # a whole frame
SLOT_BYTES = 4 << 10  # room reserved for the settled record of each open intent: a whole frame
MAX_SETTLED_BODY_BYTES = SLOT_BYTES - FRAME_HEAD_BYTES
MAX_BODY_BYTES = MAX_RECORD_BYTES - FRAME_HEAD_BYTES


class BadSegment(ValueError):
    """Not a segment of this journal, or of a version that this code does not know."""


def segment_name(number: int) -> str:
    return f"{number:08d}.seg"


def segment_number(name: str) -> int | None:
    stem, dot, ending = name.partition(".")
    return int(stem) if ending == "seg" and stem.isdigit() else None


def segment_header(journal_id: str, number: int) -> bytes:
    name = journal_id.encode("ascii")
    if len(name) > 40:
        raise ValueError(f"journal id of {len(name)} bytes, at most 40 allowed")
    fields = (MAGIC, VERSION, SEGMENT_HEADER_BYTES, number, name)
    head = _SEGMENT_HEAD.pack(*fields, 0)
    return _SEGMENT_HEAD.pack(*fields, crc32(head[:56]))


def check_segment_header(data: bytes, journal_id: str, number: int) -> None:
    if data[:4] != MAGIC:
        raise BadSegment("not a journal segment")
    if len(data) < SEGMENT_HEADER_BYTES:
        raise BadSegment("segment header cut short")
    version = int.from_bytes(data[4:6], "little")
    if version != VERSION:
        raise BadSegment(f"segment version {version}; this release reads version {VERSION}")
    if data[:SEGMENT_HEADER_BYTES] != segment_header(journal_id, number):
        raise BadSegment("segment header does not match its journal and number")


def encode_frame(seq: int, kind: int, body: bytes) -> bytes:
    """One record as it lies in the file. The checksum starts from the length, so a changed length is noticed too."""
    inner = FRAME_INNER.pack(seq, kind) + body
    return FRAME_PREFIX.pack(len(inner), crc32(inner, len(inner))) + inner


def scan_frames(data: bytes, start: int = 0) -> Iterator[tuple[int, int, bytes, int]]:
    """(seq, kind, body, offset after it) of each whole valid frame from `start`; stops at the first that is not."""
    unpack, head_bytes, size = FRAME_HEAD.unpack_from, FRAME_HEAD_BYTES, len(data)
    view = memoryview(data)
    at = start
    while at + head_bytes <= size:
        length, crc, seq, kind = unpack(data, at)
        end = at + 8 + length
        if length < INNER_BYTES or end > size or crc32(view[at + 8 : end], length) != crc:
            return
        yield seq, kind, data[at + head_bytes : end], end
        at = end


def is_torn(data: bytes, at: int) -> bool:
    """Whether something other than the end stands at `at`: a record was begun there and is not whole."""
    return any(data[at : at + FRAME_HEAD_BYTES])


def find_frame(data: bytes, at: int) -> int:
    """Offset of the first whole valid frame from `at` on, at any byte; -1 where there is none. Slow: only for damaged segments."""
    unpack, size = FRAME_HEAD.unpack_from, len(data.rstrip(b"\0"))
    while at + FRAME_HEAD_BYTES <= size:
        length, crc, _, kind = unpack(data, at)
        end = at + 8 + length
        if 0 < kind < 16 and INNER_BYTES <= length <= MAX_RECORD_BYTES and end <= len(data) and crc32(data[at + 8 : end], length) == crc:
            return at
        at += 1
    return -1
