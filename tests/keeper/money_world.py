"""A keeper's desk for leases, its database, and the workers that a test starts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from sqlalchemy import select, text

from aigate.core.account import Cap
from aigate.core.budget import Owner
from aigate.keeper.db.engine import Database
from aigate.keeper.db.limits import set_limit
from aigate.keeper.db.tables import leases
from aigate.keeper.ledger import verify
from tests.keeper.money_worker import Desk, MoneyWorker

KEY: Owner = ("key", "acc_1", "key_1")
SUB: Owner = ("sub_account", "acc_1", "sa_1")
TAG: Owner = ("tag", "acc_1", "spring")


class World:
    """One keeper."""

    def __init__(self, database: Database, folder: Path):
        self.database = database
        self.folder = folder / "journals"
        self.folder.mkdir(exist_ok=True)
        self.socket = folder / "k"
        self.desk = Desk(database, self.folder, self.socket)
        self.workers: list[MoneyWorker] = []

    async def worker(self, *, is_welcome: bool = True) -> MoneyWorker:
        worker = MoneyWorker(self.folder, f"jrn_{len(self.workers)}")
        self.workers.append(worker)
        return await worker.connect(self.socket, is_welcome=is_welcome)

    def limit(self, owner: Owner, limit: int | None, mode: str = "clamp", *, is_new: bool = True) -> int:
        """The budget's id."""
        self.database.write_now(set_limit, owner, Cap(limit, mode), 1, is_new_owner=is_new)
        return self.standing(owner).budget_id

    def standing(self, owner: Owner) -> Any:
        return self.database.read_now(_standing_then, owner)

    def rows(self, table: Any) -> list[Any]:
        return self.database.read_now(lambda connection: connection.execute(select(table)).all())

    async def rest(self) -> None:
        """Every worker dead, every journal read to its end, and everything adds up."""
        for worker in self.workers:
            await worker.die()
        await self.desk.look_and_ship()
        report = self.database.read_now(verify)
        assert report.counts.keys() <= {"price", "cost", "no_call", "unsettled", "resolved", "overrun", "over_limit"}, report.findings
        assert self.rows(leases) == []


def _standing_then(connection: Any, owner: Owner) -> Any:
    """As of the tests' month."""
    query = text(
        "SELECT b.id AS budget_id, coalesce(w.spent_nanousd, 0) AS spent, coalesce(w.reserved_nanousd, 0) AS reserved, "
        "coalesce(w.leased_nanousd, 0) AS leased FROM budgets b LEFT JOIN windows w ON w.budget_id = b.id AND w.\"window\" IN ('2023-11', 'all') "
        "WHERE b.scope = :scope AND b.account_id = :account AND b.owner_id = :id"
    )
    return connection.execute(query, dict(zip(("scope", "account", "id"), owner, strict=True))).one()


Run = Callable[[Callable[[World], Awaitable[None]]], None]


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.002)
