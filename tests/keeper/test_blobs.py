from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from aigate.keeper.blobs import LocalBlobs, MissingBlob


async def pieces_of(*pieces: bytes):
    for piece in pieces:
        yield piece


async def read(blobs: LocalBlobs, key: str, *bounds: int) -> bytes:
    return b"".join([piece async for piece in await blobs.open(key, *bounds)])


def test_a_blob_is_read_whole_and_in_ranges(tmp_path: Path) -> None:
    async def test() -> None:
        blobs = LocalBlobs(tmp_path)
        assert await blobs.put("uploads/file-1", pieces_of(b"0123", b"4567", b"89")) == 10
        assert await read(blobs, "uploads/file-1") == b"0123456789"
        assert await read(blobs, "uploads/file-1", 3, 7) == b"3456"
        assert await read(blobs, "uploads/file-1", 8) == b"89"
        await blobs.put("uploads/file-1", pieces_of(b"other"))
        assert await read(blobs, "uploads/file-1") == b"other"
        await blobs.delete("uploads/file-1")
        await blobs.delete("uploads/file-1")
        with pytest.raises(MissingBlob):
            await blobs.open("uploads/file-1")

    asyncio.run(test())


def test_a_blob_that_does_not_come_whole_is_not_there(tmp_path: Path) -> None:
    async def broken():
        yield b"half"
        raise ConnectionError

    async def test() -> None:
        blobs = LocalBlobs(tmp_path)
        with pytest.raises(ConnectionError):
            await blobs.put("a", broken())
        with pytest.raises(MissingBlob):
            await blobs.open("a")
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []

    asyncio.run(test())


def test_what_a_killed_process_left_is_cleared(tmp_path: Path) -> None:
    async def forever():
        yield b"half"
        await asyncio.Event().wait()

    async def test() -> None:
        blobs = LocalBlobs(tmp_path)
        putting = asyncio.create_task(blobs.put("a", forever()))
        while not [path for path in tmp_path.rglob("*") if path.is_file()]:
            await asyncio.sleep(0.005)
        LocalBlobs(tmp_path).clear_drafts()  # as the next process does
        assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
        putting.cancel()

    asyncio.run(test())


def test_a_file_is_taken_over_once(tmp_path: Path) -> None:
    async def test() -> None:
        blobs = LocalBlobs(tmp_path / "blobs")
        (tmp_path / "made").write_bytes(b"made here")
        assert await blobs.put_file("a/b", tmp_path / "made") == 9
        assert await blobs.put_file("a/b", tmp_path / "made") == 9  # again, after a crash that forgot the first time
        assert await read(blobs, "a/b") == b"made here"
        assert not (tmp_path / "made").exists()

    asyncio.run(test())


@pytest.mark.parametrize("key", ["../a", "/a", "a/../b", "a//b", "", ".drafts/a", "a/", "a\n"])
def test_a_key_stays_in_its_folder(tmp_path: Path, key: str) -> None:
    with pytest.raises(ValueError, match="is no key"):
        asyncio.run(LocalBlobs(tmp_path).open(key))
