"""Every order of events in small worlds: breadth first, each state once. What must hold is in world.py and is checked after every step;
from every state without a way on, all comes to rest and nothing may have leaked."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import msgspec
import pytest

from tests.money.world import HELD, SENT, World

Step = tuple[str, *tuple[object, ...]]


class Plan(msgspec.Struct, frozen=True):
    """What may happen, and how often at most. Attempts are (worker, path, amount, floor)."""

    limits: dict[int, int | None]
    attempts: tuple[tuple[int, tuple[int, ...], int, int], ...]
    workers: int = 1
    costs: tuple[int, ...] = (1,)
    crashes: int = 0
    keeper_crashes: int = 0
    new_limits: tuple[tuple[int, int | None], ...] = ()
    months: int = 0
    restores: int = 0
    ships: bool = False
    releases: bool = False  # a hold may end without an intent


ONE, TWO = (1, 2), (1, 3)  # paths: the account's budget and a key's

PLANS = {
    "a worker dies": Plan({1: 3}, ((0, ONE, 2, 2), (0, ONE, 2, 1)), costs=(0, 3), crashes=1, ships=True),
    "the keeper dies": Plan({1: 3, 2: 4}, ((0, ONE, 2, 2), (0, ONE, 2, 1)), keeper_crashes=2),
    "two workers and nobody dies": Plan({1: 4}, ((0, ONE, 2, 2), (1, ONE, 2, 2), (1, ONE, 1, 1)), workers=2),
    "three attempts want the last of it": Plan({1: 4}, ((0, ONE, 2, 2), (0, TWO, 2, 2), (0, ONE, 2, 1)), releases=True),
    "a first limit while calls run": Plan({1: None}, ((0, ONE, 2, 2), (1, TWO, 2, 2)), workers=2, new_limits=((1, 3),)),
    "a first limit and a dying keeper": Plan({1: None}, ((0, ONE, 2, 2), (0, TWO, 2, 2)), new_limits=((1, 3),), keeper_crashes=1),
    "a limit is lowered": Plan({1: 9}, ((0, ONE, 2, 2), (0, ONE, 2, 2)), new_limits=((1, 2),), keeper_crashes=1),
    "a limit goes and comes back": Plan({1: 3}, ((0, ONE, 2, 2), (0, ONE, 2, 2)), new_limits=((1, None), (1, 2))),
    "the month ends": Plan({1: 3, 2: 3}, ((0, ONE, 2, 2), (0, ONE, 2, 1)), months=1, keeper_crashes=1),
    "an older database comes back": Plan({1: 3}, ((0, ONE, 2, 2), (0, ONE, 1, 1)), restores=1, ships=True),
    "an older database comes back to free slices": Plan({1: 40, 3: 20}, ((0, ONE, 2, 2), (0, TWO, 2, 2)), restores=1),
    "an older database comes back and a worker dies": Plan({1: 3}, ((0, ONE, 2, 2),), restores=1, crashes=1),
}


class State:
    """A world and what is still to come in it."""

    def __init__(self, plan: Plan):
        self.world = World(limits=dict(plan.limits), workers=plan.workers)
        self.attempts = list(range(len(plan.attempts)))
        self.left = {"crash": plan.crashes, "crash_keeper": plan.keeper_crashes, "next_month": plan.months, "restore": plan.restores}
        self.new_limits = list(plan.new_limits)
        self.slots = list(self.world.workers)  # who serves as the n-th worker now
        for worker in self.world.workers.values():
            self.world.connect(worker)
        self.world._deliver_all()

    def steps(self, plan: Plan) -> Iterator[Step]:
        world = self.world
        for index in self.attempts[:1] if plan.workers == 1 else self.attempts:
            worker = world.workers.get(self.slots[plan.attempts[index][0]])
            if worker is not None and worker.has_served:
                yield "start", index
        for worker in world.workers.values():
            yield from self._worker_steps(worker.journal_id, plan)
        for index, waiter in enumerate(world.keeper.waiters):
            if not world.is_calm or world.keeper.can_expire(waiter):
                yield "expire", index
        for journal_id in world.dead():
            yield "seal", journal_id
        for name in ("crash_keeper", "next_month"):
            if self.left[name]:
                yield (name,)
        if self.new_limits and world.keeper.is_open:
            yield ("set_limit",)
        if self.left["restore"]:
            yield ("restore",) if world.backup is not None else ("back_up",)

    def _worker_steps(self, journal_id: str, plan: Plan) -> Iterator[Step]:
        worker = self.world.workers[journal_id]
        if not worker.is_connected:
            yield "connect", journal_id
        if worker.inbox:
            yield "to_worker", journal_id
        if worker.outbox:
            yield "to_keeper", journal_id
        if plan.ships and self.world.store.shipped.get(journal_id, 0) < len(self.world.journals[journal_id]):
            yield "ship", journal_id
        if self.left["crash"]:
            yield "crash", journal_id
        for attempt in worker.attempts.values():
            if attempt.state == HELD:
                yield "send", attempt.id
                if plan.releases:
                    yield "release", attempt.id
            elif attempt.state == SENT:
                for cost in plan.costs:
                    yield "settle", attempt.id, cost

    def take(self, step: Step, plan: Plan) -> None:
        world = self.world
        name, *rest = step
        if name == "start":
            self.attempts.remove(rest[0])  # type: ignore[arg-type]
            slot, path, amount, floor = plan.attempts[rest[0]]  # type: ignore[index]
            world.start(world.workers[self.slots[slot]], path, amount, floor=floor)
        elif name in ("connect", "to_worker", "to_keeper"):
            getattr(world, name)(world.workers[rest[0]])
        elif name == "ship":
            world.keeper.ship(rest[0], 1)  # type: ignore[arg-type]
        elif name == "crash":
            self.left[name] -= 1
            world.crash(world.workers[rest[0]])  # type: ignore[index]
            self.slots[self.slots.index(rest[0])] = world.start_worker().journal_id  # type: ignore[arg-type]
        elif name in ("send", "settle", "release"):
            attempt = world.attempts[rest[0]]  # type: ignore[index]
            getattr(world, name)(world.workers[attempt.journal_id], attempt, *rest[1:])
        elif name == "expire":
            world.keeper.expire(world.keeper.waiters[rest[0]])  # type: ignore[index]
        elif name == "seal":
            world.seal(rest[0])  # type: ignore[arg-type]
        elif name == "set_limit":
            world.set_limit(*self.new_limits.pop(0))
        elif name == "back_up":
            world.backup = pickle.loads(pickle.dumps(world.store))
        else:
            self.left[name] -= 1
            getattr(world, name)()
        world.check()


def explore(plan: Plan) -> tuple[int, int]:
    """(states, ends). A state is known by its pickle: the same one reached by another way may count twice, never too little."""
    first = pickle.dumps(State(plan))
    frontier = [first]
    seen = {hash(first)}
    ends = 0
    while frontier:
        following = []
        for frozen in frontier:
            state = pickle.loads(frozen)
            steps = list(state.steps(plan))
            for place, step in enumerate(steps):
                if place:
                    state = pickle.loads(frozen)
                state.take(step, plan)
                reached = pickle.dumps(state)
                if hash(reached) not in seen:
                    seen.add(hash(reached))
                    following.append(reached)
            if not steps:
                ends += 1
                state.world.come_to_rest()
        frontier = following
    return len(seen), ends


@pytest.mark.parametrize("name", PLANS)
def test_every_order_of_events_keeps_the_rules(name: str) -> None:
    states, ends = explore(PLANS[name])
    assert states > 500 and ends > 10
