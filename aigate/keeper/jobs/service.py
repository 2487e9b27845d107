"""Jobs as callers deal with them: taken, looked at, cancelled. What is done for a job afterwards is the runner's (runner.py).

Taking one is one transaction (the hold, the row, the idempotency key); nothing is sent to anybody before its answer.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Collection
from functools import partial

import msgspec
from msgspec.structs import replace

from aigate.config import Jobs
from aigate.core.account import Whose, tenant_of
from aigate.core.allow import check_allowed
from aigate.core.call import Principal
from aigate.core.job import JobRequest, Planned, plan_job
from aigate.core.job_links import LinkKey
from aigate.core.job_state import CANCELLED, COMPLETED, FAILED, NEW, Job, NewJob, StoredResult
from aigate.core.price import price_units
from aigate.core.refusal import owners_of
from aigate.core.target import Target
from aigate.core.warnings import warning_header
from aigate.errors import ClientError
from aigate.jobdialects.dialect import JobDialect
from aigate.journal.records import Intent
from aigate.keeper.db.grants import month_now
from aigate.keeper.db.jobs import Ending, Submission, add_job, cancel_job, get_job, list_jobs
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.ends import settled_record
from aigate.keeper.jobs.results import ResultStore
from aigate.keeper.jobs.runner import JobRunner
from aigate.keeper.jobs.work import JobWork, now_ms

GRACE_MS = 5_000  # after which the loop sees to a job whose submission did not begin


class JobService:
    def __init__(self, work: JobWork, runner: JobRunner, results: ResultStore, *, holds: HoldDesk, guarded: GuardedClient, settings: Jobs):
        self._work = work
        self._database = work.database
        self._links = work.links
        self._runner = runner
        self._results = results
        self._holds = holds
        self._guarded = guarded
        self._settings = settings

    # --- submission -------------------------------------------------------------------------------------------------------------

    async def submit(self, new: NewJob, principal: Principal) -> tuple[Job, bool]:
        """(the job, whether it was there before under its idempotency key)."""
        target = self._work.catalog.resolve_job(new.model, new.modality)
        check_allowed(principal, target.slug)
        planned = plan_request(new, target, self._work.dialects[target.dialect])
        await self._check_urls(planned.request, new.webhook_url)
        submission = self._submission(new, principal, target, planned)
        job, is_repeat = await self._holds.write(partial(add_job, new=submission), submission.job.created_ms, what="job")
        if not is_repeat:
            self._runner.begin(job)
        return job, is_repeat

    async def _check_urls(self, request: JobRequest, webhook_url: str | None) -> None:
        if request.image_url is not None and not request.image_url.startswith("data:"):
            await self._guarded.check_url(request.image_url, "image_url")
        if webhook_url is not None:
            await self._guarded.check_url(webhook_url, "webhook_url")

    def _submission(self, new: NewJob, principal: Principal, target: Target, planned: Planned) -> Submission:
        now = now_ms()
        price, units = target.model.price, planned.units
        owner = dict(account_id=principal.account_id, key_id=principal.key_id, sub_account_id=principal.sub_account_id, tag=new.tag)
        job = Job(
            **owner,
            id=f"job_{now:011x}{secrets.token_hex(8)}",
            client_request_id=new.client_request_id,
            modality=new.modality,
            asked_model=new.model,
            model=target.slug,
            request=msgspec.json.encode(planned.request).decode(),
            warnings=warning_header(planned.warnings),
            webhook_url=new.webhook_url,
            stage=NEW,
            created_ms=now,
            updated_ms=now,
            deadline_ms=now + int(self._settings.deadline_s * 1000),
            due_ms=now + GRACE_MS,
            submit_key=secrets.token_urlsafe(24),
            attempt_id=f"att_{now:011x}{secrets.token_hex(8)}",
            call_id=new.call_id,
            price_id=price.id if price is not None else "",
            units=msgspec.json.encode(units).decode(),
        )
        intent = Intent(
            job.attempt_id, job.call_id, 1, now, target.provider.name, job.model, price_units(price, units), job.price_id,
            job.account_id, job.key_id, job.sub_account_id, job.tag,
        )  # fmt: skip
        return Submission(
            job=job,
            intent=intent,
            owners=owners_of(principal, new.tag),
            price=price,
            owner_id=tenant_of(principal)[1],
            idempotency_key=new.idempotency_key,
            digest=new.digest,
            max_active=self._settings.max_active,
            find_month=month_now,
        )

    # --- looking ----------------------------------------------------------------------------------------------------------------

    async def get(self, whose: Whose, job_id: str) -> Job | None:
        return await self._database.read(get_job, job_id, whose)

    async def list(self, whose: Whose, limit: int, before_id: str | None, stages: Collection[str] = ()) -> list[Job]:
        """Newest first, from the one before `before_id` on."""
        return await self._database.read(list_jobs, whose, limit, before_id, stages)

    # --- cancelling -------------------------------------------------------------------------------------------------------------

    async def cancel(self, whose: Whose, job_id: str) -> Job | None:
        """Over for its caller at once. What was not sent never will be; what runs at the provider is stopped there, where that is possible."""
        job = await self.get(whose, job_id)
        if job is None or job.is_over:
            return job
        now = now_ms()
        over = {"cancelled_ms": now, "ended_ms": now, "updated_ms": now, "error_code": CANCELLED, "error": CANCELLED}
        cancelled = replace(job, **over, stage=FAILED)
        settled = settled_record(cancelled, None, {})
        assert settled.call is not None
        values = {**over, "cost_nanousd": 0, "expires_ms": now + self._work.retention_ms}
        ending = Ending(stage=FAILED, values=values, settled=settled, call=settled.call, events=[await self._work.event(cancelled)])
        changed = await self._database.write(cancel_job, job_id, over, ending, now)
        self._work.wake()
        return changed or await self.get(whose, job_id)

    # --- results ----------------------------------------------------------------------------------------------------------------

    async def read(self, file: StoredResult, start: int, end: int) -> AsyncIterator[bytes]:
        return await self._results.read(file, start, end)

    async def link_key(self, key_id: str | None = None) -> LinkKey | None:
        """That signs links now; with an id, that one, if it is still in force."""
        return await (self._links.key() if key_id is None else self._links.find(key_id))

    async def rotate_link_key(self, overlap_s: int) -> str:
        return await self._links.rotate(overlap_s)

    async def file_of(self, job_id: str, filename: str, whose: Whose | None) -> tuple[Job, StoredResult] | None:
        """`whose` None: whoever has a link that is good."""
        job = await self._database.read(get_job, job_id, whose)
        if job is None or job.stage != COMPLETED or job.expires_ms is None or job.expires_ms <= now_ms():
            return None
        return next(((job, file) for file in job.files if file.filename == filename), None)

    async def poke(self, job_id: str, token: str) -> bool:
        return await self._runner.poke(job_id, token)


def plan_request(new: NewJob, target: Target, dialect: JobDialect) -> Planned:
    """Raises ClientError for what the model, or its provider's format, cannot take."""
    limits = target.model.job
    assert limits is not None
    asked = JobRequest(modality=new.modality, **new.fields)
    planned = plan_job(asked, limits)
    if new.is_strict and planned.warnings:
        changed = "; ".join(f"{warning.param}: {warning.reason}" for warning in planned.warnings)
        raise ClientError(f"x-aig-strict: this model cannot take the request as it is: {changed}.", param=planned.warnings[0].param)
    url = planned.request.image_url
    if url is None or url.startswith("data:") or limits.image_as == "url":  # else it is written once the picture is here
        dialect.write_submit(planned.request, target, "key", None)
    return planned
