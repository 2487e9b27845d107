"""Evals: made, run under the durable engine, and looked up as models. Owns who waits for one; how one is run is eval_run.py's."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from aigate.config import Evals as Settings
from aigate.core.evals import RUNNING, Eval, Item, Result
from aigate.keeper.db.engine import Database
from aigate.keeper.db.evals import delete_old_evals, find_alias, get_eval, list_evals, read_results
from aigate.keeper.eval_bounds import Bounds
from aigate.keeper.eval_run import EvalRun, Lane
from aigate.messages import FindEval, FoundEval

log = logging.getLogger("aigate.keeper")

WORKFLOW = "eval"  # name of what the engine runs; the eval's id is its argument
DAY_MS = 86_400_000
LOOK_S = 3600.0
PAUSE_S = 0.1


class Holds(Protocol):
    async def place(self, new: Eval, items: Sequence[Item], hold_nanousd: int) -> Eval:
        """Kept, with its hold on every budget of its key and tag, in one transaction. Raises ClientError 402."""

    async def give_back(self, eval_id: str, amount_nanousd: int | None) -> None:
        """At most what is left of it; None: all of that."""


class Engine(Protocol):
    async def start_workflow(self, name: str, workflow_id: str, *args: Any) -> None: ...


class EvalStore:
    def __init__(self, database: Database, *, lane: Lane, holds: Holds, engine: Engine, bounds: Bounds, settings: Settings):
        self.settings = settings
        self._database = database
        self._lane = lane
        self._holds = holds
        self._engine = engine
        self._bounds = bounds
        self._ends: dict[str, asyncio.Event] = {}  # of evals made here that still run
        self._runs: dict[str, EvalRun] = {}

    # --- for callers ------------------------------------------------------------------------------------------------------------

    async def create(self, new: Eval, items: list[Item]) -> Eval:
        now_ms = int(time.time() * 1000)
        new = replace(new, id=f"eval_{now_ms:011x}{secrets.token_hex(6)}", created_ms=now_ms)  # rises with time, so that ids sort by age
        new = replace(new, summary={"answers": new.dataset_size * len(new.candidates), "answered": 0})
        made = await self._holds.place(new, items, self._bounds.of_eval(new, items))
        self._ends[made.id] = asyncio.Event()
        await self._engine.start_workflow(WORKFLOW, made.id, made.id)
        return made

    async def wait(self, which: Eval, limit_s: float) -> Eval:
        """As it is when it ends, or after so long."""
        end = self._ends.get(which.id)
        if end is not None:
            with contextlib.suppress(TimeoutError):  # then it is told as it runs
                async with asyncio.timeout(limit_s):
                    await end.wait()
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

    # --- for the engine ---------------------------------------------------------------------------------------------------------

    async def run(self, eval_id: str) -> None:
        """To its end, from wherever it was. Nothing happens where it has ended."""
        run = self._runs[eval_id] = EvalRun(
            eval_id, self._database, lane=self._lane, give_back=self._holds.give_back, bounds=self._bounds, concurrency=self.settings.concurrency
        )
        try:
            await run.run()
        finally:
            del self._runs[eval_id]
            end = self._ends.pop(eval_id, None)
            if end is not None:
                end.set()

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
