"""The model's keeper: what is in its memory, and what it does with a message. The tables are in store.py and survive it.

It has no time: a waiter expires when the test says so, and in a calm run only after its recall has been answered.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from aigate.core.budget import Limit, Over, Short, window_of
from aigate.messages import Ack, Grant, Granted, Hello, Limits, Message, Recall, Refused, Welcome
from tests.money.store import OWNERS, Records, Store, month_of


class Waiter(msgspec.Struct):
    journal_id: str
    grant: Grant
    awaits: set[int]  # recalls not answered yet


class Keeper:
    """`send(journal id, message)` reaches a connected worker. `unheard`: journals that were there when it started and have neither
    said all they know nor been sealed; until then nothing is granted and no limit changes (a restored database would not know of their
    leases and limits, and must not count on past them)."""

    def __init__(self, store: Store, journals: dict[str, Records], send: Callable[[str, Message], None]):
        self.store = store
        self.journals = journals
        self.send = send
        self.month = 1
        self.connected: list[str] = []
        self.registered: set[str] = set()
        self.unheard = {journal_id for journal_id in journals if journal_id not in store.sealed}
        self.waiters: list[Waiter] = []
        self.settling: dict[int, tuple[int, set[str]]] = {}  # budget → its version, journals where that is not in force
        self.pushed: dict[int, tuple[str, str, int]] = {}  # number → journal, what it acknowledges (hello, limits, recall), limits version
        self.number = 0

    @property
    def is_open(self) -> bool:
        return not self.unheard

    def is_settling(self, budget_id: int) -> bool:
        return bool(self.settling.get(budget_id, (0, ()))[1])

    # --- messages -------------------------------------------------------------------------------------------------------------

    def handle(self, journal_id: str, message: Message) -> None:
        if isinstance(message, Hello):
            self._greet(journal_id, message)
        elif isinstance(message, Ack):
            self._acknowledged(journal_id, message.number)
        elif isinstance(message, Grant) and (journal_id, message.number) in self.store.grants:
            self.send(journal_id, self.store.grants[journal_id, message.number])  # a repeat, whatever has changed since
        elif isinstance(message, Grant):
            self.waiters.append(Waiter(journal_id, message, set()))
            self.serve(newest=self.waiters[-1])

    def disconnected(self, journal_id: str) -> None:
        if journal_id in self.connected:
            self.connected.remove(journal_id)
        self.registered.discard(journal_id)
        self.waiters = [waiter for waiter in self.waiters if waiter.journal_id != journal_id]
        for waiter in self.waiters:
            waiter.awaits = {number for number in waiter.awaits if self.pushed[number][0] != journal_id}

    def _greet(self, journal_id: str, hello: Hello) -> None:
        self.disconnected(journal_id)
        self.connected.append(journal_id)
        self.ship(journal_id)
        if hello.grant_seq > self.store.seq or hello.limits_version > self.store.version:
            self.send(journal_id, Welcome(is_restored=True))
            return
        since = hello.limits_version
        budgets = self.store.budgets.items()
        if since == 0:
            ids = [b for b, budget in budgets if OWNERS[b][0] == "tag" and budget.limit is not None]
        else:
            ids = [b for b, budget in budgets if budget.version > since]
        self._push_limits(journal_id, ids, what="hello", is_reset=since == -1)

    def _push_limits(self, journal_id: str, budget_ids: list[int], *, what: str, is_reset: bool = False) -> None:
        budgets = self.store.budgets
        changes = tuple(
            Limit(OWNERS[b], b, budgets[b].limit is not None, window_of(budgets[b].kind, month_of(self.month))) for b in budget_ids
        )
        number = self._next(journal_id, what, self.store.version)
        self.send(journal_id, Limits(number, self.store.version, changes, is_reset))

    def _next(self, journal_id: str, what: str, version: int = 0) -> int:
        self.number += 1
        self.pushed[self.number] = (journal_id, what, version)
        return self.number

    def _acknowledged(self, journal_id: str, number: int) -> None:
        self.ship(journal_id)
        _, what, version = self.pushed[number]
        if what == "recall":
            for waiter in self.waiters:
                waiter.awaits.discard(number)
        else:
            for budget_version, journal_ids in self.settling.values():
                if budget_version <= version:
                    journal_ids.discard(journal_id)
        if what == "hello":
            self.registered.add(journal_id)
            self.unheard.discard(journal_id)
            self.send(journal_id, Welcome())
        self.serve()

    # --- grants ---------------------------------------------------------------------------------------------------------------

    def serve(self, newest: Waiter | None = None) -> None:
        """Whoever waits, in order; nobody overtakes on a budget that somebody waits for."""
        blocked: set[int] = set()
        for waiter in list(self.waiters):
            ids = {want.budget_id for want in waiter.grant.wants}
            is_free = self.is_open and blocked.isdisjoint(ids) and not any(self.is_settling(b) for b in ids)
            if not is_free or not self._answer(waiter, ids):
                blocked |= ids
        if newest in self.waiters:
            self._recall(newest)

    def _answer(self, waiter: Waiter, ids: set[int]) -> bool:
        """Whether the waiter has gone."""
        others = [other for other in self.waiters if other is not waiter]
        is_scarce = any(want.budget_id in ids for other in others for want in other.grant.wants)
        outcome = self._ask_store(waiter, is_scarce=is_scarce)
        if isinstance(outcome, Short):
            return False
        self.waiters.remove(waiter)
        self.send(waiter.journal_id, self._refusal(waiter.grant.number, "over", outcome) if isinstance(outcome, Over) else outcome)
        return True

    def _ask_store(self, waiter: Waiter, *, is_scarce: bool) -> Granted | Short | Over:
        number, wants, journals = waiter.grant.number, waiter.grant.wants, len(self.registered)
        return self.store.grant(waiter.journal_id, number, wants, month=month_of(self.month), journals=journals, is_scarce=is_scarce)

    def _recall(self, waiter: Waiter) -> None:
        ids = tuple(want.budget_id for want in waiter.grant.wants)
        for journal_id in self.connected:
            number = self._next(journal_id, "recall")
            waiter.awaits.add(number)
            self.send(journal_id, Recall(number, ids))

    def recall_month(self) -> None:
        """The month has ended."""
        for journal_id in self.connected:
            self.send(journal_id, Recall(self._next(journal_id, "recall"), before=month_of(self.month)))

    def can_expire(self, waiter: Waiter) -> bool:
        """In a calm run: its recall was answered, and who came before it on its budgets has gone."""
        ids = {want.budget_id for want in waiter.grant.wants}
        ahead = self.waiters[: self.waiters.index(waiter)]
        is_first = all(want.budget_id not in ids for other in ahead for want in other.grant.wants)
        return is_first and not waiter.awaits and self.is_open and not any(self.is_settling(b) for b in ids)

    def expire(self, waiter: Waiter) -> None:
        """Its 250 ms are over: everything is shipped once more, then it is refused with what there is."""
        for journal_id in self.journals:
            self.ship(journal_id)
        self.serve()
        if waiter not in self.waiters:
            return
        number = waiter.grant.number
        refusal = Refused(number, "unavailable")
        if self.can_expire(waiter):
            outcome = self._ask_store(waiter, is_scarce=True)
            assert isinstance(outcome, Short), "who could be served was not"
            refusal = self._refusal(number, "leased", outcome)
        self.waiters.remove(waiter)
        self.send(waiter.journal_id, refusal)
        self.serve()

    def _refusal(self, number: int, reason: str, outcome: Short | Over) -> Refused:
        return Refused(number, reason, outcome.budget_id, available=outcome.available)

    # --- the rest -------------------------------------------------------------------------------------------------------------

    def ship(self, journal_id: str, records: int | None = None) -> None:
        start = self.store.shipped.get(journal_id, 0)
        whole = len(self.journals[journal_id])
        end = whole if records is None else min(whole, start + records)
        self.store.ship(journal_id, self.journals[journal_id], start=start, end=end)

    def seal(self, journal_id: str) -> None:
        """Its process is dead: read to the end."""
        start, end = self.store.shipped.get(journal_id, 0), len(self.journals[journal_id])
        self.store.ship(journal_id, self.journals[journal_id], start=start, end=end, is_seal=True)
        self.disconnected(journal_id)
        self.unheard.discard(journal_id)
        for _, journal_ids in self.settling.values():
            journal_ids.discard(journal_id)
        self.serve()

    def set_limit(self, budget_id: int, limit: int | None) -> None:
        self.store.set_limit(budget_id, limit)
        unsealed = {journal_id for journal_id in self.journals if journal_id not in self.store.sealed}
        self.settling[budget_id] = (self.store.version, unsealed)
        for journal_id in self.connected:
            self._push_limits(journal_id, [budget_id], what="limits")

    def principal(self) -> tuple[int, ...]:
        """What a look-up would find now: budgets with a limit (of tags workers know by the limits pushed)."""
        return tuple(b for b, budget in self.store.budgets.items() if budget.limit is not None and b != 4)
