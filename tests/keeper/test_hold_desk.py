"""Holds of the keeper's own work beside workers that have leased of the same budgets, over the real desk and both databases."""

from __future__ import annotations

from functools import partial

import pytest
from msgspec.structs import replace

from aigate.core.wallet import Hold
from aigate.errors import ClientError, GatewayError
from aigate.journal.records import CallEnd, Intent, Settled
from aigate.keeper.db.holds import reserve, settle_reserved
from aigate.keeper.db.tables import attempts, calls, outbox
from aigate.keeper.db.upkeep import resolve_attempt
from aigate.keeper.hold_desk import HoldDesk
from tests.keeper.money_worker import ACCOUNT, SENT_MS
from tests.keeper.money_world import KEY, SUB, Run, World

OWNERS = [ACCOUNT, SUB, KEY]
INTENT = Intent("att_j", "req_j", 1, SENT_MS, "m", "m/clip", 900, "", "acc_1", "key_1", "sa_1", None, "2023-11")


def intent(number: int, hold: int = 900) -> Intent:
    return replace(INTENT, attempt_id=f"att_{number}", call_id=f"req_{number}", hold_nanousd=hold)


def settled(number: int, cost: int) -> Settled:
    call = CallEnd(f"req_{number}", "jobs", "video", "m/clip", "m/clip", 200, SENT_MS, 1, -1, False, 1, cost, "acc_1", "key_1", "sa_1", None, None, "")
    return Settled(f"att_{number}", "complete", "counted", 0, 0, 0, 0, 0, 0, 0, cost, "", 200, "", 1, -1, b"", call)


async def hold(world: World, number: int, amount: int = 900) -> None:
    desk = HoldDesk(world.database, world.desk.leases)
    await desk.write(partial(_reserve, intent(number, amount)), SENT_MS, what="job")


def _reserve(asked: Intent, connection, in_force) -> None:
    reserve(connection, asked, OWNERS, in_force)


def standing(world: World, owner) -> tuple[int, int, int]:
    return tuple(world.standing(owner))[1:]


def test_a_hold_is_reserved_on_its_whole_path_and_spent_once(run: Run) -> None:
    async def test(world: World) -> None:
        for owner in (ACCOUNT, KEY):
            world.limit(owner, 1000)
        await hold(world, 1)
        assert [standing(world, owner) for owner in OWNERS] == [(0, 900, 0)] * 3
        for _ in range(2):
            await world.database.write(settle_reserved, settled(1, 700), SENT_MS)
        assert [standing(world, owner) for owner in OWNERS] == [(700, 0, 0)] * 3
        assert [(row.end, row.reserved_nanousd) for row in world.rows(attempts)] == [("complete", 0)] and len(world.rows(calls)) == 1

    run(test)


def test_what_does_not_fit_is_refused_and_nothing_is_written(run: Run) -> None:
    async def test(world: World) -> None:
        world.limit(SUB, 1000)
        await hold(world, 1)
        with pytest.raises(ClientError, match="this job could cost more") as refused:
            await hold(world, 2)
        assert (refused.value.status, refused.value.extra["scope"], refused.value.extra["reserved_cents"]) == (402, "sub_account", 900 / 10**7)
        assert len(world.rows(attempts)) == 1 and standing(world, SUB) == (0, 900, 0)

    run(test)


def test_leases_that_workers_do_not_use_are_recalled_for_it(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 100_000)
        worker = await world.worker()
        used = await worker.hold((budget,), 1_000, (ACCOUNT, KEY))
        assert isinstance(used, Hold) and world.standing(KEY).leased >= 1_000
        await hold(world, 1, 99_000)
        assert standing(world, KEY) == (0, 99_000, 1_000)
        with pytest.raises(ClientError) as refused:  # the running call is in the way of this one
            await hold(world, 2, 1)
        assert refused.value.status == 402
        worker.settle(used, 10)
        await world.desk.look_and_ship()
        await hold(world, 3, 900)

    run(test)


def test_a_refusal_near_the_end_is_told_as_the_end(run: Run) -> None:
    async def test(world: World) -> None:
        world.limit(SUB, 1000)
        await hold(world, 1, 990)
        with pytest.raises(ClientError):
            await hold(world, 2)
        assert [row.type for row in world.rows(outbox)] == ["sub_account.budget.exhausted"]

    run(test)


def test_nothing_is_held_before_every_worker_knows_a_new_limit(run: Run) -> None:
    async def test(world: World) -> None:
        worker = await world.worker()
        worker.is_mute = True
        world.limit(KEY, 10_000, is_new=False)
        assert not await world.desk.leases.announce_limits(timeout_s=0.05)
        with pytest.raises(GatewayError) as unsure:
            await hold(world, 1)
        assert unsure.value.status == 503 and world.rows(attempts) == []

    run(test)


def test_what_nobody_settles_is_an_operators_to_resolve(run: Run) -> None:
    async def test(world: World) -> None:
        await hold(world, 1)
        assert await world.database.write(resolve_attempt, "att_1", 500, SENT_MS) == 900
        assert standing(world, KEY) == (500, 0, 0)
        assert not await world.database.write(settle_reserved, settled(1, 700), SENT_MS)
        assert standing(world, KEY) == (500, 0, 0)
        assert [row.cost_nanousd for row in world.rows(calls)] == [500]

    run(test)
