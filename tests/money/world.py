"""The model's world: workers with the real wallet and the real journal records, one keeper, one store, and what is true of them all.

A step is a method. What the database believes is in the store; what *is* (attempts, what they cost) is kept beside it, and every
admission is checked against that. Messages travel in order and are lost when either end dies.
"""

from __future__ import annotations

import copy

import msgspec

from aigate.core.budget import Place, window_of
from aigate.core.wallet import Ask, Hold, Shortage, Wallet
from aigate.journal.records import (
    ADOPTED,
    INTENT,
    RESTATED,
    RETURNED,
    SETTLED,
    Intent,
    Lease,
    Leases,
    Settled,
    encode_record,
)
from aigate.messages import Ack, Found, Grant, Granted, Hello, Limits, Message, Recall, Refused, Welcome
from tests.money.keeper import Keeper
from tests.money.store import OWNERS, Records, Store, month_of

WAITING, HELD, SENT, SETTLED_, LOST, GONE = "waiting", "held", "sent", "settled", "lost", "gone"
FOUND = Found(0, None)  # stands for a look-up of every principal


class Attempt(msgspec.Struct):
    """What is true of one attempt."""

    id: str
    journal_id: str
    path: tuple[int, ...]
    amount: int
    floor: int  # a clamp may lower the amount to this
    state: str = WAITING
    hold: Hold | None = None
    month: int = 0  # sent in
    cost: int = 0
    uncovered: dict[int, int] = {}  # budget → overrun that no slice could bear

    @property
    def is_open(self) -> bool:
        return self.state in (HELD, SENT)


class Worker:
    """One process: its wallet, what it does for whom, both directions of its connection."""

    def __init__(self, journal_id: str):
        self.journal_id = journal_id
        self.wallet = Wallet()
        self.attempts: dict[str, Attempt] = {}
        self.waiting: dict[int, Attempt] = {}  # ask → who waits for it
        self.known: tuple[int, ...] = ()  # limited budgets, as its cached principals say
        self.is_connected = False
        self.is_welcome = False
        self.has_served = False  # a worker admits nothing before its first Welcome: it knows nobody
        self.inbox: list[tuple[Message, tuple[int, ...]]] = []
        self.outbox: list[Message] = []


