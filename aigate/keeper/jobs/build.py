"""Puts the parts of jobs together. The keeper's app calls it once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from aigate.catalog.load import Catalog
from aigate.config import Config
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import JobDialect
from aigate.keeper.blobs import Blobs
from aigate.keeper.db.engine import Database
from aigate.keeper.durable.engine import Engine
from aigate.keeper.durable.node import node_id
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.client import ProviderClient
from aigate.keeper.jobs.finish import Finish
from aigate.keeper.jobs.links import LinkKeys
from aigate.keeper.jobs.results import ResultStore
from aigate.keeper.jobs.runner import JobRunner
from aigate.keeper.jobs.service import JobService
from aigate.keeper.jobs.submit import Submission
from aigate.keeper.jobs.work import JobWork, Manner, Pace
from aigate.keeper.leases import LeaseDesk
from aigate.keeper.vault import Vault


class Parts(NamedTuple):
    """Of the keeper, which jobs share with others."""

    leases: LeaseDesk
    engine: Engine
    blobs: Blobs
    guarded: GuardedClient


class JobDesk:
    """`service` is what routes are given, `runner` what the keeper runs. `run` and `close` are the keeper's to call."""

    def __init__(
        self,
        config: Config,
        database: Database,
        catalog: Catalog,
        parts: Parts,
        *,
        dialects: Mapping[str, JobDialect] = JOB_DIALECTS,
        pace: Pace = Pace(),
    ):
        leases, engine, blobs, guarded = parts
        data_dir = Path(config.server.data_dir).resolve()
        settings = config.jobs
        vault = Vault(data_dir / "provider.key", config.auth.provider_key)
        node = node_id(data_dir)
        self._client = ProviderClient(guarded)
        base_url = config.server.public_url.rstrip("/") or config.server.url
        manner = Manner(base_url, settings.retention_days, dialects, pace)
        work = JobWork(database, catalog, self._client, LinkKeys(database, vault), manner)
        self.results = ResultStore(database, blobs, self._client, max_bytes=settings.max_result_bytes)
        submission = Submission(work, self.results, guarded, node)
        finish = Finish(work, self.results)
        self.runner = JobRunner(work, submission, finish, engine=engine, settings=settings, node=node)
        self.service = JobService(work, self.runner, self.results, holds=HoldDesk(database, leases), guarded=guarded, settings=settings)

    async def close(self) -> None:
        await self.runner.close()
        await self._client.close()
