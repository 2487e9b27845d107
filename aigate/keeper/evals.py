"""Evals: made, run in the background, gone on with after a restart, and looked up as models. Owns which run and who waits for them.

How one is run is eval_run.py's. All that is known of a running eval is in its rows, so going on needs no more than its id.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from aigate.config import Evals as Settings
from aigate.core.budget import Owner
from aigate.core.evals import FAILED, RUNNING, Eval, Item, Result
from aigate.keeper.db.engine import Database
from aigate.keeper.db.evals import delete_old_evals, end_eval, find_alias, get_eval, give_back, list_evals, place_eval, read_results, running_evals
from aigate.keeper.db.holds import InForce
from aigate.keeper.eval_bounds import Bounds
from aigate.keeper.eval_run import EvalRun, Lane
from aigate.keeper.running import Running
from aigate.messages import FindEval, FoundEval

log = logging.getLogger("aigate.keeper")

AGAIN_S = 5.0  # after the database was away
DAY_MS = 86_400_000
LOOK_S = 3600.0
PAUSE_S = 0.1


class Desk(Protocol):
    """keeper/hold_desk.py"""

    async def write(self, query: Callable[[Connection, InForce], None], now_ms: int, *, what: str) -> None: ...


class EvalStore:
    def __init__(self, database: Database, *, lane: Lane, desk: Desk, bounds: Bounds, settings: Settings):
        self.settings = settings
        self._database = database
        self._lane = lane
        self._desk = desk
        self._bounds = bounds
        self._running = Running()
        self._runs: dict[str, EvalRun] = {}

    # --- for callers ------------------------------------------------------------------------------------------------------------

    async def create(self, new: Eval, items: list[Item], owners: Sequence[Owner]) -> Eval:
        """`owners`: whose budgets it is held on. Raises ClientError 402."""
        now_ms = int(time.time() * 1000)
        new = replace(new, id=f"eval_{now_ms:011x}{secrets.token_hex(6)}", created_ms=now_ms)  # rises with time, so that ids sort by age
        new = replace(new, summary={"answers": new.dataset_size * len(new.candidates), "answered": 0})
        new = replace(new, reserved_nanousd=self._bounds.of_eval(new, items))
        await self._desk.write(lambda connection, in_force: place_eval(connection, in_force, new, items, owners), now_ms, what="eval")
        self._start(new.id)
        return new

    async def wait(self, which: Eval, limit_s: float) -> Eval:
        """As it is when it ends, or after so long."""
        await self._running.wait(which.id, limit_s)
        return await self.get(which.account_id, None, which.id) or which

    async def get(self, account_id: str, owner_id: str | None, eval_id: str) -> Eval | None:
        found = await self._database.read(get_eval, account_id, owner_id, eval_id)
        return None if found is None else await self._with_progress(found)

    async def list(self, account_id: str, owner_id: str | None, limit: int, before_id: str | None) -> list[Eval]:
        return [await self._with_progress(each) for each in await self._database.read(list_evals, account_id, owner_id, limit, before_id)]

    async def results(self, eval_id: str, limit: int, after: tuple[int, int]) -> list[Result]:
        return await self._database.read(read_results, eval_id, limit, after)

    async def _with_progress(self, found: Eval) -> Eval:
        run = self._runs.get(found.id) if found.status == RUNNING else None
        return found if run is None else replace(found, summary={**found.summary, "answered": run.answered})

    # --- running ----------------------------------------------------------------------------------------------------------------

    async def go_on(self) -> None:
        """Until cancelled, and then all that run are: takes up what an earlier keeper left unfinished."""
        try:
            for eval_id in await self._read_running():
                self._start(eval_id)
            await asyncio.Event().wait()
        finally:
            await self._running.cancel()

    async def _read_running(self) -> list[str]:
        while True:
            try:
                return await self._database.read(running_evals)
            except SQLAlchemyError as error:
                log.error("running evals cannot be read: %s", type(error).__name__)
                await asyncio.sleep(AGAIN_S)

    def _start(self, eval_id: str) -> None:
        if eval_id not in self._running:
            run = self._runs[eval_id] = EvalRun(
                eval_id, self._database, lane=self._lane, bounds=self._bounds, concurrency=self.settings.concurrency
            )
            self._running.start(eval_id, self._run(eval_id, run))

    async def _run(self, eval_id: str, run: EvalRun) -> None:
        try:
            while not await self._has_ended(eval_id, run):
                await asyncio.sleep(AGAIN_S)
        finally:
            del self._runs[eval_id]

    async def _has_ended(self, eval_id: str, run: EvalRun) -> bool:
        try:
            await run.run()
            return True
        except* SQLAlchemyError as group:
            log.error("eval %s waits for the database: %s", eval_id, type(group.exceptions[0]).__name__)
        except* Exception as group:  # noqa: BLE001  a bug of ours: it must not leave an eval that never ends
            log.error("eval %s: %s", eval_id, type(group.exceptions[0]).__name__, exc_info=group)
            await self._database.write(give_back, eval_id, None, int(time.time() * 1000))
            ended = {"status": FAILED, "error": "an error of the gateway's own; its log says more", "ended_ms": int(time.time() * 1000)}
            await self._database.write(end_eval, eval_id, ended)
        return False

    async def expire(self) -> None:
        """Until cancelled: what is older is deleted, within the hour."""
        days = self.settings.retention_days
        while days:
            try:
                while await self._database.write(delete_old_evals, int(time.time() * 1000) - days * DAY_MS):
                    await asyncio.sleep(PAUSE_S)  # so that nothing else waits
            except SQLAlchemyError as error:
                log.error("old evals could not be removed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)

    # --- for workers --------------------------------------------------------------------------------------------------------------

    async def answer(self, asked: FindEval) -> FoundEval | None:
        """None: the database does not answer."""
        try:
            found = await self._database.write(find_alias, asked.account_id, asked.owner_id, asked.eval_id, int(time.time() * 1000))
        except SQLAlchemyError as error:
            log.error("an eval cannot be found: %s", type(error).__name__)
            return None
        if found is None:
            return FoundEval(asked.number)
        return FoundEval(asked.number, found.status, found.winner_model or "", found.error)
