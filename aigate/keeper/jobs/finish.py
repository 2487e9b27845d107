"""The end of a job that its provider has done: its files are taken over, then it is settled and told of. Two steps of a workflow, each of
which may run again: files lie under keys of their own, and a job ends once.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil

import msgspec
from msgspec.structs import replace

from aigate.core.job import SECOND
from aigate.core.job_state import COMPLETED, FETCHING, RESULT_UNAVAILABLE, Job
from aigate.errors import GateError
from aigate.jobdialects.dialect import Polled
from aigate.keeper.jobs.client import Unusable
from aigate.keeper.jobs.results import ResultStore
from aigate.keeper.jobs.work import JobWork, error_of, now_ms, request_of

MAX_TRIES, LONGEST_WAIT_S = 10, 120.0


class Finish:
    def __init__(self, work: JobWork, results: ResultStore):
        self._work = work
        self._results = results

    async def take(self, job: Job, polled: Polled) -> tuple[str, str]:
        """(files that came with the reply and are stored now, the reply without them), as JSON."""
        files, polled = await self._results.store_given(job, polled)
        return msgspec.json.encode(files).decode(), msgspec.json.encode(polled).decode()

    async def fetch(self, job_id: str) -> bool:
        """Whether all files are here; else it is tried again later, or has failed."""
        job = await self._work.get(job_id)
        if job is None or job.stage != FETCHING:
            return False
        try:
            target, _ = self._work.target(job)
            files = await self._results.fetch_all(job, polled_of(job).results, target)
        except GateError as error:
            await self._not_yet(job, error_of(error), is_final=isinstance(error, Unusable))
            return False
        except OSError as error:
            await self._not_yet(job, f"it cannot be stored ({error.strerror or type(error).__name__})")
            return False
        if await self._work.change(job_id, (FETCHING,), results=msgspec.json.encode(files).decode()) is None:
            await self.drop_files(job)  # cancelled meanwhile
            return False
        return True

    async def complete(self, job_id: str) -> None:
        job = await self._work.get(job_id)
        if job is None or job.stage != FETCHING:
            return
        polled, now = polled_of(job), now_ms()
        ended = replace(job, stage=COMPLETED, ended_ms=now, updated_ms=now, progress=1.0)
        await self._work.end(job, (FETCHING,), ended, charged_units(job, polled), polled.raw_usage)

    async def _not_yet(self, job: Job, why: str, *, is_final: bool = False) -> None:
        if is_final or job.tries >= MAX_TRIES:
            message = f"The provider made it, but its result could not be taken over: {why}."
            if await self._work.fail(job, (FETCHING,), (RESULT_UNAVAILABLE, message)) is not None:
                await self.drop_files(job)
            return
        wait_ms = self._work.wait_ms(job.tries, LONGEST_WAIT_S)
        await self._work.change(job.id, (FETCHING,), due_ms=now_ms() + wait_ms, tries=job.tries + 1)

    async def drop_files(self, job: Job) -> None:
        """Of a job that has none to show: also what a fetch that broke off has left."""
        if job.polled:
            await self._results.delete(job, len(polled_of(job).results))


def polled_of(job: Job) -> Polled:
    return msgspec.json.decode(job.polled, type=Polled)


def charged_units(job: Job, polled: Polled) -> dict[str, int]:
    """What the provider says, unless it counts in another unit, which there is no rate for; else what was planned. A length that nobody
    asked for was planned at its longest: then it is what came out."""
    planned = msgspec.json.decode(job.units, type=dict[str, int])
    told = polled.units
    if told is not None and _kinds(told) == _kinds(planned):
        return dict(told)
    lengths = [result.duration_s for result in polled.results if result.duration_s]
    if lengths and _kinds(planned) == {SECOND} and request_of(job).duration is None:
        return dict.fromkeys(planned, ceil(max(lengths) * 1000))
    return planned


def _kinds(units: Mapping[str, int]) -> set[str]:
    return {name.partition(":")[0] for name in units}
