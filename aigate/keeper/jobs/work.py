"""What every part of a job's life needs: its row, its target, its price, its event, its end. One per keeper; shared by submission, polls, finish."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import replace

from aigate.api.job_record import Links, job_record
from aigate.catalog.load import Catalog
from aigate.core.job import JobRequest
from aigate.core.job_state import COMPLETED, FAILED, Job
from aigate.core.target import Price, Target
from aigate.errors import GateError
from aigate.jobdialects import JOB_DIALECTS
from aigate.jobdialects.dialect import JobDialect
from aigate.keeper.db.engine import Database
from aigate.keeper.db.jobs import Ending, change_job, end_job, get_job, stop_job
from aigate.keeper.db.outbox import Event
from aigate.keeper.db.prices import prices_by_id
from aigate.keeper.jobs.client import ProviderClient
from aigate.keeper.jobs.ends import call_record, event_type, failed_values, settled_record
from aigate.keeper.jobs.links import LinkKeys

MAX_ERROR_CHARS = 500
DAY_MS = 86_400_000


class Pace(NamedTuple):
    """How quickly things follow each other, in seconds."""

    look_s: float = 0.25  # jobs that are due within this time are looked for together
    first_poll_s: float = 1.0  # after the submission; longer from poll to poll
    first_wait_s: float = 1.0  # before what failed is tried again; doubles
    is_queued: bool = True  # workflows wait for their turn; a new queue of the engine takes a second to come to life


class Manner(NamedTuple):
    """`base_url`: where others reach this gateway, for links in events."""

    base_url: str
    retention_days: int
    dialects: Mapping[str, JobDialect] = JOB_DIALECTS
    pace: Pace = Pace()


class JobWork:
    def __init__(self, database: Database, catalog: Catalog, client: ProviderClient, links: LinkKeys, manner: Manner):
        self.database = database
        self.catalog = catalog
        self.client = client
        self.links = links
        self._base_url = manner.base_url
        self.retention_ms = manner.retention_days * DAY_MS
        self.dialects = manner.dialects
        self.pace = manner.pace
        self._prices: dict[str, Price] = {}
        self.news = asyncio.Event()  # some job has come to another stage: the loop looks what is due

    def target(self, job: Job) -> tuple[Target, JobDialect]:
        """Raises ClientError where the operator has taken its model away since."""
        target = self.catalog.resolve_job(job.model, job.modality)
        return target, self.dialects[target.dialect]

    def hook_url(self, job: Job) -> str | None:
        """Where a provider may say that it is done; None where nobody outside reaches this gateway."""
        if not self._base_url.startswith("https://"):
            return None
        return f"{self._base_url}/v1/hooks/jobs/{job.id}/{job.hook_token}"

    async def get(self, job_id: str) -> Job | None:
        return await self.database.read(get_job, job_id)

    async def change(self, job_id: str, from_stages: Collection[str], **values: object) -> Job | None:
        changed = await self.database.write(change_job, job_id, from_stages, values | {"updated_ms": now_ms()})
        self.wake()
        return changed

    def wake(self) -> None:
        self.news.set()

    # --- ends -------------------------------------------------------------------------------------------------------------------

    async def fail(self, job: Job, from_stages: Collection[str], error: tuple[str, str], units: Mapping[str, int] | None = None) -> Job | None:
        """Failed as `error` (code, message) says, unless it is over for its caller already. A failed job costs nothing; `units`: what one
        that was cancelled has cost."""
        code, message = error
        values = {} if job.is_over else failed_values(code, message[:MAX_ERROR_CHARS], now_ms())
        ended = replace(job, **values, stage=FAILED)
        return await self.end(job, from_stages, ended, units or {})

    async def end(self, job: Job, from_stages: Collection[str], ended: Job, units: Mapping[str, int], reported: bytes = b"") -> Job | None:
        """One transaction: the job as `ended` says, its money, its event. None where it is in another stage by now."""
        settled = settled_record(ended, await self.price(job.price_id), units, reported=reported)
        ended = replace(ended, cost_nanousd=settled.cost_nanousd)
        call = settled.call
        assert call is not None
        return await self._end(job, from_stages, ended, Ending(stage=ended.stage, values={}, settled=settled, call=call))

    async def end_unknown(self, job: Job, from_stages: Collection[str], code: str, message: str) -> Job | None:
        """Nobody can say what it costs: its hold stays reserved until an operator says so."""
        values = {} if job.is_over else failed_values(code, message, now_ms())
        ended = replace(job, **{**values, "cost_nanousd": None}, stage=FAILED)
        return await self._end(job, from_stages, ended, Ending(stage=FAILED, values={}, settled=None, call=call_record(ended, 0)))

    async def stop(self, job: Job, code: str, message: str) -> None:
        """Over for its caller, with its event; what it costs is still to be heard."""
        now = now_ms()
        over = {**failed_values(code, message, now), "cost_nanousd": None}
        event = await self.event(replace(job, **over, stage=FAILED))
        await self.database.write(stop_job, job.id, over, [event], now)
        self.wake()

    async def _end(self, job: Job, from_stages: Collection[str], ended: Job, ending: Ending) -> Job | None:
        ended = replace(ended, expires_ms=(ended.ended_ms or now_ms()) + self.retention_ms)
        events = () if job.is_over else (await self.event(ended),)
        ending = replace(ending, values=_changed(job, ended), events=events)
        return await self.database.write(end_job, job.id, from_stages, ending, now_ms())

    def wait_ms(self, tries: int, most_s: float) -> int:
        """Before the next try, after so many."""
        return int(min(self.pace.first_wait_s * 2**tries, most_s) * 1000)

    async def event(self, job: Job) -> Event:
        key = await self.links.key() if job.stage == COMPLETED else None
        record = job_record(job, Links(self._base_url, key, now_ms() // 1000))
        kind = event_type(job)
        owner: dict[str, Any] = {"sub_account_id": job.sub_account_id, "key_id": job.key_id}
        return Event(kind, job.account_id, f"{kind} {job.id}", record, **owner, url=job.webhook_url, subject=job.id)

    async def price(self, price_id: str) -> Price | None:
        if price_id and price_id not in self._prices:
            self._prices |= await self.database.read(prices_by_id, [price_id])
        return self._prices.get(price_id)


def request_of(job: Job) -> JobRequest:
    return msgspec.json.decode(job.request, type=JobRequest)


def error_of(error: GateError, target: Target | None = None) -> str:
    """Its words, without what must not be read in them."""
    message = error.message
    if target is not None and target.provider.credential:
        message = message.replace(target.provider.credential, "…")
    return message


def now_ms() -> int:
    return int(time.time() * 1000)


def _changed(before: Job, after: Job) -> dict[str, object]:
    return {name: value for name in Job.__struct_fields__ if (value := getattr(after, name)) != getattr(before, name)}

