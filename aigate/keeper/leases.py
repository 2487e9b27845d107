"""The keeper's desk for leases: answers workers' asks, recalls what is unused, and sees limits come into force.

Owns who waits and for what; the rows are db/grants.py's. Asks that arrive together share a transaction. One that only leases stand in the
way of waits its turn for a while: every worker is recalled, its journal shipped, and the ask tried again. Nothing is granted before every
journal found at the start has said what it knows, nor on a budget whose new limit some worker has not heard of.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from aigate.core.budget import Limit
from aigate.journal.records import MAX_LEASES
from aigate.keeper.db.engine import Database
from aigate.keeper.db.grants import (
    CHANGING,
    LEASED,
    QUEUED,
    RETRY_S,
    UNAVAILABLE,
    Asked,
    FindMonth,
    answer_grants,
    first_answers,
    forget_grants,
    grant_seq,
    month_now,
)
from aigate.keeper.db.limits import changed_limits, first_limits, limits_version
from aigate.keeper.shipper import Shipper
from aigate.messages import Grant, Granted, Hello, Limits, Message, Recall, Refused, Welcome

log = logging.getLogger("aigate.keeper")

GATHER_S = 0.002
WAIT_S = 0.25  # for leases to come back
SETTLE_S = 1.5  # for journals to be heard and limits to come into force
RECALL_S = 0.1  # for the workers' answers to one recall
PAUSE_S = 0.01  # between two tries
LOOK_S = 1.0
OPEN_S = 3.0
CLEAR_S = 600.0
LIMITS_A_MESSAGE = MAX_LEASES // 2  # what a worker adopts of them, in two months at most, is one record


class Worker(Protocol):
    """A worker's connection. `tell`: sends what `make` makes of a number; True once acknowledged, False when the connection ends."""

    hello: Hello | None

    def send(self, message: Message) -> None: ...
    def tell(self, make: Callable[[int], Message]) -> asyncio.Future[bool]: ...


class _Waiter(msgspec.Struct, eq=False):
    worker: Worker
    journal_id: str
    grant: Grant
    since: float  # loop time
    answer: Refused | None = None  # why it still waits


class InForce(NamedTuple):
    """Limits that every worker acts by: those of versions up to `version` but of these budgets."""

    version: int
    settling: frozenset[int]


