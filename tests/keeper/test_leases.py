"""Grants, recalls and limits between the keeper's desk and workers with real wallets and journals, over a real socket."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import text

from aigate.core.account import HARD
from aigate.core.budget import Want
from aigate.core.wallet import Hold
from aigate.keeper.db.tables import grants, leases, outbox
from aigate.messages import Grant, Granted, Recall, Refused
from tests.keeper.money_worker import ACCOUNT, MoneyWorker
from tests.keeper.money_world import KEY, SUB, TAG, Run, World, until

# --- grants -----------------------------------------------------------------------------------------------------------------------


def test_a_hold_is_granted_spent_and_what_it_leaves_goes_back(run: Run) -> None:
    async def test(world: World) -> None:
        key, account = world.limit(KEY, 1_000_000), world.limit(ACCOUNT, 5_000_000)
        worker = await world.worker()
        hold = await worker.hold((account, key), 1000, (ACCOUNT, KEY))
        assert isinstance(hold, Hold)
        assert world.standing(KEY).leased >= 1000 <= world.standing(ACCOUNT).leased
        worker.settle(hold, 700)
        await world.desk.look_and_ship()
        assert (world.standing(KEY).spent, world.standing(ACCOUNT).spent) == (700, 700)
        await world.rest()
        assert [tuple(world.standing(owner))[1:] for owner in (KEY, ACCOUNT)] == [(700, 0, 0)] * 2

    run(test)


def test_grants_that_arrive_together_share_a_transaction(run: Run) -> None:
    async def test(world: World) -> None:
        budgets = [world.limit(("key", "acc_1", f"key_{n}"), 1_000_000) for n in range(100)]
        worker = await world.worker()
        rounds = world.desk.rounds
        holds = await asyncio.gather(*(worker.hold((budget,), 10) for budget in budgets))
        assert all(isinstance(hold, Hold) for hold in holds)
        assert world.desk.rounds - rounds <= 3

    run(test)


def test_a_repeated_ask_gets_the_first_answer_and_leases_nothing_more(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1_000_000)
        worker = await world.worker()
        for _ in range(3):
            worker.send(Grant(7, (Want(budget, 10, 10),)))
            await until(lambda: any(isinstance(message, Granted) for message in worker.heard))
        await until(lambda: sum(isinstance(message, Granted) for message in worker.heard) == 3)
        first, *others = [message for message in worker.heard if isinstance(message, Granted)]
        assert others == [first, first] and world.standing(KEY).leased == 10
        worker.send(Grant(8, (Want(budget, 10, 10),), answered=7))
        await until(lambda: sum(isinstance(message, Granted) for message in worker.heard) == 4)
        assert [row.number for row in world.rows(grants)] == [8]

    run(test)


def test_a_hold_over_the_limit_is_refused_at_once_with_the_figures(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(SUB, 1000)
        worker = await world.worker()
        hold = await worker.hold((budget,), 990, (ACCOUNT, SUB))
        assert isinstance(hold, Hold)
        worker.settle(hold, 980)
        await world.desk.look_and_ship()
        refused = await worker.hold((budget,), 30, (ACCOUNT, SUB))
        assert isinstance(refused, Refused)
        assert (refused.reason, refused.scope, refused.limit, refused.spent) == ("over", "sub_account", 1000, 980)
        assert refused.available == 20 and refused.resets_at == 1_701_388_800.0 and refused.retry_after_s is None
        types = {row.type for row in world.rows(outbox)}
        assert types == {"usage.threshold", "sub_account.budget.exhausted"}

    run(test)


def test_a_hard_budget_offers_nothing_to_clamp_to_and_a_balance_never_resets(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(ACCOUNT, 1000, HARD)
        refused = await (await world.worker()).hold((budget,), 1001)
        assert isinstance(refused, Refused) and (refused.available, refused.resets_at, refused.scope) == (0, None, "account")

    run(test)


def test_several_budgets_are_granted_together_or_not_at_all(run: Run) -> None:
    async def test(world: World) -> None:
        key, account = world.limit(KEY, 1000), world.limit(ACCOUNT, 100)
        refused = await (await world.worker()).hold((account, key), 101, (ACCOUNT, KEY))
        assert isinstance(refused, Refused) and refused.budget_id == account
        assert world.standing(KEY).leased == world.standing(ACCOUNT).leased == 0

    run(test)


def test_a_budget_nobody_knows_or_a_journal_that_has_ended_gets_no_lease(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        worker = await world.worker()
        unknown = await worker.hold((999,), 1)
        assert isinstance(unknown, Refused) and unknown.reason == "unavailable"
        worker.journal.close()
        await world.desk.look_and_ship()
        worker.send(Grant(50, (Want(budget, 1, 1),)))
        await until(lambda: any(isinstance(m, Refused) and m.number == 50 for m in worker.heard))
        assert world.rows(leases) == []

    run(test)


def test_while_the_database_is_away_the_answer_is_that_nobody_can_say(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        worker = await world.worker()
        world.database.write_now(lambda connection: connection.execute(text("ALTER TABLE grants RENAME TO gone")))
        refused = await worker.hold((budget,), 1)
        assert isinstance(refused, Refused) and refused.reason == "unavailable"
        world.database.write_now(lambda connection: connection.execute(text("ALTER TABLE gone RENAME TO grants")))
        assert isinstance(await worker.hold((budget,), 1), Hold)

    run(test)


# --- shortage -----------------------------------------------------------------------------------------------------------------------


def test_unused_lease_of_another_worker_is_brought_back_before_anybody_is_refused(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        first, second = await world.worker(), await world.worker()
        hold = await first.hold((budget,), 100)
        assert isinstance(hold, Hold)
        first.settle(hold, 100)
        assert world.standing(KEY).leased > 100  # the first keeps some for calls to come
        assert isinstance(await second.hold((budget,), 900), Hold)
        await world.desk.look_and_ship()
        assert (world.standing(KEY).spent, world.standing(KEY).leased) == (100, 900)

    run(test)


def test_what_others_running_calls_hold_is_waited_for_and_then_refused(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        first, second = await world.worker(), await world.worker()
        hold = await first.hold((budget,), 900)
        assert isinstance(hold, Hold)
        refused = await second.hold((budget,), 200)
        assert isinstance(refused, Refused) and refused.reason == "leased" and refused.retry_after_s and refused.available == 100
        waiting = asyncio.create_task(second.hold((budget,), 200))
        await until(lambda: any(isinstance(message, Recall) for message in first.heard))
        first.settle(hold, 300)
        assert isinstance(await waiting, Hold)

    run(test)


def test_a_worker_that_does_not_answer_a_recall_makes_it_unknown_not_refused(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        first, second = await world.worker(), await world.worker()
        assert isinstance(await first.hold((budget,), 900), Hold)
        first.is_mute = True
        refused = await second.hold((budget,), 200)
        assert isinstance(refused, Refused) and refused.reason == "unavailable"

    run(test)


def test_a_large_hold_that_waits_is_not_overtaken_by_small_ones(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1000)
        first, second = await world.worker(), await world.worker()
        hold = await first.hold((budget,), 900)
        assert isinstance(hold, Hold)
        large = asyncio.create_task(second.hold((budget,), 500))
        await until(lambda: any(isinstance(message, Recall) for message in first.heard))
        small = asyncio.create_task(first.hold((budget,), 100))
        first.settle(hold, 400)
        assert isinstance(await large, Hold) and isinstance(await small, Hold)

    run(test)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_cap_is_spent_to_its_end_and_never_past_it(run: Run, workers: int) -> None:
    async def test(world: World) -> None:
        limit = 100_000
        budget = world.limit(KEY, limit)
        crew = [await world.worker() for _ in range(workers)]
        held = spent = 0

        async def call(worker: MoneyWorker) -> None:
            nonlocal held, spent
            while True:
                hold = await worker.hold((budget,), 1000, (ACCOUNT, KEY))
                if isinstance(hold, Refused):
                    return
                held += 1000
                assert spent + held <= limit
                await asyncio.sleep(0)
                held -= 1000
                spent += 600
                worker.settle(hold, 600)

        await asyncio.gather(*(call(worker) for worker in crew for _ in range(5)))
        assert spent >= 0.95 * limit
        await world.rest()
        assert world.standing(KEY).spent == spent

    run(test)


# --- limits that change ---------------------------------------------------------------------------------------------------------------


def test_a_first_limit_counts_what_was_spent_and_what_runs(run: Run) -> None:
    async def test(world: World) -> None:
        first, second = await world.worker(), await world.worker()
        first.settle(first.start(500, (ACCOUNT, TAG)), 400)
        running = first.start(300, (ACCOUNT, TAG))
        budget = world.limit(TAG, 1000, is_new=False)
        assert await world.desk.leases.announce_limits()
        assert (world.standing(TAG).spent, world.standing(TAG).leased) == (400, 300)
        assert second.wallet.limits == {TAG: budget}
        refused = await second.hold((), 400, (ACCOUNT, TAG))  # its key knows nothing of the tag's limit
        assert isinstance(refused, Refused) and refused.available == 300
        first.settle(running, 100)
        assert isinstance(await second.hold((), 400, (ACCOUNT, TAG)), Hold)

    run(test)


def test_a_lowered_limit_is_in_force_when_unused_lease_has_come_back(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(KEY, 1_000_000)
        worker = await world.worker()
        hold = await worker.hold((budget,), 100)
        assert isinstance(hold, Hold) and world.standing(KEY).leased > 100
        world.limit(KEY, 150, is_new=False)
        assert await world.desk.leases.announce_limits()
        assert world.standing(KEY).leased == 100
        assert isinstance(await worker.hold((budget,), 51), Refused)
        worker.settle(hold, 100)

    run(test)


def test_a_raised_limit_needs_no_worker_and_a_removed_one_ends(run: Run) -> None:
    async def test(world: World) -> None:
        budget = world.limit(TAG, 100, is_new=False)
        worker = await world.worker()
        assert isinstance(await worker.hold((), 101, (ACCOUNT, TAG)), Refused)
        worker.is_mute = True
        world.limit(TAG, 200, is_new=False)
        assert await world.desk.leases.announce_limits()
        worker.is_mute = False
        assert isinstance(await worker.hold((budget,), 101, (ACCOUNT, TAG)), Hold)
        world.limit(TAG, None, is_new=False)
        assert await world.desk.leases.announce_limits()
        assert worker.wallet.limits == {}

    run(test)


def test_a_limit_is_not_in_force_while_a_worker_has_not_heard_and_nothing_is_granted_on_it(run: Run) -> None:
    async def test(world: World) -> None:
        worker, mute = await world.worker(), await world.worker()
        mute.is_mute = True
        budget = world.limit(KEY, 1000, is_new=False)
        assert not await world.desk.leases.announce_limits(timeout_s=0.05)
        refused = await worker.hold((budget,), 10)
        assert isinstance(refused, Refused) and refused.reason == "unavailable"
        await mute.die()
        await world.desk.look_and_ship()
        while isinstance(refused, Refused):
            refused = await worker.hold((budget,), 10)

    run(test)


def test_a_worker_that_was_away_hears_of_limits_before_it_is_welcome(run: Run) -> None:
    async def test(world: World) -> None:
        worker = await world.worker()
        world.limit(TAG, 1000, is_new=False)
        assert await world.desk.leases.announce_limits()
        await worker.disconnect()
        running = worker.start(300, (ACCOUNT, ("tag", "acc_1", "autumn")))
        autumn = world.limit(("tag", "acc_1", "autumn"), 1000, is_new=False)
        assert not await world.desk.leases.announce_limits(timeout_s=0.05)
        await worker.connect(world.socket)
        assert worker.wallet.limits[("tag", "acc_1", "autumn")] == autumn
        assert world.standing(("tag", "acc_1", "autumn")).leased == 300
        worker.settle(running, 1)

    run(test)


def test_the_very_first_limit_of_all_reaches_a_worker_that_was_away(run: Run) -> None:
    async def test(world: World) -> None:
        worker = await world.worker()
        await worker.disconnect()
        running = worker.start(300, (ACCOUNT, KEY))
        world.limit(KEY, 1000, is_new=False)
        assert not await world.desk.leases.announce_limits(timeout_s=0.05)
        await worker.connect(world.socket)
        assert world.standing(KEY).leased == 300
        worker.settle(running, 1)

    run(test)


def test_a_repeated_ask_keeps_its_grant_while_the_limit_changes(run: Run) -> None:
    async def test(world: World) -> None:
        worker, mute = await world.worker(), await world.worker()
        budget = world.limit(KEY, 1000)
        held = await worker.hold((budget,), 10)
        assert isinstance(held, Hold)
        first = next(m for m in worker.heard if isinstance(m, Granted))
        mute.is_mute = True
        world.limit(KEY, 900, is_new=False)
        assert not await world.desk.leases.announce_limits(timeout_s=0.05)
        worker.heard.clear()
        worker.send(Grant(first.number, (Want(budget, 10, 10),)))  # as if the answer had been lost
        await until(lambda: any(isinstance(m, Granted | Refused) for m in worker.heard))
        assert first in worker.heard
        worker.settle(held, 10)

    run(test)
