"""The model of the money under random histories: many attempts, everything that can go wrong, in any order.

What must hold is in world.py. `Calm` has no crashes, so it also demands that nobody is refused what would fit.
"""

from __future__ import annotations

import copy

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from aigate.core.budget import ALL_TIME, BY_MONTH
from tests.money.store import PATHS
from tests.money.world import FOUND, GONE, HELD, SENT, Attempt, Worker, World

LIMITS = st.sampled_from([None, 5, 10, 20, 60])
BUDGETS = st.sampled_from([1, 2, 3, 4])
PICK = st.integers(0, 5)  # which of what there is


class Calm(RuleBasedStateMachine):
    world: World

    @initialize(limits=st.fixed_dictionaries({b: LIMITS for b in (1, 2, 3, 4)}), workers=st.integers(1, 3), is_prepaid=st.booleans())
    def begin(self, limits: dict[int, int | None], workers: int, is_prepaid: bool) -> None:
        self.world = World(limits=limits, workers=workers, kinds={1: ALL_TIME if is_prepaid else BY_MONTH})
        for worker in self.world.workers.values():
            self.world.connect(worker)
        self.world._deliver_all()

    def worker(self, pick: int) -> Worker | None:
        workers = list(self.world.workers.values())
        return workers[pick % len(workers)] if workers else None

    def attempt(self, pick: int, state: str) -> tuple[Worker, Attempt] | None:
        found = [(worker, a) for worker in self.world.workers.values() for a in worker.attempts.values() if a.state == state]
        return found[pick % len(found)] if found else None

    # --- calls ------------------------------------------------------------------------------------------------------------------

    @rule(pick=PICK, path=st.sampled_from(PATHS), amount=st.sampled_from([0, 1, 2, 3, 5, 8]), floor=st.sampled_from([1, 2, 100]))
    def start(self, pick: int, path: tuple[int, ...], amount: int, floor: int) -> None:
        worker = self.worker(pick)
        if worker is not None and worker.has_served:
            self.world.start(worker, path, amount, floor=floor)

    @rule(pick=PICK)
    def send(self, pick: int) -> None:
        if found := self.attempt(pick, HELD):
            self.world.send(*found)

    @rule(pick=PICK, percent=st.sampled_from([0, 30, 100, 100, 250]))
    def settle(self, pick: int, percent: int) -> None:
        if found := self.attempt(pick, SENT):
            self.world.settle(*found, found[1].amount * percent // 100)

    @rule(pick=PICK)
    def release(self, pick: int) -> None:
        if found := self.attempt(pick, HELD):
            self.world.release(*found)

    @rule(pick=PICK)
    def give_up_waiting(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None and worker.waiting:
            self.world.abandon(worker, min(worker.waiting))

    # --- messages, shipping, time -------------------------------------------------------------------------------------------------

    @rule(pick=PICK, is_all=st.booleans())
    def deliver(self, pick: int, is_all: bool) -> None:
        worker = self.worker(pick)
        while worker is not None and worker.inbox:
            self.world.to_worker(worker)
            if not is_all:
                break

    @rule(pick=PICK, is_all=st.booleans())
    def answer(self, pick: int, is_all: bool) -> None:
        worker = self.worker(pick)
        while worker is not None and worker.outbox:
            self.world.to_keeper(worker)
            if not is_all:
                break

    @rule()
    def deliver_everything(self) -> None:
        self.world._deliver_all()

    @rule(pick=PICK, records=st.sampled_from([1, 2, None]))
    def ship(self, pick: int, records: int | None) -> None:
        journal_ids = list(self.world.journals)
        self.world.keeper.ship(journal_ids[pick % len(journal_ids)], records)

    @rule(pick=PICK)
    def expire(self, pick: int) -> None:
        keeper = self.world.keeper
        waiters = [waiter for waiter in keeper.waiters if not self.world.is_calm or keeper.can_expire(waiter)]
        if waiters:
            keeper.expire(waiters[pick % len(waiters)])

    @rule(pick=PICK, ms=st.sampled_from([1, 100, 60_000]))
    def refill(self, pick: int, ms: int) -> None:
        self.world.now_ms += ms
        worker = self.worker(pick)
        if worker is not None and worker.is_welcome:
            self.world.refill(worker)

    @rule(pick=PICK)
    def sweep(self, pick: int) -> None:
        if (worker := self.worker(pick)) is not None:
            self.world.sweep(worker)

    @rule(budget_id=BUDGETS, limit=LIMITS)
    def change_limit(self, budget_id: int, limit: int | None) -> None:
        self.world.set_limit(budget_id, limit)

    @rule()
    def end_month(self) -> None:
        self.world.next_month()

    @invariant()
    def rules_hold(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.come_to_rest()


class Stormy(Calm):
    """The same with processes that die, connections that break, and a database that is put back to an older state."""

    @rule(pick=PICK)
    def disconnect(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None and worker.is_connected:
            self.world.disconnect(worker)

    @rule(pick=PICK)
    def connect(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None and not worker.is_connected:
            self.world.connect(worker)

    @rule(pick=PICK)
    def look_up(self, pick: int) -> None:
        worker = self.worker(pick)
        if worker is not None and worker.is_connected:
            self.world._send(worker.journal_id, FOUND)

    @rule(pick=PICK, is_replaced=st.booleans())
    def kill_worker(self, pick: int, is_replaced: bool) -> None:
        if (worker := self.worker(pick)) is not None:
            self.world.crash(worker)
            if is_replaced or not self.world.workers:
                self.world.connect(self.world.start_worker())
                self.world._deliver_all()

    @rule(pick=PICK)
    def seal(self, pick: int) -> None:
        if dead := self.world.dead():
            self.world.seal(dead[pick % len(dead)])

    @rule(is_prompt=st.booleans())
    def kill_keeper(self, is_prompt: bool) -> None:
        self.world.crash_keeper()
        self.come_back(is_prompt)

    def come_back(self, is_prompt: bool) -> None:
        """Everybody connects to a new keeper, and what they say first is heard at once or not."""
        for worker in self.world.workers.values():
            self.world.connect(worker)
        if is_prompt:
            self.world._deliver_all()

    @rule()
    def back_up(self) -> None:
        self.world.backup = copy.deepcopy(self.world.store)

    @precondition(lambda self: hasattr(self, "world") and self.world.backup is not None)
    @rule(is_prompt=st.booleans())
    def restore(self, is_prompt: bool) -> None:
        self.world.restore()
        self.come_back(is_prompt)

    @rule(pick=PICK, cost=st.sampled_from([None, 0, 1]))
    def resolve(self, pick: int, cost: int | None) -> None:
        store = self.world.store
        unsettled = [attempt_id for attempt_id, row in store.rows.items() if row.cost is None and not row.is_resolved]
        if unsettled:
            store.resolve(unsettled[pick % len(unsettled)], cost)


_CHECKS = settings(max_examples=150, stateful_step_count=80, deadline=None, suppress_health_check=list(HealthCheck))
TestCalm = Calm.TestCase
TestCalm.settings = _CHECKS
TestStormy = Stormy.TestCase
TestStormy.settings = _CHECKS


def test_a_limit_that_an_older_database_brings_back_counts_what_runs_without_it() -> None:
    world = World(limits={1: 2}, workers=1)
    (worker,) = world.workers.values()
    world.connect(worker)
    world._deliver_all()
    world.backup = copy.deepcopy(world.store)
    world.set_limit(1, None)
    world._send(worker.journal_id, FOUND)
    world._deliver_all()
    world.start(worker, PATHS[0], 2, floor=2)  # no grant: only the version of the limits tells that the database is an older one
    world.restore()
    world.connect(worker)
    world._deliver_all()
    world.start(worker, PATHS[0], 2, floor=2)
    world._deliver_all()
    (waiter,) = world.keeper.waiters
    world.keeper.expire(waiter)
    world._deliver_all()
    assert [attempt.state for attempt in world.attempts.values()] == [HELD, GONE]
    world.come_to_rest()