class LeaseDesk:
    """`find_month`: by whose clock a window is chosen. `look_s`: between two looks at it."""

    def __init__(self, database: Database, shipper: Shipper, *, find_month: FindMonth = month_now, look_s: float = LOOK_S):
        self._database = database
        self._shipper = shipper
        self._find_month = find_month
        self._look_s = look_s
        self._month = ""  # nothing is granted before it is known: a look that came after it had ended would recall nothing
        self._workers: dict[Worker, str] = {}  # → its journal
        self._registered: set[str] = set()  # journals that are welcome
        self._unheard: set[str] | None = None  # journals found at the start that have not registered yet; None: not started
        self._waiters: list[_Waiter] = []
        self._limits_version = 0  # newest that was told
        self._settling: dict[int, tuple[int, set[str]]] = {}  # budget → version of its limit, journals where that is not in force
        self._settled = asyncio.Event()
        self._recalled: dict[int, float] = {}  # budget → begin of its last recall that every worker answered, while anybody waits
        self._news = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[Any] | None = None
        self._tasks: set[asyncio.Task[Any]] = set()

    async def run(self) -> None:
        """Until cancelled: watches the months, and opens the desk once it knows the first."""
        loop = asyncio.get_running_loop()
        cleared_at = loop.time()
        while True:
            try:
                await self._watch_month()
                if self._unheard is None:
                    await self._open()
                if loop.time() - cleared_at > CLEAR_S:
                    cleared_at = loop.time()
                    await self._database.write(forget_grants)
            except (SQLAlchemyError, OSError) as error:
                log.error("leases: the database does not answer: %s", type(error).__name__)
            await asyncio.sleep(self._look_s)

    # --- called by the connections --------------------------------------------------------------------------------------------

    def greeted(self, worker: Worker, hello: Hello) -> None:
        self.closed(worker)
        self._workers[worker] = hello.journal_id
        self._start(self._greet(worker, hello))

    def asked(self, worker: Worker, grant: Grant) -> None:
        journal_id = self._workers.get(worker)
        if journal_id is None:
            worker.send(Refused(grant.number, UNAVAILABLE, retry_after_s=RETRY_S))
            return
        self._waiters.append(_Waiter(worker, journal_id, grant, asyncio.get_running_loop().time()))
        self._shipper.note_grant()
        self._wake()

    def closed(self, worker: Worker) -> None:
        journal_id = self._workers.pop(worker, None)
        if journal_id is not None:
            if journal_id not in self._workers.values():  # else it has connected anew before this end was seen
                self._registered.discard(journal_id)
            self._waiters = [waiter for waiter in self._waiters if waiter.worker is not worker]

    def close(self) -> None:
        for task in [*self._tasks, *([self._serving] if self._serving else [])]:
            task.cancel()

    # --- journals and their limits --------------------------------------------------------------------------------------------

    async def _open(self) -> None:
        await self._shipper.catch_up()
        self._limits_version = await self._database.read(limits_version)
        self._unheard = self._shipper.unsealed() - self._registered
        self._settled.set()
        self._wake()

    async def is_open(self, timeout_s: float = OPEN_S) -> bool:
        """Whether every journal found at the start has been heard; waits a while for that. Before, no limit may be changed: a database
        that was restored would give the change a number that some worker knows as that of a change it has in force."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._unheard is None or self._unheard:
                    self._settled.clear()
                    await self._settled.wait()
                return True
        return False

    def in_force(self) -> InForce:
        return InForce(self._limits_version, frozenset(self._settling))

    async def relieve(self, budget_id: int) -> None:
        """Brings back what workers have unused of a budget that somebody else than they is short of."""
        if self._recalling is None or self._recalling.done():
            self._recalling = self._start(self._relieve((budget_id,)))
        await asyncio.wait((self._recalling,))

    async def _greet(self, worker: Worker, hello: Hello) -> None:
        while self._workers.get(worker) == hello.journal_id:
            try:
                await self._register(worker, hello)
            except (SQLAlchemyError, OSError) as error:
                log.error("a worker waits for its welcome, the database does not answer: %s", type(error).__name__)
                await asyncio.sleep(self._look_s)
            else:
                return

    async def _register(self, worker: Worker, hello: Hello) -> None:
        """Ships what the journal holds, tells the limits it has missed, and bids welcome; or says that the database is an older one."""
        await self._shipper.catch_up()
        if hello.grant_seq > await self._database.write(grant_seq) or hello.limits_version > await self._database.write(limits_version):
            log.warning("%s has leases or limits that the database does not know: it is a restored one", hello.worker)
            worker.send(Welcome(is_restored=True))
            return
        if hello.limits_version == 0:
            version, limits = await self._database.write(first_limits, self._find_month)
        else:
            version, limits = await self._database.write(changed_limits, max(hello.limits_version, 0), self._find_month)
        is_told = await self._tell_limits(worker, version, limits, is_reset=hello.limits_version < 0)
        if is_told and self._workers.get(worker) == hello.journal_id:
            self._registered.add(hello.journal_id)
            if self._unheard:
                self._unheard.discard(hello.journal_id)
                self._settled.set()
            worker.tell(lambda number: Recall(number, (), self._month))  # an earlier keeper may have ended with the month
            worker.send(Welcome())
            self._wake()

    async def announce_limits(self, timeout_s: float = 5.0) -> bool:
        """Call it after limits were changed: tells every worker what is new; whether it is in force on all of them."""
        version, limits = await self._database.write(changed_limits, self._limits_version, self._find_month)
        self._limits_version = max(self._limits_version, version)
        for limit in limits:
            self._settling[limit.budget_id] = (version, self._shipper.unsealed())
        if limits:
            for worker in list(self._workers):
                self._start(self._tell_limits(worker, version, limits))
        return await self._are_in_force(version, timeout_s)

    async def _tell_limits(self, worker: Worker, version: int, limits: Sequence[Limit], *, is_reset: bool = False) -> bool:
        """Whether they are in force there: acknowledged, and what it gave back or adopted is in the tables."""
        journal_id = self._workers.get(worker)
        starts = range(0, max(len(limits), 1), LIMITS_A_MESSAGE)
        answers = []
        for start in starts:
            part = tuple(limits[start : start + LIMITS_A_MESSAGE])
            told_version, is_first = version if start == starts[-1] else 0, start == 0
            answers.append(worker.tell(lambda number, p=part, v=told_version, r=is_reset and is_first: Limits(number, v, p, r)))  # type: ignore[misc]
        if not all(await asyncio.gather(*answers)):
            return False
        await self._shipper.catch_up()
        for _, (changed_version, journals) in list(self._settling.items()):
            if changed_version <= version and journal_id is not None:
                journals.discard(journal_id)
        self._look_at_settling()
        return True

    async def _are_in_force(self, version: int, timeout_s: float) -> bool:
        try:
            async with asyncio.timeout(timeout_s):
                while any(changed <= version for changed, _ in self._settling.values()):
                    self._settled.clear()
                    await self._settled.wait()
        except TimeoutError:
            log.warning("limits of version %d are not in force on every worker after %.0f s", version, timeout_s)
            return False
        return True

    def _look_at_settling(self) -> None:
        """Journals that ended meanwhile have nothing to say any more."""
        unsealed = self._shipper.unsealed()
        if self._unheard:
            self._unheard &= unsealed
        for budget_id, (_, journals) in list(self._settling.items()):
            journals &= unsealed
            if not journals:
                del self._settling[budget_id]
        self._settled.set()
        self._wake()

    async def _watch_month(self) -> None:
        month = await self._database.read(self._find_month)
        if month != self._month:
            self._month = month
            await self._recall((), before=month)
        self._look_at_settling()

    # --- grants ---------------------------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        self._news.set()
        if self._waiters and self._serving is None:
            self._serving = asyncio.get_running_loop().create_task(self._serve_all())

    async def _serve_all(self) -> None:
        """While anybody waits: tries them all whenever something is new."""
        try:
            while self._waiters:
                await asyncio.sleep(GATHER_S)
                self._news.clear()
                await self._serve()
                short = {waiter.answer.budget_id for waiter in self._waiters if waiter.answer and waiter.answer.reason == LEASED}
                if short and (self._recalling is None or self._recalling.done()):
                    self._recalling = self._start(self._relieve(tuple(sorted(short))))
                if self._waiters:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(PAUSE_S):
                            await self._news.wait()
        finally:
            self._serving = None
            self._recalled.clear()

    async def _serve(self) -> None:
        now = asyncio.get_running_loop().time()
        trying = [waiter for waiter in self._waiters if not self._must_wait(waiter)]
        try:
            await self._give_up(now)
            if not trying:
                return
            if any(now - waiter.since > WAIT_S for waiter in trying):
                await self._shipper.catch_up()  # their last try: with everything that has settled by now
            asked = [Asked(waiter.journal_id, waiter.grant, waiter.answer is not None) for waiter in trying]
            answers = await self._database.write(
                answer_grants,
                asked,
                journals_living=len(self._registered),
                limits_version=self._limits_version,
                find_month=self._find_month,
            )
        except (SQLAlchemyError, OSError) as error:
            log.error("grants: the database does not answer: %s", type(error).__name__)
            answers = [Refused(waiter.grant.number, UNAVAILABLE, retry_after_s=RETRY_S) for waiter in trying]
        for waiter, answer in zip(trying, answers, strict=True):
            if waiter in self._waiters and not self._stays(waiter, answer, now):
                self._end(waiter, answer)

    async def _give_up(self, now: float) -> None:
        """On whom must wait longer than is sane, or only wanted a refill. A repeated ask was granted before: that must not be lost."""
        tired = [
            waiter
            for waiter in self._waiters
            if self._must_wait(waiter) and (now - waiter.since > SETTLE_S or not any(want.need for want in waiter.grant.wants))
        ]
        if tired:
            keys = [(waiter.journal_id, waiter.grant.number) for waiter in tired]
            known = await self._database.read(first_answers, keys)
            for waiter, key in zip(tired, keys, strict=True):
                if waiter in self._waiters:
                    self._end(waiter, known.get(key) or Refused(waiter.grant.number, UNAVAILABLE, retry_after_s=RETRY_S))

    def _must_wait(self, waiter: _Waiter) -> bool:
        return self._unheard is None or bool(self._unheard) or any(want.budget_id in self._settling for want in waiter.grant.wants)

    def _stays(self, waiter: _Waiter, answer: Granted | Refused, now: float) -> bool:
        """Whether it goes on waiting. Refused for leases in the way it is only once every worker has given back what it had unused."""
        if isinstance(answer, Granted) or answer.reason not in (LEASED, QUEUED, CHANGING):
            return False
        waiter.answer = answer
        if answer.reason == LEASED and now - waiter.since > WAIT_S and self._recalled.get(answer.budget_id, 0.0) >= waiter.since:
            return False
        if now - waiter.since > SETTLE_S:
            self._end(waiter, Refused(waiter.grant.number, UNAVAILABLE, retry_after_s=RETRY_S))
        return True

    def _end(self, waiter: _Waiter, answer: Granted | Refused) -> None:
        self._waiters.remove(waiter)
        waiter.worker.send(answer)

    async def _relieve(self, budget_ids: tuple[int, ...]) -> None:
        """Brings back what is unused of the budgets."""
        began = asyncio.get_running_loop().time()
        if await self._recall(budget_ids):
            self._recalled.update(dict.fromkeys(budget_ids, began))
        self._wake()

    async def _recall(self, budget_ids: tuple[int, ...], before: str = "") -> bool:
        """Whether all workers have given back, and it is in the tables."""
        answers = [worker.tell(lambda number: Recall(number, budget_ids, before)) for worker in self._workers]
        done, late = await asyncio.wait(answers, timeout=RECALL_S) if answers else (set(), set())
        await self._shipper.catch_up()
        return not late and all(answer.result() for answer in done)

    def _start(self, work: Coroutine[None, None, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("leases: %s", type(task.exception()).__name__)  # the database is away: whoever waits is tried again
