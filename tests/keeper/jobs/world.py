"""Jobs in this process for tests: a real database, engine, blob store and client, a real provider on a loopback port. No workers."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace
from sqlalchemy import select

from aigate.catalog.load import Catalog, load_catalog
from aigate.config import Config, Jobs, ModelConfig, ProviderConfig, Server
from aigate.core.account import Cap, Whose
from aigate.core.budget import Owner
from aigate.core.call import Principal
from aigate.core.job_state import Job, NewJob
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import HttpRequest, JobDialect, Polled, Result, Submitted
from aigate.jobdialects.family import read_object
from aigate.jobdialects.openai_videos import OpenAIVideos
from aigate.keeper.blobs import LocalBlobs
from aigate.keeper.db.engine import Database
from aigate.keeper.db.limits import find_standings, set_limit
from aigate.keeper.db.tables import attempts, calls, outbox
from aigate.keeper.durable.engine import Engine
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.jobs.build import JobDesk, Parts
from aigate.keeper.jobs.work import Pace
from aigate.keeper.leases import InForce
from aigate.keeper.ledger import verify
from tests.keeper.jobs.media_provider import MediaProvider

CALLER = Principal(key_id="key_1", account_id="acc_1", sub_account_id="sa_1")
WHOSE = Whose("acc_1", sub_account_id="sa_1")
SUB: Owner = ("sub_account", "acc_1", "sa_1")
SECOND_NANOUSD = 10**8  # the test model's price


class Leases:
    """As where there are no workers: nothing is leased, every limit in force."""

    async def is_open(self) -> bool:
        return True

    def in_force(self) -> InForce:
        return InForce(1 << 60, frozenset())

    async def relieve(self, budget_id: int) -> None: ...


class WithKeys(OpenAIVideos):
    """The same form for a provider that knows idempotency keys."""

    has_idempotency_key = True

    def write_submit(self, request: Any, target: Any, key: str, webhook_url: str | None) -> Any:
        asked = super().write_submit(request, target, key, webhook_url)
        return replace(asked, headers={**asked.headers, "idempotency-key": key})


class WithLookUp(WithKeys):
    """… for one that can be asked which job a key has made, and makes another one for the same key."""

    has_idempotency_key, can_look_up = False, True

    def write_look_up(self, key: str, target: Any) -> HttpRequest:
        return HttpRequest(url=f"/videos?key={key}")

    def read_look_up(self, reply: Any, key: str, target: Any) -> Submitted | None:
        found = read_object(reply)["data"]
        return Submitted(handle=found[0]["id"]) if found else None


class AtOnce(OpenAIVideos):
    """… for one whose answer to a submission is the video."""

    def write_submit(self, request: Any, target: Any, key: str, webhook_url: str | None) -> Any:
        return replace(super().write_submit(request, target, key, webhook_url), is_media=True)

    def read_submit(self, reply: Any, request: Any, target: Any) -> Submitted:
        return Submitted(handle="", polled=Polled(state="completed", results=(Result(),)))


class World:
    """One keeper's jobs. `desk` is made anew by `restart`, as a crash would leave it: nothing is drained."""

    def __init__(self, database: Database, folder: Path, provider: MediaProvider, *, sim_base_url: str | None = None, **jobs: Any):
        self._sim_base_url = sim_base_url
        self.database = database
        self.folder = folder
        self.provider = provider
        self.settings = Jobs(**{"poll_max_s": 0.1, **jobs})
        self.dialects: Mapping[str, JobDialect] = JOB_DIALECTS
        self.blobs = LocalBlobs(folder / "files")
        self._running: list[asyncio.Task[Any]] = []

    @property
    def config(self) -> Config:
        return Config(
            server=Server(data_dir=str(self.folder)),
            jobs=self.settings,
            providers={
                "media": ProviderConfig(jobs="openai-videos", base_url=self.provider.url, api_key="none"),
                "google": ProviderConfig(base_url=self.provider.url, api_key="none"),
            },
            models={"media/clip": ModelConfig(modality="video", usd_per_second=0.1)},
        )

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[World]:
        self.start()
        try:
            yield self
        finally:
            await self.stop()

    def start(self) -> None:
        self.engine = Engine(self.folder, hurry=10)
        catalog: Catalog = load_catalog(self.config, sim_base_url=self._sim_base_url)
        self.desk = JobDesk(
            self.config, self.database, catalog, Parts(Leases(), self.engine, self.blobs, GuardedClient(allow_loopback=True)),
            dialects=self.dialects, pace=Pace(0.02, 0.05, 0.05, is_queued=False),
        )  # type: ignore[arg-type]  # fmt: skip
        self.service = self.desk.service
        work = (self.engine.run(), self.desk.runner.run())
        self._running = [asyncio.get_running_loop().create_task(each) for each in work]

    async def stop(self, drain_s: float = 5.0) -> None:
        await self.engine.drain(drain_s)
        await self.desk.close()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def restart(self) -> None:
        await self.stop(0.0)
        await self.database.write(lambda connection: None)  # what was being written is written: a crash leaves it whole or not at all
        self.start()

    # --- what tests say and ask ---

    async def submit(self, prompt: str = "a boat", *, key: str | None = None, model: str = "media/clip", **fields: Any) -> Job:
        call_id = f"req_{time.monotonic_ns():x}"
        given = {"prompt": prompt, "duration": 4.0, "extra": {}, **fields}
        new = NewJob(modality="video", model=model, fields=given, idempotency_key=key, digest=prompt.encode(), call_id=call_id)
        return (await self.service.submit(new, CALLER))[0]

    async def get(self, job: Job) -> Job:
        found = await self.service.get(WHOSE, job.id)
        assert found is not None
        return found

    async def until(self, job: Job, *stages: str, limit_s: float = 20.0) -> Job:
        async with asyncio.timeout(limit_s):
            while (found := await self.get(job)).stage not in stages:
                await asyncio.sleep(0.02)
        return found

    async def limit(self, owner: Owner, nanousd: int) -> None:
        await self.database.write(set_limit, owner, Cap(nanousd), 1, is_new_owner=True)

    async def standing(self, owner: Owner) -> tuple[int, int]:
        """(spent, reserved)."""
        found = (await self.database.read(find_standings, [owner]))[owner]
        return found.spent, found.reserved

    async def rows(self, table: Any) -> list[Any]:
        return await self.database.read(lambda connection: list(connection.execute(select(table))))

    async def is_sound(self) -> None:
        report = await self.database.read(verify)
        assert report.is_sound, report.findings

    async def events(self) -> list[tuple[str, Any]]:
        return [(row.type, row.payload) for row in await self.rows(outbox)]


TABLES = attempts, calls
