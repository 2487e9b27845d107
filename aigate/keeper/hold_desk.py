"""Where the keeper's own work (jobs, whole runs) gets its money: tries the transaction that holds, and sees to it when that is refused.

What only unused leases of workers stand in the way of is recalled and tried again; a limit that changes at this moment is waited for; what
does not fit is the caller's 402, as for calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from aigate.core.refusal import refusal
from aigate.errors import ledger_unavailable
from aigate.keeper.db.engine import Database
from aigate.keeper.db.grants import CHANGING, OVER
from aigate.keeper.db.holds import HoldRefused, InForce
from aigate.keeper.db.outbox import add_events
from aigate.keeper.leases import LeaseDesk

WAIT_S = 0.5  # for leases to come back
SETTLE_S = 1.5  # for limits to come into force
PAUSE_S = 0.02

T = TypeVar("T")


class HoldDesk:
    def __init__(self, database: Database, leases: LeaseDesk):
        self._database = database
        self._leases = leases

    async def write(self, query: Callable[[Connection, InForce], T], now_ms: int, *, what: str) -> T:
        """`query`: one transaction, which calls db/holds.py `reserve`. Raises 402, or 503 where nobody can say. `what`: for whom it holds."""
        if not await self._leases.is_open():
            raise _no_word()
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            try:
                return await self._database.write(query, self._leases.in_force())
            except HoldRefused as error:
                refused = error.refused
                waited_s = loop.time() - began
                if refused.reason == OVER or (refused.reason != CHANGING and waited_s > WAIT_S):
                    if error.events:
                        await self._database.write(add_events, error.events, now_ms)
                    raise refusal(refused, what=what) from None
                if waited_s > SETTLE_S:
                    raise _no_word() from None
            if refused.reason == CHANGING:
                await asyncio.sleep(PAUSE_S)
            else:
                await self._leases.relieve(refused.budget_id)
                await asyncio.sleep(PAUSE_S)


def _no_word() -> Exception:
    return ledger_unavailable("The budget cannot be checked now. Nothing was sent; retry shortly.")
