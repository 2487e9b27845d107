"""Usage as the control plane asks for it: whatever has settled is shipped before it is read, so an answer is never behind a reply."""

from __future__ import annotations

from aigate.core.account import Page, Whose
from aigate.journal.records import CallEnd
from aigate.keeper.db.engine import Database
from aigate.keeper.db.usage import LabelTotals, recent_calls, usage_by, usage_in_days
from aigate.keeper.shipper import Shipper


class UsageStore:
    def __init__(self, database: Database, shipper: Shipper):
        self._database = database
        self._shipper = shipper

    async def recent(self, *, limit: int, cursor: str | None, whose: Whose) -> tuple[list[CallEnd], str | None]:
        await self._shipper.catch_up()
        return await self._database.read(recent_calls, limit=limit, cursor=cursor, whose=whose)

    async def by(self, dimension: str, month: str, whose: Whose, page: Page | None = None) -> list[LabelTotals]:
        await self._shipper.catch_up()
        return await self._database.read(usage_by, dimension, month, whose, page)

    async def by_in_days(self, dimension: str, first_day: str, last_day: str, whose: Whose) -> list[LabelTotals]:
        await self._shipper.catch_up()
        return await self._database.read(usage_in_days, dimension, first_day, last_day, whose)
