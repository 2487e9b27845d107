"""Sends webhooks: hands events over to their receivers, tries what is due, writes down what came of it. Until it is told to stop.

What is on its way is a row, its next try a due time in it, so a crash loses nothing: what was being sent is sent again, with the same
delivery id. No workflow a delivery: between two tries there is nothing to do but to wait, and a row waits for free (ARCHITECTURE.md).
Few at once to a host, one to a host that failed last, so that a dead receiver holds up no other.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from typing import NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from aigate.core.webhook import Delivery, Try, next_try_ms, signature_headers
from aigate.keeper.db.deliveries import due_deliveries, hand_over_events, has_waiting_events, record_try, remove_old_deliveries
from aigate.keeper.db.engine import Database
from aigate.keeper.guarded import GuardedClient, Unreachable
from aigate.keeper.vault import VaultError
from aigate.keeper.webhooks.secrets import WebhookSecrets

log = logging.getLogger("aigate.keeper")

LOOK_S = 0.5
AT_ONCE = 64
HOSTS_KNOWN = 10_000
OUTAGE_S = 2.0  # before it looks again at a database that was away
CLEAN_UP_S = 3600.0
DAY_MS = 86_400_000
EVENTS_KEPT_DAYS = 62  # at least: an event's cause is known through the month after its own, so it is not told twice


class Policy(NamedTuple):
    """`delays_s`: between a failed try and the next; one try more than there are of them."""

    delays_s: tuple[float, ...]
    timeout_s: float
    per_host: int
    retention_days: int


class Deliverer:
    def __init__(self, database: Database, secrets: WebhookSecrets, client: GuardedClient, policy: Policy):
        self._database = database
        self._secrets = secrets
        self._client = client
        self._policy = policy
        self._sending: dict[str, asyncio.Task[None]] = {}  # by delivery id
        self._hosts: Counter[str] = Counter()  # of what is being sent
        self._failing: set[str] = set()  # hosts
        self._woken = asyncio.Event()
        self._stopping = False
        self._clean_up_at = 0.0

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self._woken.clear()
            try:
                await self._look()
            except Exception as error:  # noqa: BLE001  an outage, mostly; whatever it is, nobody would notice that this had ended
                log.error("webhooks wait: %s", type(error).__name__)
                await asyncio.sleep(OUTAGE_S)
            try:
                async with asyncio.timeout(LOOK_S):
                    await self._woken.wait()
            except TimeoutError:
                pass  # time to look again

    async def drain(self, limit_s: float) -> None:
        """Lets what is being sent end; what does not is sent again by the next keeper."""
        self._stopping = True
        if self._sending:
            await asyncio.wait(self._sending.values(), timeout=limit_s)
        left = list(self._sending.values())
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    # --- one look ---

    async def _look(self) -> None:
        while await self._database.read(has_waiting_events):
            await self._database.write(hand_over_events, _now_ms())
        await self._start_due()
        if time.monotonic() >= self._clean_up_at:
            await self._clean_up()
            self._clean_up_at = time.monotonic() + CLEAN_UP_S

    async def _start_due(self) -> None:
        while (room := AT_ONCE - len(self._sending)) > 0 and not self._stopping:
            full = [host for host, count in self._hosts.items() if count >= self._room_of(host)]
            due = await self._database.read(due_deliveries, _now_ms(), room, but_hosts=full, but_ids=list(self._sending))
            started = sum(self._start(delivery) for delivery in due)
            if not started:
                return

    def _room_of(self, host: str) -> int:
        return 1 if host in self._failing else self._policy.per_host

    def _start(self, delivery: Delivery) -> bool:
        if self._hosts[delivery.host] >= self._room_of(delivery.host) or self._stopping:
            return False
        self._hosts[delivery.host] += 1
        self._sending[delivery.id] = asyncio.create_task(self._send(delivery))
        return True

    def _note_host(self, host: str, answers: bool) -> None:
        if answers or len(self._failing) >= HOSTS_KNOWN:
            self._failing.discard(host)
        else:
            self._failing.add(host)

    async def _clean_up(self) -> None:
        days = self._policy.retention_days
        if not days:
            return
        now_ms = _now_ms()
        before = now_ms - days * DAY_MS, now_ms - max(days, EVENTS_KEPT_DAYS) * DAY_MS
        while await self._database.write(remove_old_deliveries, *before):
            await asyncio.sleep(0.1)  # so that nothing else waits

    # --- one try ---

    async def _send(self, delivery: Delivery) -> None:
        try:
            done = await self._try(delivery)
            self._note_host(delivery.host, done.is_success)
            due_ms = None if done.is_success else next_try_ms(self._policy.delays_s, delivery.round + 1, _now_ms(), random.random())
            await self._database.write(record_try, delivery.id, done, due_ms)
            if due_ms is not None and due_ms - _now_ms() < LOOK_S * 1000:
                asyncio.get_running_loop().call_later((due_ms - _now_ms()) / 1000, self._woken.set)
            if due_ms is None and not done.is_success:
                log.warning("webhook %s was given up after %d tries: %s", delivery.id, delivery.attempts + 1, done.error or done.status)
        except (SQLAlchemyError, VaultError) as error:
            log.error("webhook %s waits: %s", delivery.id, type(error).__name__)
            await asyncio.sleep(OUTAGE_S)  # it stays due
        finally:
            self._sending.pop(delivery.id, None)
            self._hosts[delivery.host] -= 1
            if not self._hosts[delivery.host]:
                del self._hosts[delivery.host]
            self._woken.set()

    async def _try(self, delivery: Delivery) -> Try:
        body = delivery.body.encode()
        secrets = await self._secrets.valid(delivery.secret_owner_id, delivery.account_id)
        headers = {
            "content-type": "application/json",
            **signature_headers(secrets, body, int(time.time())),
            "aig-delivery-id": delivery.id,
            "aig-attempt": str(delivery.attempts + 1),
            "aig-event": delivery.event_type,
        }
        started = time.time()
        status, error = 0, ""
        try:
            status = await self._client.post(delivery.url, body, headers, self._policy.timeout_s)
            if 300 <= status <= 399:
                error = "redirects are not followed"
        except Unreachable as unreachable:
            error = str(unreachable)
        except Exception as failure:  # noqa: BLE001  whatever it is, it must not be tried without end
            log.error("webhook %s: %s", delivery.id, type(failure).__name__)
            error = f"it could not be sent ({type(failure).__name__})"
        return Try(int(started * 1000), int((time.time() - started) * 1000), status, error)


def _now_ms() -> int:
    return int(time.time() * 1000)
