"""Usage as the control plane asks for it: whatever has settled is shipped before it is read, so an answer is never behind a reply."""

from __future__ import annotations

from aigate.journal.records import CallEnd
from aigate.keeper.db.engine import Database
from aigate.keeper.db.usage import TagTotals, Totals, recent_calls, usage_by_tag, usage_of_month
from aigate.keeper.shipper import Shipper


class UsageStore:
    def __init__(self, database: Database, shipper: Shipper):
        self._database = database
        self._shipper = shipper

    async def recent(self, *, limit: int, cursor: str | None, key_id: str | None) -> tuple[list[CallEnd], str | None]:
        await self._shipper.catch_up()
        return await self._database.read(recent_calls, limit=limit, cursor=cursor, key_id=key_id)

    async def by_tag(self, month: str, *, key_id: str | None) -> list[TagTotals]:
        await self._shipper.catch_up()
        return await self._database.read(usage_by_tag, month, key_id=key_id)

    async def of_month(self, month: str, *, key_id: str | None) -> Totals:
        await self._shipper.catch_up()
        return await self._database.read(usage_of_month, month, key_id=key_id)
