from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import select

from aigate.core.batch import CANCELLED, COMPLETED, IN_PROGRESS, VALIDATING, Batch, BatchUsage, NewBatch
from aigate.core.file import Listing
from aigate.errors import ClientError
from aigate.keeper.batches.desk import BatchDesk
from aigate.keeper.db.engine import Database
from aigate.keeper.db.tables import outbox
from tests.keeper.batches.world import CHAT, OWNER, BatchWorld, line

OTHER = ("acc_default", "sa_1")


def play(database: Database, tmp_path: Path, test: Callable[[BatchWorld], Awaitable[None]]) -> None:
    async def main() -> None:
        await test(BatchWorld(database, tmp_path))

    asyncio.run(asyncio.wait_for(main(), 30))


@contextlib.asynccontextmanager
async def running(desk: BatchDesk) -> AsyncIterator[BatchDesk]:
    task = asyncio.create_task(desk.run())
    yield desk
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def ended(desk: BatchDesk, batch: Batch) -> Batch:
    while (found := await desk.get(OWNER, batch.id)).ended_ms is None:
        await asyncio.sleep(0.005)
    return found


async def made(world: BatchWorld, desk: BatchDesk, *lines: bytes) -> Batch:
    batch = await desk.add(OWNER, "key_1", NewBatch(input_file_id=await world.upload(*lines), endpoint=CHAT, metadata={"a": "b"}))
    assert batch is not None
    return batch


def test_a_batch_ends_with_its_files_and_one_event(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        async with running(world.desk()) as desk:
            batch = await made(world, desk, line("a", name="a"), line("b", do=[400]), line("c", name="c"))
            assert (batch.status, batch.total) == (VALIDATING, 3)
            done = await ended(desk, batch)
            assert (done.status, done.completed, done.failed, done.usage) == (COMPLETED, 2, 1, BatchUsage())
            texts = {}
            for kind, file_id in (("output", done.output_file_id), ("errors", done.error_file_id)):
                file = await world.files.get(OWNER, file_id)
                assert (file.purpose, file.filename) == ("batch_output", f"{batch.id}_{kind}.jsonl")
                text = b"".join([piece async for piece in await world.files.read(file_id)])
                assert file.size_bytes == len(text)
                texts[kind] = {json.loads(each)["custom_id"] for each in text.splitlines()}
            assert texts == {"output": {"a", "c"}, "errors": {"b"}}
            events = await database.read(lambda connection: connection.execute(select(outbox)).all())
            assert [(event.type, event.key_id, event.sub_account_id, event.subject) for event in events] == [("batch.completed", "key_1", None, batch.id)]
            assert json.loads(events[0].payload)["output_file_id"] == done.output_file_id
            while list((tmp_path / "spool").iterdir()):
                await asyncio.sleep(0.005)

    play(database, tmp_path, test)


def test_a_desk_goes_on_with_what_the_one_before_left(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.plane.gate.clear()
        async with running(world.desk(at_once=1)) as desk:
            batches = [await made(world, desk, *[line(str(n)) for n in range(30)]) for _ in range(2)]
            while len(world.plane.running) < 4:
                await asyncio.sleep(0.005)
        assert [(await desk.get(OWNER, each.id)).status for each in batches] == [IN_PROGRESS, VALIDATING]
        world.plane.gate.set()
        async with running(world.desk()) as desk:
            assert [(await ended(desk, each)).completed for each in batches] == [30, 30]
        assert set(world.plane.seen.values()) == {1}

    play(database, tmp_path, test)


def test_a_batch_that_waits_for_its_turn_is_cancelled_at_once(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.plane.gate.clear()
        async with running(world.desk(at_once=1)) as desk:
            first, second = [await made(world, desk, *[line(str(n)) for n in range(30)]) for _ in range(2)]
            while len(world.plane.running) < 4:
                await asyncio.sleep(0.005)
            await desk.cancel(OWNER, second.id)
            done = await ended(desk, second)
            assert (done.status, done.output_file_id, done.error_file_id) == (CANCELLED, None, None)
            await desk.cancel(OWNER, first.id)
            world.plane.gate.set()
            done = await ended(desk, first)
            assert done.status == CANCELLED and 4 <= done.completed < 30 and done.cancelling_ms
            assert await desk.cancel(OWNER, first.id) == done  # again: nothing changes

    play(database, tmp_path, test)


def test_batches_are_their_owners_alone(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        async with running(world.desk()) as desk:
            batches = [await made(world, desk, line("a")) for _ in range(3)]
            assert [each.id for each in await desk.list(OWNER, Listing(2))] == [batches[2].id, batches[1].id]
            assert [each.id for each in await desk.list(OWNER, Listing(9, after=batches[1].id))] == [batches[0].id]
            assert await desk.list(OTHER, Listing(9)) == []
            assert await desk.get(OTHER, batches[0].id) is None and await desk.cancel(OTHER, batches[0].id) is None
            assert await desk.add(OTHER, "key_2", NewBatch(input_file_id=batches[0].input_file_id, endpoint=CHAT)) is None

    play(database, tmp_path, test)


def test_an_input_that_no_batch_can_be_made_of_makes_none(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        async with running(world.desk(max_lines=2)) as desk:
            with pytest.raises(ClientError, match="the custom_id 'a' of line 2 is that of line 1"):
                await made(world, desk, line("a"), line("a"))
            with pytest.raises(ClientError, match="more than 2 lines"):
                await made(world, desk, line("a"), line("b"), line("c"))
            assert await desk.list(OWNER, Listing(9)) == []

    play(database, tmp_path, test)


def test_an_input_that_was_deleted_is_still_read_by_its_batch(database: Database, tmp_path: Path) -> None:
    async def test(world: BatchWorld) -> None:
        world.plane.gate.clear()
        sweeping = asyncio.create_task(world.files.sweep())
        async with running(world.desk()) as desk:
            batch = await made(world, desk, *[line(str(n)) for n in range(900)])
            assert await world.files.delete(OWNER, batch.input_file_id)
            while len(world.plane.running) < 4:
                await asyncio.sleep(0.005)
        world.plane.gate.set()
        async with running(world.desk()) as desk:  # it opens the file again
            assert (await ended(desk, batch)).completed == 900
        sweeping.cancel()

    play(database, tmp_path, test)
