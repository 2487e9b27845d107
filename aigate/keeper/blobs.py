"""Where large results and uploaded files lie: bytes under an opaque key, streamed in and out. Owns nothing but bytes.

`Blobs` is the shape of any store; `LocalBlobs` is the data directory's. A key is a path of plain names ("uploads/file-0a1b"), chosen by
its owner, never by a caller. What a blob means, whose it is and when it goes is in its owner's table.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
from collections.abc import AsyncIterable, AsyncIterator
from pathlib import Path
from typing import BinaryIO, Protocol

from aigate.errors import GatewayError

PIECE_BYTES = 256 << 10
_KEY = re.compile(r"(?:[A-Za-z0-9_-][A-Za-z0-9._-]*/)*[A-Za-z0-9_-][A-Za-z0-9._-]*\Z")
_DRAFTS = ".drafts"  # no key begins with a dot


class MissingBlob(GatewayError):
    """There is nothing under this key, though there should be: somebody took it out of the store."""

    code = "missing_blob"

    def __init__(self, key: str):
        super().__init__(f"The bytes of {key.rpartition('/')[2]} are no longer in the store.")


class Blobs(Protocol):
    async def put(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        """All of it or nothing, in the place of what was there; how many bytes. An exception of `pieces` goes through."""

    async def put_file(self, key: str, path: Path) -> int:
        """The same, of a local file that is then the store's: it is no longer where it was. Does nothing where it has been done."""

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        """The bytes from `start` to before `end`. Raises MissingBlob."""

    async def delete(self, key: str) -> None:
        """Also of what is not there."""


class LocalBlobs:
    """In a folder. A blob takes its place once it is whole and on disk."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._drafts = folder / _DRAFTS

    def clear_drafts(self) -> None:
        """What a process that was killed had not finished. Before the first `put`."""
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._drafts):
                os.unlink(entry.path)

    async def put(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        path = self._path(key)
        draft = self._drafts / secrets.token_hex(12)
        file = await asyncio.to_thread(_create, draft)
        size = 0
        try:
            async for piece in pieces:
                size += len(piece)
                await asyncio.to_thread(file.write, piece)
            await asyncio.to_thread(_finish, file, draft, path)
        except BaseException:
            _drop(file, draft)  # here: a task that was cancelled may wait for nothing more
            raise
        return size

    async def put_file(self, key: str, path: Path) -> int:
        return await asyncio.to_thread(_adopt, path, self._path(key))

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        try:
            file = await asyncio.to_thread(_open_at, self._path(key), start)
        except FileNotFoundError:
            raise MissingBlob(key) from None
        return _pieces(file, None if end is None else end - start)

    async def delete(self, key: str) -> None:
        await asyncio.to_thread(self._path(key).unlink, missing_ok=True)

    def _path(self, key: str) -> Path:
        if not _KEY.match(key):
            raise ValueError(f"{key!r} is no key")
        return self._folder / key


async def _pieces(file: BinaryIO, size: int | None) -> AsyncIterator[bytes]:
    try:
        while size is None or size > 0:
            piece = await asyncio.to_thread(file.read, PIECE_BYTES if size is None else min(PIECE_BYTES, size))
            if not piece:
                return
            if size is not None:
                size -= len(piece)
            yield piece
    finally:
        file.close()


def _create(path: Path) -> BinaryIO:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb", PIECE_BYTES)


def _open_at(path: Path, start: int) -> BinaryIO:
    file = path.open("rb", buffering=0)
    file.seek(start)
    return file


def _take_place(draft: Path, path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.replace(draft, path)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _finish(file: BinaryIO, draft: Path, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()
    _take_place(draft, path)


def _drop(file: BinaryIO, draft: Path) -> None:
    with contextlib.suppress(OSError):  # a full disk: its buffer cannot be written
        file.close()
    draft.unlink(missing_ok=True)


def _adopt(source: Path, path: Path) -> int:
    try:
        with source.open("rb") as file:
            os.fsync(file.fileno())
    except FileNotFoundError:  # done before a crash, or never there: then this raises too
        return path.stat().st_size
    _take_place(source, path)
    return path.stat().st_size
