"""All batches of this node: taken in, carried to their end, gone on with after any end of a keeper. Owns which run, not what a run does.

The row is the truth of where a batch is. Its lines are run.py's; its end (files, sums, event) is a workflow of the durable engine, each step
of which may be done twice.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
from sqlalchemy import Connection

from aigate.core.account import Tenant
from aigate.core.batch import (
    CANCELLED,
    FINALIZING,
    IN_PROGRESS,
    VALIDATING,
    WINDOW_MS,
    Batch,
    NewBatch,
    batch_record,
)  # fmt: skip
from aigate.core.batch_lines import InputCheck
from aigate.core.file import BATCH, BATCH_OUTPUT, Listing, StoredFile
from aigate.errors import ClientError, GatewayError
from aigate.keeper.batches.run import BatchRun, Means
from aigate.keeper.batches.slots import Slots
from aigate.keeper.batches.spool import ERRORS, OUTPUT, Spool
from aigate.keeper.db.batches import add_batch, cancel_batch, end_batch, get_batch, list_batches, unfinished_batches, usage_of
from aigate.keeper.db.outbox import Event, add_events
from aigate.keeper.durable.engine import Engine
from aigate.keeper.outage import patiently, place_of

log = logging.getLogger("aigate.keeper")

RUNNING_AT_ONCE = 256  # one that waits for a provider is among them
ENGINE_PAUSE_S = 30.0
FINISH = "batch.finish.1"

CheckUrl = Callable[[str, str], Awaitable[None]]  # URL, field


class BatchDesk:
    """`check_url`: refuses a URL that nothing is ever sent to. `folder`: of the spools. `max_lines`: of one batch. `at_once`: batches that
    run; the others wait for their turn."""

    def __init__(
        self, means: Means, engine: Engine, folder: Path, *, check_url: CheckUrl, max_lines: int, at_once: int = RUNNING_AT_ONCE
    ):
        self._means = means
        self._database = means.database
        self._files = means.files
        self._engine = engine
        self._folder = folder
        self._max_lines = max_lines
        self._check_url = check_url
        self._turns = Slots(at_once)
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, BatchRun] = {}
        engine.register(FINISH, self._finish)

    # --- for callers ---

    async def add(self, tenant: Tenant, key_id: str, asked: NewBatch) -> Batch | None:
        """None: there is no such file. ClientError for one that no batch can be made of: then there is no batch."""
        file = await self._files.get(tenant, asked.input_file_id)
        if file is None:
            return None
        if file.purpose != BATCH:
            words = f"input_file_id: the file was uploaded with the purpose {file.purpose!r}; a batch reads files of the purpose 'batch'."
            raise ClientError(words, param="input_file_id")
        if asked.webhook_url is not None:
            await self._check_url(asked.webhook_url, "webhook_url")
        now_ms = int(time.time() * 1000)
        batch = Batch(
            id=f"batch_{now_ms:011x}{secrets.token_hex(6)}",  # rises with time
            account_id=tenant[0],
            owner_id=tenant[1],
            key_id=key_id,
            total=await self._count_lines(file.id),
            created_ms=now_ms,
            expires_ms=now_ms + WINDOW_MS,
            **msgspec.structs.asdict(asked),
        )
        await self._database.write(add_batch, batch)
        self._start(batch.id, batch.owner_id, batch.status)
        return batch

    async def get(self, tenant: Tenant, batch_id: str) -> Batch | None:
        found = await self._database.read(get_batch, batch_id)
        return found if found is not None and (found.account_id, found.owner_id) == tenant else None

    async def list(self, tenant: Tenant, page: Listing) -> list[Batch]:
        return await self._database.read(list_batches, tenant, page)

    async def cancel(self, tenant: Tenant, batch_id: str) -> Batch | None:
        """What runs comes to its end, and what is done is kept. One that has ended stays as it is."""
        found = await self.get(tenant, batch_id)
        if found is None or not await self._database.write(cancel_batch, batch_id, int(time.time() * 1000)):
            return found
        run = self._runs.get(batch_id)
        if run is not None:
            run.stop(CANCELLED)
        else:  # it waits for its turn, and need not any more
            self._tasks[batch_id].cancel()
            self._start(batch_id, tenant[1], "")
        return await self.get(tenant, batch_id)

    async def _count_lines(self, file_id: str) -> int:
        """Reads the whole input, in a thread. Raises ClientError for what no batch can be made of."""
        check = InputCheck(self._max_lines, self._means.max_line_bytes)
        async for piece in await self._files.read(file_id):
            await asyncio.to_thread(check.feed, piece)
        await asyncio.to_thread(check.end)
        return check.total

    # --- own ---

    async def run(self) -> None:
        """Until cancelled. First what the keeper before left."""
        try:
            for batch_id, owner_id, status in await patiently(self._database.read, unfinished_batches):
                self._start(batch_id, owner_id, status)
            await asyncio.Event().wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)
            await self._means.native.client.close()

    def _start(self, batch_id: str, owner_id: str, status: str) -> None:
        has_lines_to_send = status in (VALIDATING, IN_PROGRESS)
        work = self._carry_in_turn(batch_id, owner_id) if has_lines_to_send else self._carry(batch_id)
        self._tasks[batch_id] = task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda done: self._forget(batch_id, done))

    def _forget(self, batch_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(batch_id) is task:
            del self._tasks[batch_id]
        if not task.cancelled() and (problem := task.exception()) is not None:
            log.error("batch %s stands still until the next start: %s", batch_id, place_of(problem))

    async def _carry_in_turn(self, batch_id: str, owner_id: str) -> None:
        await self._turns.take(owner_id)
        try:
            await self._carry(batch_id)
        finally:
            self._turns.give(owner_id)

    async def _carry(self, batch_id: str) -> None:
        batch = await patiently(self._database.read, get_batch, batch_id)
        assert batch is not None
        if batch.status != FINALIZING:
            self._runs[batch_id] = run = BatchRun(batch, self._means, self._spool(batch_id))
            try:
                await run.run()
            finally:
                del self._runs[batch_id]
        while True:
            try:
                await self._engine.start_workflow(FINISH, f"{FINISH}:{batch_id}", batch_id)
                return
            except GatewayError as error:
                log.error("batch %s cannot be finished yet: %s", batch_id, error.message)
            await asyncio.sleep(ENGINE_PAUSE_S)

    # --- its end, step by step; in the engine's thread ---

    def _finish(self, batch_id: str) -> None:
        self._engine.step("files", self._keep_files, batch_id)
        self._engine.step("end", self._end, batch_id)

    async def _keep_files(self, batch_id: str) -> None:
        batch = await self._database.read(get_batch, batch_id)
        assert batch is not None and batch.finalizing_ms is not None
        spool = self._spool(batch_id)
        for kind, file_id in ((OUTPUT, batch.output_file_id), (ERRORS, batch.error_file_id)):
            if file_id is None:
                continue
            life_s = batch.output_expires_s
            file = StoredFile(
                id=file_id,
                account_id=batch.account_id,
                owner_id=batch.owner_id,
                filename=f"{batch_id}_{kind}.jsonl",
                purpose=BATCH_OUTPUT,
                size_bytes=0,
                created_ms=batch.finalizing_ms,
                expires_ms=None if life_s is None else batch.finalizing_ms + life_s * 1000,
            )
            await self._files.add_local(file, spool.path(kind))

    async def _end(self, batch_id: str) -> None:
        await self._means.settled()
        await self._database.write(_end_batch, batch_id, int(time.time() * 1000))
        await asyncio.to_thread(self._spool(batch_id).remove)

    def _spool(self, batch_id: str) -> Spool:
        return Spool(self._folder, batch_id)


def _end_batch(connection: Connection, batch_id: str, now_ms: int) -> None:
    batch = end_batch(connection, batch_id, now_ms, usage_of(connection, batch_id))
    if batch is not None:
        add_events(connection, [_ended_event(batch)], now_ms)


def _ended_event(batch: Batch) -> Event:
    type_ = f"batch.{batch.status}"
    return Event(
        type_,
        batch.account_id,
        f"{type_} {batch.id}",
        batch_record(batch),
        sub_account_id=None if batch.owner_id == batch.key_id else batch.owner_id,
        key_id=batch.key_id,
        url=batch.webhook_url,
        subject=batch.id,
    )
