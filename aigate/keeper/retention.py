"""Removes ledger rows that are older than the operator keeps them: whole months, a little at a time, so that nothing else waits."""

from __future__ import annotations

import asyncio
import logging
import time

from sqlalchemy.exc import SQLAlchemyError

from aigate.keeper.db.engine import Database
from aigate.keeper.db.ledger_rows import month_of
from aigate.keeper.db.upkeep import remove_old_rows

log = logging.getLogger("aigate.keeper")

LOOK_S = 3600.0
PAUSE_S = 0.1
DAY_MS = 86_400_000


async def keep_days(database: Database, days: int) -> None:
    """Until cancelled. 0 days: everything is kept."""
    while days:
        try:
            await remove_older(database, int(time.time() * 1000) - days * DAY_MS)
        except SQLAlchemyError as error:
            log.error("old rows could not be removed: %s", type(error).__name__)
        await asyncio.sleep(LOOK_S)


async def remove_older(database: Database, than_ms: int) -> None:
    """The month of `than_ms` is kept."""
    while await database.write(remove_old_rows, month_of(than_ms)):
        await asyncio.sleep(PAUSE_S)
