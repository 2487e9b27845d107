"""Archive segments, version 1 (docs/formats.md): the calls of a spool in compressed blocks, with an index by call id at the end.

    "AIGA" version  |  blocks, each a zstd frame of spool frames  |  index, zstd of msgpack [[call id, block], …] and [[begin, length], …]
    |  begin and length of the index, 8 bytes each, "AIGA"

A file's name says from when to when its calls began and in which order files were made, so a look-up opens few. Pure over bytes and files given.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec
import zstandard

from aigate.archive.records import FRAME_HEAD_BYTES, ArchivedCall, decode_call, read_frames

MAGIC = b"AIGA\x01"
BLOCK_BYTES = 256 << 10
MAX_BLOCK_BYTES = 1 << 30
SUFFIX = ".calls"
# Level 1 with a small table and long matches only: a fifth faster and one per cent larger, on recorded traffic (3 times smaller; streams 8).
# Faster levels (-1 and below) save no more time than that and make a quarter more bytes.
_COMPRESSION = zstandard.ZstdCompressionParameters.from_level(1, source_size=BLOCK_BYTES, hash_log=13, min_match=7, write_checksum=True)
_TAIL = struct.Struct("<QQ5s")


class BadSegment(ValueError):
    """No archive segment, or one that is damaged."""


class Span(NamedTuple):
    """When the calls of a segment began, in unix milliseconds, both inside."""

    first_ms: int
    last_ms: int


class _Index(msgspec.Struct, array_like=True):
    calls: list[tuple[str, int]]  # call id, block
    blocks: list[tuple[int, int]]  # begin, length


def write_segment(file: BinaryIO, spool: bytes) -> tuple[int, Span]:
    """(how many calls, their span) of a spool, of which one frame at least can be read. Its bytes become blocks as they are."""
    compressor = zstandard.ZstdCompressor(compression_params=_COMPRESSION)
    index = _Index([], [])
    data = memoryview(spool)
    first_ms, last_ms = 2**62, 0
    begin = end = 0  # of the block
    file.write(MAGIC)
    for head, body in read_frames(spool):
        first_ms, last_ms = min(first_ms, head.started_ms), max(last_ms, head.started_ms)
        index.calls.append((head.call_id, len(index.blocks)))
        end += FRAME_HEAD_BYTES + len(body)
        if end - begin >= BLOCK_BYTES:
            _write_block(file, compressor, index, data[begin:end])
            begin = end
    if end > begin:
        _write_block(file, compressor, index, data[begin:end])
    begin = file.tell()
    packed = compressor.compress(msgspec.msgpack.encode(index))
    file.write(packed + _TAIL.pack(begin, len(packed), MAGIC))
    return len(index.calls), Span(first_ms, last_ms)


def _write_block(file: BinaryIO, compressor: zstandard.ZstdCompressor, index: _Index, block: memoryview) -> None:
    packed = compressor.compress(block)
    index.blocks.append((file.tell(), len(packed)))
    file.write(packed)


def find_call(file: BinaryIO, call_id: str) -> ArchivedCall | None:
    """The newest of that id in the segment. Raises BadSegment."""
    index = _read_index(file)
    block = next((block for known, block in reversed(index.calls) if known == call_id), None)
    if block is None:
        return None
    found = None
    for head, body in read_frames(_read_block(file, *index.blocks[block])):
        if head.call_id == call_id:
            found = decode_call(body)
    return found


def read_calls(file: BinaryIO) -> Iterator[ArchivedCall]:
    """All of them, in their order. Raises BadSegment."""
    for begin, length in _read_index(file).blocks:
        for _, body in read_frames(_read_block(file, begin, length)):
            yield decode_call(body)


def _read_index(file: BinaryIO) -> _Index:
    try:
        file.seek(-_TAIL.size, 2)
        begin, length, magic = _TAIL.unpack(file.read(_TAIL.size))
        if magic != MAGIC:
            raise BadSegment("no archive segment")
        return msgspec.msgpack.decode(_read_block(file, begin, length), type=_Index)
    except (OSError, struct.error, OverflowError, msgspec.DecodeError) as error:
        raise BadSegment(f"archive segment cannot be read: {error}") from None


def _read_block(file: BinaryIO, begin: int, length: int) -> bytes:
    try:
        file.seek(begin)
        return zstandard.ZstdDecompressor().decompress(file.read(length), max_output_size=MAX_BLOCK_BYTES)
    except (zstandard.ZstdError, OverflowError, MemoryError) as error:
        raise BadSegment(f"archive segment is damaged: {error}") from None


def segment_name(span: Span, made: str) -> str:
    """`made`: what tells it from others of the same span."""
    return f"{span.first_ms:013d}-{span.last_ms:013d}-{made}{SUFFIX}"


def span_of(path: Path) -> Span | None:
    """By its name; None of what is no segment."""
    first, _, rest = path.name.partition("-")
    last = rest.partition("-")[0]
    return Span(int(first), int(last)) if path.name.endswith(SUFFIX) and first.isdigit() and last.isdigit() else None
