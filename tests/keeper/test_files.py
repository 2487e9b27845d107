from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest

from aigate.core.account import SubAccount
from aigate.core.file import FileFields, Listing
from aigate.errors import ClientError
from aigate.keeper.blobs import LocalBlobs
from aigate.keeper.db.engine import Database
from aigate.keeper.db.sub_accounts import add_sub_account, delete_sub_account
from aigate.keeper.files import FileStore

OWNER, OTHER = ("acc_default", "key_1"), ("acc_default", "sa_1")


async def pieces_of(*pieces: bytes):
    for piece in pieces:
        yield piece


def store(database: Database, folder: Path, **limits: int) -> FileStore:
    return FileStore(database, LocalBlobs(folder / "files"), **{"max_bytes": 100, "max_tenant_bytes": 250, **limits})


def named(name: str, **fields: object):
    return lambda: FileFields(name, **fields)


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "files").rglob("*") if path.is_file())


@contextlib.asynccontextmanager
async def swept(files: FileStore):
    sweeping = asyncio.create_task(files.sweep())
    yield
    sweeping.cancel()


def test_files_are_listed_by_age_for_their_owner_alone(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        files = store(database, tmp_path)
        added = [await files.add(OWNER, pieces_of(b"a" * (n + 1)), named(f"{n}.jsonl", purpose="batch" if n % 2 else "vision")) for n in range(5)]
        await files.add(OTHER, pieces_of(b"theirs"), named("x"))
        ids = [each.id for each in added]
        assert [each.id for each in await files.list(OWNER, Listing(10), None)] == ids[::-1]
        assert [each.id for each in await files.list(OWNER, Listing(2, after=ids[1], is_oldest_first=True), None)] == ids[2:4]
        assert [each.id for each in await files.list(OWNER, Listing(10, after=ids[3]), "vision")] == [ids[2], ids[0]]
        assert (await files.get(OWNER, ids[2])).size_bytes == 3
        assert await files.get(OTHER, ids[2]) is None and not await files.delete(OTHER, ids[2])
        assert b"".join([piece async for piece in await files.read(ids[4], 1, 3)]) == b"aa"

    asyncio.run(test())


def test_a_deleted_or_expired_file_is_gone_and_its_bytes_soon_after(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        files = store(database, tmp_path)
        kept, deleted, expired = [await files.add(OWNER, pieces_of(b"x"), named("x", life_s=life)) for life in (None, None, 0)]
        assert await files.get(OWNER, expired.id) is None
        async with swept(files):
            assert await files.delete(OWNER, deleted.id)
            assert await files.get(OWNER, deleted.id) is None and not await files.delete(OWNER, deleted.id)
            while on_disk(tmp_path) != [kept.id]:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(test(), 10))


def test_the_files_of_a_deleted_sub_account_go_with_it(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        files = store(database, tmp_path)
        kept, gone = await files.add(OWNER, pieces_of(b"x"), named("x")), await files.add(OTHER, pieces_of(b"x"), named("x"))
        await database.write(add_sub_account, SubAccount(id="sa_1", account_id="acc_default", name="a", created_ms=1))
        await database.write(delete_sub_account, "acc_default", "sa_1", 5)
        async with swept(files):
            while on_disk(tmp_path) != [kept.id] or await files.get(OTHER, gone.id) is not None:
                await asyncio.sleep(0.005)

    asyncio.run(asyncio.wait_for(test(), 10))


def test_a_file_over_a_limit_leaves_nothing(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        files = store(database, tmp_path)
        with pytest.raises(ClientError, match="more than 100 bytes") as refused:
            await files.add(OWNER, pieces_of(b"x" * 60, b"x" * 60), named("x"))
        assert refused.value.status == 413
        for _ in range(2):
            await files.add(OWNER, pieces_of(b"x" * 100), named("x"))
        with pytest.raises(ClientError, match="250 bytes together, and 200 are taken"):
            await files.add(OWNER, pieces_of(b"x" * 60), named("x"))
        await files.add(OTHER, pieces_of(b"x" * 100), named("x"))
        assert len(await files.list(OWNER, Listing(9), None)) == 2 and len(on_disk(tmp_path)) == 3

    asyncio.run(test())


def test_uploads_at_the_same_time_do_not_pass_the_limit_together(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        files = store(database, tmp_path)
        done = await asyncio.gather(*[files.add(OWNER, pieces_of(b"x" * 100), named("x")) for _ in range(5)], return_exceptions=True)
        assert sum(isinstance(each, ClientError) for each in done) == 3
        assert len(on_disk(tmp_path)) == 2

    asyncio.run(test())


def test_an_upload_that_is_refused_or_broken_off_leaves_nothing(database: Database, tmp_path: Path) -> None:
    def refuse() -> FileFields:
        raise ClientError("purpose: no")

    async def broken():
        yield b"half"
        raise ClientError("The upload ended")

    async def test() -> None:
        files = store(database, tmp_path)
        for pieces, describe in ((pieces_of(b"x"), refuse), (broken(), named("x")), (pieces_of(), named("x"))):
            with pytest.raises(ClientError):
                await files.add(OWNER, pieces, describe)
        assert on_disk(tmp_path) == [] and await files.list(OWNER, Listing(9), None) == []

    asyncio.run(test())
