"""The desk for leases when something ends: a month, a worker, a keeper, or what a database knows."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from sqlalchemy import text

from aigate.core.wallet import Hold
from aigate.keeper.db.engine import Database
from aigate.messages import Recall, Refused, Welcome
from tests.keeper.money_worker import ACCOUNT, Desk, MoneyWorker
from tests.keeper.money_world import KEY, TAG, Run, World, until


def test_leases_of_a_month_that_has_ended_go_back(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1_000_000)
        worker = await world.worker()
        hold = await worker.hold((budget,), 100)
        assert isinstance(hold, Hold) and hold.window == "2023-11"
        world.desk.month = "2023-12"
        await until(lambda: _has_heard_december(worker))
        later = await worker.hold((budget,), 100)
        assert isinstance(later, Hold) and later.window == "2023-12"
        worker.settle(hold, 60)
        await world.desk.look_and_ship()
        assert (world.standing(KEY).spent, world.standing(KEY).leased) == (60, 0)

    run(test)


def _has_heard_december(worker: MoneyWorker) -> bool:
    return any(isinstance(m, Recall) and m.before == "2023-12" for m in worker.heard)


def test_nothing_is_granted_before_it_is_known_which_month_is_to_end(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        world = World(database, tmp_path)
        budget = world.limit(KEY, 1000)
        world.desk.may_look.clear()
        async with world.desk.serving():
            worker = await world.worker()
            waiting = asyncio.create_task(worker.hold((budget,), 100))
            done, _ = await asyncio.wait((waiting,), timeout=0.2)
            world.desk.may_look.set()
            assert not done and isinstance(await waiting, Hold)
            world.desk.month = "2023-12"
            await until(lambda: _has_heard_december(worker))
            await world.rest()

    asyncio.run(asyncio.wait_for(test(), 30))


def test_leases_of_a_month_that_ended_while_no_keeper_ran_go_back(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        world = World(database, tmp_path)
        budget = world.limit(KEY, 1000)
        async with world.desk.serving():
            worker = await world.worker()
            worker.settle(await worker.hold((budget,), 100), 60)
        await worker.disconnect()
        desk = world.desk = Desk(database, world.folder, world.socket)
        desk.month = "2023-12"
        async with desk.serving():
            await worker.connect(world.socket)
            await until(lambda: _has_heard_december(worker))
            await desk.look_and_ship()
            assert (world.standing(KEY).spent, world.standing(KEY).leased) == (60, 0)
            await world.rest()

    asyncio.run(asyncio.wait_for(test(), 30))


def test_what_a_killed_worker_had_sent_is_reserved_and_the_rest_comes_back(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        worker, other = await world.worker(), await world.worker()
        assert isinstance(await worker.hold((budget,), 100, (ACCOUNT, KEY)), Hold)
        await worker.die()
        await world.desk.look_and_ship()
        assert (world.standing(KEY).reserved, world.standing(KEY).leased, world.standing(ACCOUNT).reserved) == (100, 0, 100)
        assert isinstance(await other.hold((budget,), 901), Refused)
        assert isinstance(await other.hold((budget,), 900), Hold)

    run(test)


def test_a_new_keeper_grants_nothing_before_every_journal_is_heard(database: Database, tmp_path: Path) -> None:
    async def test() -> None:
        world = World(database, tmp_path)
        budget = world.limit(KEY, 1000)
        async with world.desk.serving():
            one, two = await world.worker(), await world.worker()
            hold = await two.hold((budget,), 100)
        assert isinstance(hold, Hold)
        two.settle(hold, 100)
        await one.disconnect()
        await two.disconnect()
        desk = world.desk = Desk(database, world.folder, world.socket)
        async with desk.serving():
            await one.connect(world.socket)
            waiting = asyncio.create_task(one.hold((budget,), 900))
            done, _ = await asyncio.wait((waiting,), timeout=0.1)
            assert not done and not await desk.leases.is_open(timeout_s=0.01)
            opening = asyncio.create_task(desk.leases.is_open(timeout_s=10))
            await two.connect(world.socket)
            assert isinstance(await waiting, Hold) and await opening
            await world.rest()

    asyncio.run(asyncio.wait_for(test(), 30))


def test_a_database_that_is_older_than_the_leases_learns_them_again(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        worker = await world.worker()
        hold = await worker.hold((budget,), 100, (ACCOUNT, KEY))
        assert isinstance(hold, Hold)
        await worker.disconnect()

        def forget(connection: Any) -> None:  # as if the backup had been made before the grant
            for statement in (
                "DELETE FROM leases",
                "DELETE FROM grants",
                "UPDATE windows SET leased_nanousd = 0",
                "UPDATE meta SET value = '0' WHERE name = 'grant_seq'",
            ):
                connection.execute(text(statement))

        world.database.write_now(forget)
        await worker.connect(world.socket)
        assert Welcome(is_restored=True) in worker.heard
        assert world.standing(KEY).leased == 100
        refused = await worker.hold((budget,), 901)
        assert isinstance(refused, Refused) and refused.reason == "leased"
        worker.settle(hold, 40)
        assert isinstance(await worker.hold((budget,), 901), Hold)

    run(test)


def test_a_database_that_is_older_than_the_limits_is_told_what_runs(run: Run) -> None:
    async def test(world: World) -> None:
        worker = await world.worker()
        world.limit(TAG, 1000, is_new=False)
        assert await world.desk.leases.announce_limits()
        running = worker.start(300, (ACCOUNT, KEY))
        await worker.disconnect()
        restored = "UPDATE meta SET value = '1' WHERE name = 'limits_version'"
        world.database.write_now(lambda connection: connection.execute(text(restored)))
        await worker.connect(world.socket)
        assert Welcome(is_restored=True) in worker.heard
        worker.settle(running, 40)

    run(test)