class World:
    def __init__(self, *, limits: dict[int, int | None], workers: int, kinds: dict[int, str] | None = None):
        self.store = Store(limits, kinds or {})
        self.in_force = dict(limits)
        self.journals: dict[str, Records] = {}
        self.workers: dict[str, Worker] = {}
        self.attempts: dict[str, Attempt] = {}
        self.now_ms = 0
        self.is_calm = True  # no crash, no lost connection so far
        self.is_restored = False
        self.backup: Store | None = None
        self.keeper = self._new_keeper(month=1)
        for _ in range(workers):
            self.start_worker()

    def _new_keeper(self, month: int) -> Keeper:
        keeper = Keeper(self.store, self.journals, self._send)
        keeper.month = month
        return keeper

    def _send(self, journal_id: str, message: Message) -> None:
        if isinstance(message, Refused) and self.is_calm:
            self._check_refusal(journal_id, message)
        worker = self.workers.get(journal_id)
        if worker is not None and worker.is_connected:
            worker.inbox.append((message, self.keeper.principal()))

    # --- workers --------------------------------------------------------------------------------------------------------------

    def start_worker(self) -> Worker:
        journal_id = f"j{len(self.journals)}"
        self.journals[journal_id] = []
        worker = self.workers[journal_id] = Worker(journal_id)
        return worker

    def connect(self, worker: Worker) -> None:
        worker.is_connected = True
        self._hello(worker)

    def _hello(self, worker: Worker) -> None:
        wallet = worker.wallet
        worker.outbox.append(Hello("w", 0, worker.journal_id, grant_seq=wallet.seq, limits_version=wallet.limits_version))

    def disconnect(self, worker: Worker) -> None:
        self.is_calm = False
        worker.is_connected = worker.is_welcome = False
        worker.inbox.clear()
        worker.outbox.clear()
        self.keeper.disconnected(worker.journal_id)

    def crash(self, worker: Worker) -> None:
        self.disconnect(worker)
        del self.workers[worker.journal_id]
        for attempt in worker.attempts.values():
            if attempt.state == SENT:
                attempt.state = LOST
            elif attempt.state in (HELD, WAITING):
                attempt.state = GONE

    def start(self, worker: Worker, path: tuple[int, ...], amount: int, *, floor: int) -> None:
        attempt = Attempt(f"att_{len(self.attempts)}", worker.journal_id, path, amount, floor)
        self.attempts[attempt.id] = worker.attempts[attempt.id] = attempt
        self._hold(worker, attempt)

    def _hold(self, worker: Worker, attempt: Attempt) -> None:
        known = tuple(b for b in attempt.path if b in worker.known)
        owners = tuple(OWNERS[b] for b in attempt.path)
        self._held(worker, attempt, worker.wallet.hold(owners, known, attempt.amount))

    def _held(self, worker: Worker, attempt: Attempt, result: Hold | Shortage) -> None:
        if isinstance(result, Hold):
            attempt.hold = result
            attempt.state = HELD
            self._check_admission(attempt)
        elif worker.is_welcome:
            ask = worker.wallet.ask(result, self.now_ms)
            worker.waiting[ask.number] = attempt
            self._ask(worker, ask)
        else:
            attempt.state = GONE  # 503

    def _ask(self, worker: Worker, ask: Ask) -> None:
        wallet = worker.wallet
        worker.outbox.append(Grant(ask.number, ask.wants, wallet.seq, wallet.answered))

    def refill(self, worker: Worker) -> None:
        ask = worker.wallet.refill(self.now_ms)
        if ask is not None:
            self._ask(worker, ask)

    def abandon(self, worker: Worker, number: int) -> None:
        """The client has gone while it waited."""
        worker.waiting.pop(number).state = GONE
        worker.wallet.abandon(number)

    def send(self, worker: Worker, attempt: Attempt) -> None:
        hold = attempt.hold
        assert hold is not None
        attempt.state, attempt.month = SENT, self.keeper.month
        keys = {2: "key-a", 3: "key-b"}
        key, tag = keys[attempt.path[1]], "tag" if 4 in attempt.path else None
        owner = ("acc", key, None, tag)
        window = hold.enter(month_of(attempt.month))
        intent = Intent(attempt.id, "req", 1, attempt.month, "p", "p/m", hold.amount, "prc", *owner, window, hold.leases)
        self.journals[worker.journal_id].append((INTENT, encode_record(intent)))

    def settle(self, worker: Worker, attempt: Attempt, cost: int) -> None:
        hold = attempt.hold
        assert hold is not None
        charges = worker.wallet.settle(hold, cost)
        attempt.state, attempt.cost = SETTLED_, cost
        attempt.uncovered = {b: cost - ended for b, _, ended in charges if cost > ended}
        assert not attempt.uncovered or cost > hold.amount
        settled = Settled(attempt.id, "complete", "reported", 1, 1, 0, 0, 0, 0, 0, cost, "prc", 200, "", 1, 1, b"", None, charges)
        self.journals[worker.journal_id].append((SETTLED, encode_record(settled)))

    def release(self, worker: Worker, attempt: Attempt) -> None:
        assert attempt.hold is not None
        self._write(worker, RETURNED, worker.wallet.release(attempt.hold))
        attempt.state = GONE

    def sweep(self, worker: Worker) -> None:
        self._write(worker, RETURNED, worker.wallet.sweep(self.now_ms))

    def _write(self, worker: Worker, kind: int, leases: tuple[Lease, ...]) -> None:
        if leases or kind == RESTATED:
            self.journals[worker.journal_id].append((kind, encode_record(Leases(leases))))

    # --- messages -------------------------------------------------------------------------------------------------------------

    def to_keeper(self, worker: Worker) -> None:
        self.keeper.handle(worker.journal_id, worker.outbox.pop(0))
        self._update_force()

    def to_worker(self, worker: Worker) -> None:
        message, principal = worker.inbox.pop(0)
        wallet = worker.wallet
        match message:
            case Welcome(is_restored=True):
                self._write(worker, RESTATED, wallet.to_restate())
                wallet.restate()
                for attempt in worker.waiting.values():
                    attempt.state = GONE
                worker.waiting.clear()
                self._hello(worker)
            case Welcome():
                worker.is_welcome = worker.has_served = True
                worker.known = principal
                for ask in wallet.unanswered():
                    self._ask(worker, ask)
            case Found():
                worker.known = principal
            case Limits():
                self._write(worker, ADOPTED, wallet.to_adopt(message.changes))
                self._write(worker, RETURNED, wallet.change_limits(message.version, message.changes, message.is_reset))
                worker.outbox.append(Ack(message.number))
            case Recall():
                returned = wallet.retire(message.budget_ids)
                if message.before:
                    returned += wallet.retire_before(message.before)
                self._write(worker, RETURNED, returned)
                worker.outbox.append(Ack(message.number))
            case Granted():
                result, returned = wallet.granted(message.number, message.seq, message.leases, message.tight)
                self._write(worker, RETURNED, returned)
                attempt = worker.waiting.pop(message.number, None)
                if result is not None and attempt is not None:
                    self._held(worker, attempt, result)
            case Refused():
                wallet.refused(message.number)
                attempt = worker.waiting.pop(message.number, None)
                if attempt is not None:
                    self._refused(worker, attempt, message)

    def _refused(self, worker: Worker, attempt: Attempt, refused: Refused) -> None:
        assert refused.reason == "unavailable" or refused.available < attempt.amount
        if refused.reason != "unavailable" and refused.available >= attempt.floor:
            attempt.amount = refused.available
            self._hold(worker, attempt)
        else:
            attempt.state = GONE

    # --- the keeper -----------------------------------------------------------------------------------------------------------

    def crash_keeper(self) -> None:
        for worker in self.workers.values():
            self.disconnect(worker)
        self.is_calm = False
        self.keeper = self._new_keeper(self.keeper.month)
        self._update_force()

    def restore(self) -> None:
        assert self.backup is not None
        self.store = copy.deepcopy(self.backup)
        self.is_restored = True
        self.crash_keeper()

    def set_limit(self, budget_id: int, limit: int | None) -> None:
        if self.keeper.is_open:
            self.keeper.set_limit(budget_id, limit)
            self._update_force()

    def seal(self, journal_id: str) -> None:
        self.keeper.seal(journal_id)
        self._update_force()

    def dead(self) -> list[str]:
        return [j for j in self.journals if j not in self.workers and j not in self.store.sealed]

    def next_month(self) -> None:
        self.keeper.month += 1
        self.keeper.recall_month()

    # --- what must hold -------------------------------------------------------------------------------------------------------

    def _update_force(self) -> None:
        """A changed limit is in force once every worker has acknowledged it; until then the looser of both is."""
        for budget_id, budget in self.store.budgets.items():
            old, new = self.in_force.get(budget_id), budget.limit
            if not self.keeper.is_open or self.keeper.is_settling(budget_id):
                new = None if old is None or new is None else max(old, new)
            self.in_force[budget_id] = new

    def _places(self, attempt: Attempt) -> set[Place]:
        """Where it counts: on every owner, limited or not, and wherever it was adopted."""
        assert attempt.hold is not None
        month = attempt.hold.window or month_of(attempt.month or self.keeper.month)
        places = {(b, window_of(self.store.budgets[b].kind, month)) for b in attempt.path}
        if attempt.is_open:
            places |= {(piece.budget_id, piece.window) for piece in attempt.hold.slices}
        return places

    def exposure(self, place: Place, *, with_uncovered: bool) -> int:
        """Spent, reserved and held of a budget in truth."""
        total = 0
        for attempt in self.attempts.values():
            if attempt.hold is None or attempt.state == GONE or place not in self._places(attempt):
                continue
            if attempt.is_open or attempt.state == LOST:
                row = self.store.rows.get(attempt.id)
                total += (row.cost or 0) if row is not None and row.is_resolved else attempt.hold.amount
            else:
                total += attempt.cost - (0 if with_uncovered else attempt.uncovered.get(place[0], 0))
        return total

    def _check_admission(self, attempt: Attempt) -> None:
        assert attempt.hold is not None and attempt.hold.amount == attempt.amount
        for place in self._places(attempt):
            limit = self.in_force.get(place[0])
            if limit is not None and attempt.amount:
                exposure = self.exposure(place, with_uncovered=False)
                assert exposure <= limit, f"{attempt.id} takes {place} to {exposure}, past the limit of {limit}"

    def _check_refusal(self, journal_id: str, refused: Refused) -> None:
        """In a calm run nobody is refused what would fit if all that is unused came back."""
        assert refused.reason != "unavailable"
        grant = next(w for w in self.workers.values() if w.journal_id == journal_id).wallet._asks[refused.number]
        for want in grant.wants:
            budget = self.store.budgets[want.budget_id]
            if budget.limit is None:
                continue
            window = window_of(budget.kind, month_of(self.keeper.month))
            on_its_way = sum(
                lease[2]
                for worker in self.workers.values()
                for message, _ in worker.inbox
                if isinstance(message, Granted)
                for lease in message.leases
                if lease[:2] == (want.budget_id, window)
            )
            if self.exposure((want.budget_id, window), with_uncovered=True) + on_its_way + want.need > budget.limit:
                return
        raise AssertionError(f"{refused} although it would fit")

    def check(self) -> None:
        """After every step."""
        self.store.check()
        if not self.is_restored:
            for worker in self.workers.values():
                self._check_leases(worker)

    def _check_leases(self, worker: Worker) -> None:
        """What the database says is leased to a journal is what the worker has, what it is about to get, and what is not shipped yet."""
        believed = Store({}, {})
        believed.leases = {worker.journal_id: dict(self.store.leases.get(worker.journal_id, {}))}
        records = self.journals[worker.journal_id]
        believed.rows = {}
        believed.ship(worker.journal_id, records[:0], start=0, end=0)
        start = self.store.shipped.get(worker.journal_id, 0)
        believed.shipped[worker.journal_id] = start
        believed.ship(worker.journal_id, records, start=start, end=len(records))
        has: dict[Place, int] = {}
        wallet = worker.wallet
        pieces = {id(piece): piece for attempt in worker.attempts.values() if attempt.is_open for piece in attempt.hold.slices}  # type: ignore[union-attr]
        pieces |= {id(piece): piece for piece in wallet._slices.values()}
        for piece in pieces.values():
            assert piece.available >= 0 and piece.held >= 0
            place = (piece.budget_id, piece.window)
            has[place] = has.get(place, 0) + piece.available + piece.held
        for (journal_id, number), granted in self.store.grants.items():
            if journal_id == worker.journal_id and number in wallet._asks:
                for *place, amount in granted.leases:
                    has[tuple(place)] = has.get(tuple(place), 0) + amount  # type: ignore[index]
        has = {place: amount for place, amount in has.items() if amount}
        assert has == believed.leases[worker.journal_id], f"{worker.journal_id} has {has}, not {believed.leases}"

    # --- rest -----------------------------------------------------------------------------------------------------------------

    def come_to_rest(self) -> None:
        """Everybody is connected, every message arrives, every attempt ends, everything is shipped and recalled."""
        for journal_id in self.dead():
            self.seal(journal_id)
        for worker in self.workers.values():
            if not worker.is_connected:
                self.connect(worker)
        self._deliver_all()
        while self.keeper.waiters or any(worker.waiting for worker in self.workers.values()):
            if self.keeper.waiters:
                self.keeper.expire(self.keeper.waiters[0])
            self._deliver_all()
        for worker in self.workers.values():
            for attempt in worker.attempts.values():
                if attempt.state == HELD:
                    self.send(worker, attempt)
                if attempt.state == SENT:
                    self.settle(worker, attempt, attempt.amount // 2)
            self._write(worker, RETURNED, worker.wallet.retire(list(OWNERS)))
        for journal_id in self.journals:
            self.keeper.ship(journal_id)
        self.check()
        self._check_rest()

    def _deliver_all(self) -> None:
        while any(worker.inbox or worker.outbox for worker in self.workers.values()):
            for worker in self.workers.values():
                while worker.outbox:
                    self.to_keeper(worker)
                while worker.inbox:
                    self.to_worker(worker)

    def _check_rest(self) -> None:
        store = self.store
        assert self.keeper.is_open and not any(self.keeper.is_settling(b) for b in OWNERS)
        assert all(not leases for leases in store.leases.values()), store.leases
        sent = {attempt.id: attempt for attempt in self.attempts.values() if attempt.month}
        assert store.rows.keys() == sent.keys(), "not one row for every sent attempt"
        spent: dict[Place, int] = {}
        reserved: dict[Place, int] = {}
        for attempt_id, attempt in sent.items():
            row = store.rows[attempt_id]
            assert row.cost == (attempt.cost if attempt.state == SETTLED_ else row.cost)
            for place in store.owners_places(row.intent):
                spent[place] = spent.get(place, 0) + (row.cost or 0)
                reserved[place] = reserved.get(place, 0) + (0 if attempt.state == SETTLED_ or row.is_resolved else row.intent.hold_nanousd)
        for place, window in store.windows.items():
            assert (window.spent, window.reserved, window.leased) == (spent.get(place, 0), reserved.get(place, 0), 0), place
