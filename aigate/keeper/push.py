"""The keeper's end of `run/keeper.sock`: answers workers' key look-ups, pushes key changes, gathers their health. What they say of
money and rates goes to the desks for it.

A change is *in force* when every worker has acknowledged it, or has connected since (a new connection starts from an empty
cache). Owns the connections and the workers' last reports; it reads keys only through the function it is given.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Protocol

from aigate.core.account import ProviderKey
from aigate.core.call import Principal
from aigate.keeper.leases import LeaseDesk
from aigate.keeper.rates import RateDesk
from aigate.messages import (
    VERSION,
    Ack,
    FindEval,
    FindResponse,
    Found,
    GiveBack,
    Grant,
    Health,
    Hello,
    InUse,
    KeepResponse,
    LookUp,
    Message,
    OpenedKey,
    OpenKey,
    Permits,
    Ping,
    Push,
    decode_frames,
    encode_frame,
)

log = logging.getLogger("aigate.keeper")

LOOK_UPS_PER_QUERY = 500
ENDED_WORKERS_KEPT = 64  # their counters, one by one; older ones are added up


class FindPrincipals(Protocol):
    """Digests → the principals of those that are keys in force."""

    def __call__(self, digests: Sequence[bytes]) -> Awaitable[dict[bytes, Principal]]: ...


class RevealKey(Protocol):
    """(account, sub-account, key id) → a stored provider key and the key itself; None where it is not in force or not theirs."""

    def __call__(self, account_id: str, sub_account_id: str | None, key_id: str, /) -> Awaitable[tuple[ProviderKey, str] | None]: ...


class Responses(Protocol):
    async def answer(self, asked: KeepResponse | FindResponse) -> Message | None:
        """None where the database is away: the worker asks again, or gives up."""


class Evals(Protocol):
    async def answer(self, asked: FindEval) -> Message | None:
        """None where the database is away."""


class MessageServer:
    """`expected_workers`: how many must have a change in force before it counts as in force everywhere. `leases`: None grants nothing."""

    def __init__(self, find_principals: FindPrincipals, *, expected_workers: int, leases: LeaseDesk | None = None):
        self.find_principals = find_principals
        self.change = 0  # number of the last key change
        self.rates = RateDesk()
        self.reveal_key: RevealKey | None = None
        self.responses: Responses | None = None
        self.evals: Evals | None = None
        self.leases = leases
        self._last_number = 0  # of what is to be acknowledged
        self._expected_workers = expected_workers
        self._connections: set[_Connection] = set()
        self._waiters: set[asyncio.Event] = set()
        self._reports: dict[str, Health] = {}  # journal id (one a worker process) → its last report
        self._ended_counters: dict[str, float] = {}

    def protocol(self) -> asyncio.Protocol:
        return _Connection(self)

    async def push(
        self,
        keys: Sequence[tuple[bytes, Principal | None]],
        *,
        is_reset: bool = False,
        provider_keys: Sequence[str] = (),
        timeout_s: float = 5.0,
    ) -> bool:
        """Tells every worker; True once the change is in force on all of them, False if that takes longer than allowed.
        Call it after the change is committed: a look-up that was read before is read again."""
        self.change = number = self.next_number()
        frame = encode_frame(Push(number, tuple(keys), is_reset, tuple(provider_keys)))
        for connection in self._connections:
            connection.write(frame)
        moved = asyncio.Event()
        self._waiters.add(moved)
        try:
            async with asyncio.timeout(timeout_s):
                while not self._is_in_force(number):
                    await moved.wait()
                    moved.clear()
        except TimeoutError:
            log.warning("key change %d is not in force on every worker after %.0f s", number, timeout_s)
            return False
        finally:
            self._waiters.discard(moved)
        return True

    def tell_all(self, message: Message) -> None:
        for connection in self._connections:
            connection.send(message)

    def next_number(self) -> int:
        self._last_number += 1
        return self._last_number

    def worker_count(self) -> int:
        return sum(connection.hello is not None for connection in self._connections)

    def journals(self) -> dict[str, str]:
        """Journal id → worker, of the connected ones."""
        return {connection.hello.journal_id: connection.hello.worker for connection in self._connections if connection.hello}

    def counters(self) -> dict[str, float]:
        """Counters of all workers since the keeper started, those of ended workers included. Gauges only of living ones."""
        living = {connection.hello.journal_id for connection in self._connections if connection.hello}
        total = dict(self._ended_counters)
        for journal_id, report in self._reports.items():
            for name, value in report.counters.items():
                if journal_id in living or is_counter(name):
                    total[name] = total.get(name, 0) + value
        return total

    def targets(self) -> list[dict[str, dict[str, object]]]:
        """What each living worker says of its targets."""
        return [report.targets for report in self._living_reports()]

    def unwritable_journals(self) -> int:
        """How many living workers say that their journal takes no more: they refuse calls."""
        return sum(not report.counters.get("journal_healthy", 1) for report in self._living_reports())

    def _living_reports(self) -> list[Health]:
        living = (connection.hello.journal_id for connection in self._connections if connection.hello)
        return [self._reports[journal_id] for journal_id in living if journal_id in self._reports]

    def close(self) -> None:
        for connection in list(self._connections):
            connection.close()

    def _is_in_force(self, number: int) -> bool:
        workers = [connection for connection in self._connections if connection.hello is not None]
        return len(workers) >= self._expected_workers and all(worker.in_force >= number for worker in workers)

    # --- called by the connections --------------------------------------------------------------------------------------

    def opened(self, connection: _Connection) -> None:
        self._connections.add(connection)

    def moved(self) -> None:
        """Some worker came, went or acknowledged."""
        for waiter in self._waiters:
            waiter.set()

    def closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self.rates.closed(connection, time.monotonic())
        if self.leases is not None:
            self.leases.closed(connection)
        self.moved()

    def reported(self, journal_id: str, report: Health) -> None:
        if journal_id not in self._reports and len(self._reports) >= ENDED_WORKERS_KEPT + len(self._connections):
            self._retire_oldest_report()
        self._reports[journal_id] = report

    def _retire_oldest_report(self) -> None:
        living = {connection.hello.journal_id for connection in self._connections if connection.hello}
        oldest = next(journal_id for journal_id in self._reports if journal_id not in living)
        for name, value in self._reports.pop(oldest).counters.items():
            if is_counter(name):
                self._ended_counters[name] = self._ended_counters.get(name, 0) + value


class _Connection(asyncio.Protocol):
    """One worker. `in_force`: the last change it has acknowledged."""

    def __init__(self, server: MessageServer):
        self.hello: Hello | None = None
        self.in_force = -1
        self._server = server
        self._buffer = bytearray()
        self._asked: list[LookUp] = []
        self._answering: asyncio.Task[None] | None = None
        self._working: set[asyncio.Task[None]] = set()
        self._transport: asyncio.Transport | None = None
        self._told: dict[int, asyncio.Future[bool]] = {}  # number → whether it was acknowledged

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport
        self._server.opened(self)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            for message in decode_frames(self._buffer):
                self._take(message)
        except ValueError as error:  # also msgspec's: it is one
            log.warning("a worker's connection is closed: %s", error)
            self.close()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._asked.clear()
        for number in list(self._told):
            self._acknowledge(number, is_done=False)
        self._server.closed(self)

    def write(self, frame: bytes) -> None:
        if self._transport is not None:
            self._transport.write(frame)

    def send(self, message: Message) -> None:
        self.write(encode_frame(message))

    def tell(self, make: Callable[[int], Message]) -> asyncio.Future[bool]:
        """Sends what `make` makes of a number. True once it is acknowledged, False when the connection ends before."""
        number = self._server.next_number()
        told: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._told[number] = told
        self.send(make(number))
        if self._transport is None:
            self._acknowledge(number, is_done=False)
        return told

    def _acknowledge(self, number: int, *, is_done: bool = True) -> None:
        told = self._told.pop(number)
        if not told.done():
            told.set_result(is_done)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def _take(self, message: Message) -> None:
        if isinstance(message, Hello):
            if message.version != VERSION:
                raise ValueError(f"worker {message.worker} speaks messages version {message.version}")
            self.hello = message
            self.send(Push(self._server.change, is_reset=True))
            if self._server.leases is not None:
                self._server.leases.greeted(self, message)
        elif isinstance(message, LookUp):
            self._asked.append(message)
            if self._answering is None:
                self._answering = asyncio.get_running_loop().create_task(self._answer())
        elif isinstance(message, Grant) and self._server.leases is not None:
            self._server.leases.asked(self, message)
        elif isinstance(message, Ack) and message.number in self._told:
            self._acknowledge(message.number)
        elif isinstance(message, Ack):
            self.in_force = max(self.in_force, message.number)
            self._server.moved()
        elif isinstance(message, Permits):
            self.send(self._server.rates.take(self, message, time.monotonic()))
        elif isinstance(message, GiveBack):
            self._server.rates.give_back(self, message, time.monotonic())
        elif isinstance(message, InUse):
            self._server.rates.note_use(self, message, time.monotonic())
        elif isinstance(message, OpenKey) and self._server.reveal_key is not None:
            self._start(self._open_key(message, self._server.reveal_key))
        elif isinstance(message, KeepResponse | FindResponse) and self._server.responses is not None:
            self._start(self._ask(message, self._server.responses))
        elif isinstance(message, FindEval) and self._server.evals is not None:
            self._start(self._ask(message, self._server.evals))
        elif isinstance(message, Health) and self.hello is not None:
            self._server.reported(self.hello.journal_id, message)
            self.send(Ping())

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._working.add(task)
        task.add_done_callback(self._working.discard)

    async def _ask(self, asked: Any, store: Responses | Evals) -> None:
        answer = await store.answer(asked)
        if answer is not None:
            self.send(answer)

    async def _open_key(self, asked: OpenKey, reveal: RevealKey) -> None:
        """Where it cannot be opened the worker gets no answer, and its caller a 503. Between the read and the answer nothing may be pushed."""
        change = -1
        try:
            while change != self._server.change:
                change = self._server.change
                found = await reveal(asked.account_id, asked.sub_account_id, asked.key_id)
        except Exception as error:  # noqa: BLE001  the database is away, or the sealing key is lost
            log.error("a stored provider key cannot be opened: %s", type(error).__name__)
            return
        if found is None:
            self.send(OpenedKey(asked.number))
        else:
            self.send(OpenedKey(asked.number, found[0].provider, found[0].origin, found[1]))

    async def _answer(self) -> None:
        """Answers what was asked, many in one query. Between the last read and the write of its answers nothing may be pushed."""
        try:
            while self._asked:
                batch = self._asked[:LOOK_UPS_PER_QUERY]
                del self._asked[: len(batch)]
                digests = [look_up.digest for look_up in batch]
                change = -1
                while change != self._server.change:
                    change = self._server.change
                    principals = await self._server.find_principals(digests)
                for look_up in batch:
                    self.send(Found(look_up.number, principals.get(look_up.digest)))
        except Exception as error:  # noqa: BLE001  the database is away: the worker's look-up times out as a 503, and later ones try again
            log.error("key look-ups failed: %s", type(error).__name__)
        finally:
            self._answering = None


def is_counter(name: str) -> bool:
    """By its name: messages.Health."""
    return name.partition(";")[0].endswith("_total")
