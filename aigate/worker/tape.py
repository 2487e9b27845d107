"""Tapes: what was sent of a running call's reply, until its end, where it is to be archived. Shell (one file, never waited for).

All tapes of a worker together take a bounded amount of its memory: past it, what the longest-running have goes on to a file without a name,
in blocks that are used again. A reply shorter than a block is not even counted, so that ordinary calls pay nothing for this.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

BLOCK_BYTES = 16 << 10  # a tape is looked at each time it has grown by this
ROOM_BYTES = 16 << 20  # of all tapes in memory; beside it each running reply has less than a block


class Shelf:
    """Holds the tapes of a worker. `folder`: for the file. `lost`: tapes that could not be put there or found again."""

    def __init__(self, folder: Path, *, max_body_bytes: int, room_bytes: int = ROOM_BYTES):
        self.max_body_bytes = max_body_bytes
        self.lost = 0
        self.held_bytes = 0  # in memory, of replies of more than a block
        self.room_bytes = room_bytes
        self._folder = folder
        self._file = -1
        self._blocks = 0  # that the file has
        self._free: list[int] = []

    @property
    def file_bytes(self) -> int:
        return self._blocks * BLOCK_BYTES

    def put(self, block: bytes | memoryview) -> int:
        """Its number. Raises OSError."""
        if self._file < 0:
            self._file = self._make_file()
        number = self._free[-1] if self._free else self._blocks
        if os.pwrite(self._file, block, number * BLOCK_BYTES) != BLOCK_BYTES:
            raise OSError("short write")
        if self._free:
            self._free.pop()
        else:
            self._blocks += 1
        return number

    def get(self, number: int) -> bytes:
        """Raises OSError."""
        block = os.pread(self._file, BLOCK_BYTES, number * BLOCK_BYTES)
        if len(block) != BLOCK_BYTES:
            raise OSError("short read")
        return block

    def free(self, numbers: list[int]) -> None:
        self._free += numbers
        if len(self._free) == self._blocks:  # nobody has any: the disk gets its room back
            self._free.clear()
            self._blocks = 0
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, 0)

    def _make_file(self) -> int:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._folder / f"{secrets.token_hex(8)}.tapes"
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        path.unlink()  # whatever ends this process, it leaves nothing
        return file


class Tape:
    """One streamed reply. It must come to `take`, which gives back what it holds."""

    __slots__ = ("_shelf", "_size", "_look_at", "_pieces", "_held_bytes", "_blocks", "_is_too_long", "is_lost")

    def __init__(self, shelf: Shelf):
        self._shelf = shelf
        self._size = 0
        self._look_at = min(BLOCK_BYTES, shelf.max_body_bytes + 1)
        self._pieces: list[bytes] = []
        self._held_bytes = 0  # of them, as far as the shelf counts them
        self._blocks: list[int] = []  # what came before the pieces
        self._is_too_long = False
        self.is_lost = False

    def add(self, data: bytes) -> None:
        self._size += len(data)
        self._pieces.append(data)
        if self._size >= self._look_at:
            self._look()

    def take(self) -> bytes | None:
        """All that was added; None if that is more than is kept, or `is_lost`."""
        pieces = self._pieces
        if self._blocks:
            try:
                pieces = [*map(self._shelf.get, self._blocks), *pieces]
            except OSError:
                self._lose()
        whole = None if self._is_too_long or self.is_lost else pieces[0] if len(pieces) == 1 else b"".join(pieces)
        self._drop()
        return whole

    def _look(self) -> None:
        shelf = self._shelf
        if self._size > shelf.max_body_bytes or self.is_lost:
            self._is_too_long = not self.is_lost
            self._drop()
            return
        self._look_at = min(self._size + BLOCK_BYTES, shelf.max_body_bytes + 1)
        grown = self._size - len(self._blocks) * BLOCK_BYTES - self._held_bytes
        self._held_bytes += grown
        shelf.held_bytes += grown
        if shelf.held_bytes > shelf.room_bytes:
            try:
                self._put_away()
            except OSError:
                self._lose()

    def _put_away(self) -> None:
        """The pieces, up to their last whole block."""
        data = b"".join(self._pieces)
        whole_bytes = len(data) - len(data) % BLOCK_BYTES
        for begin in range(0, whole_bytes, BLOCK_BYTES):
            self._blocks.append(self._shelf.put(memoryview(data)[begin : begin + BLOCK_BYTES]))
        self._pieces = [data[whole_bytes:]]
        self._shelf.held_bytes -= self._held_bytes
        self._held_bytes = 0

    def _lose(self) -> None:
        self.is_lost = True
        self._shelf.lost += 1
        self._drop()

    def _drop(self) -> None:
        self._pieces.clear()
        self._shelf.held_bytes -= self._held_bytes
        self._held_bytes = 0
        if self._blocks:
            self._shelf.free(self._blocks)
            self._blocks = []
