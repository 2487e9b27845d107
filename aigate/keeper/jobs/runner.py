"""Gives what is due to those who do it: a loop over the jobs' own rows (`stage`, `due_ms`). Owns how often a provider is asked, and deadlines.

Submission and finish are workflows of the durable engine, a poll is one request. A poll that tells nothing new writes nothing but when the
next one is due, many jobs at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import Coroutine
from typing import Any, NamedTuple

from sqlalchemy.exc import SQLAlchemyError

from aigate.config import Jobs
from aigate.core.job_state import (
    CANCELLED,
    DEADLINE_EXCEEDED,
    FETCHING,
    NEW,
    PROVIDER_LOST,
    SENDING,
    STOPPING,
    SUBMISSION_UNKNOWN,
    WAITING,
    Job,
)
from aigate.core.target import Target
from aigate.errors import ClientError, GateError, ProviderError
from aigate.jobdialects import dialect as at_provider
from aigate.jobdialects.dialect import JobDialect, JobFailure, Polled
from aigate.keeper.db.jobs import CLAIMED_MS, claim_due, next_due, set_due
from aigate.keeper.durable.engine import Engine, Limits
from aigate.keeper.jobs.finish import Finish, charged_units, polled_of
from aigate.keeper.jobs.submit import Submission
from aigate.keeper.jobs.work import JobWork, error_of, now_ms

log = logging.getLogger("aigate.keeper")

SUBMIT, FINISH = "job.submit.1", "job.finish.1"  # names of workflows: a changed one is a new name
SUBMIT_LIMITS, FINISH_LIMITS = Limits(at_once=16, per_tenant=8), Limits(at_once=8, per_tenant=4)
FINISH_QUEUE = "jobs:results"
IDLE_S = 30.0
ANSWER_S = 0.03  # the caller's answer goes out first: the engine's first workflow loads a large library
CLAIMED_AT_ONCE = 500
POLLS_AT_ONCE = 64
GROWTH = 1.5
FAILURES_LAST_S = 60.0  # longest wait between polls that fail
LOST_AFTER = 5  # polls in a row that the provider answers with "no such job"
STOP_S = 3600.0  # so long what a cancelled job costs is asked for
_RUNNING = frozenset({"PENDING", "ENQUEUED", "DELAYED"})


class _Watch(NamedTuple):
    """What is remembered of a job at the provider; forgotten with the process, which only makes the next polls come sooner."""

    delay_s: float
    failures: int = 0
    is_cancel_sent: bool = False


class JobRunner:
    def __init__(self, work: JobWork, submission: Submission, finish: Finish, *, engine: Engine, settings: Jobs, node: str):
        self._work = work
        self._submission = submission
        self._finish = finish
        self._engine = engine
        self._settings = settings
        self._node = node
        self._watched: dict[str, _Watch] = {}
        self._due: dict[str, int] = {}  # job → when it is due, not written yet
        self._polls = asyncio.Semaphore(POLLS_AT_ONCE)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: set[str] = set()
        engine.register(SUBMIT, self._submit_workflow)
        engine.register(FINISH, self._finish_workflow)
        engine.add_queue(FINISH_QUEUE, FINISH_LIMITS)

    # --- workflows: on threads of the engine ------------------------------------------------------------------------------------

    def _submit_workflow(self, job_id: str) -> None:
        self._engine.step("submit", self._submission.run, job_id)

    def _finish_workflow(self, job_id: str) -> None:
        if self._engine.step("fetch", self._finish.fetch, job_id):
            self._engine.step("complete", self._finish.complete, job_id)

    # --- called by the service --------------------------------------------------------------------------------------------------

    def begin(self, job: Job) -> None:
        """Of a job just taken. Should this be lost, the loop finds it."""
        self._start(self._submit_soon(job))

    async def poke(self, job_id: str, token: str) -> bool:
        """Its provider says that there is news of it: asked at once, whatever it said. False: there is no such job."""
        job = await self._work.get(job_id)
        if job is None or not job.submit_key or not hmac.compare_digest(token.encode(), job.hook_token.encode()):
            return False
        if job.stage in (WAITING, STOPPING):
            await self._work.database.write(set_due, [(job_id, now_ms())])
            self._work.wake()
        return True

    # --- the loop ---------------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                wait_s = await self._turn()
            except SQLAlchemyError as error:
                log.error("jobs: the database does not answer: %s", type(error).__name__)
                wait_s = 1.0
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._work.news.wait()
            await asyncio.sleep(self._work.pace.look_s)  # news come in groups
            self._work.news.clear()

    async def close(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _turn(self) -> float:
        """Does what is due; how long nothing else is."""
        due, self._due = self._due, {}
        if due:
            await self._work.database.write(set_due, list(due.items()))
        first = await self._work.database.read(next_due)
        if first is None:
            return IDLE_S
        wait_ms = first - now_ms()
        if wait_ms > 0:
            return min(wait_ms / 1000, IDLE_S)
        jobs = await self._work.database.write(claim_due, self._node, now_ms(), CLAIMED_AT_ONCE)
        for job in jobs:
            if job.id not in self._looking:
                self._start(self._look_after(job))
        return 0

    async def _look_after(self, job: Job) -> None:
        self._looking.add(job.id)
        try:
            if job.stage == NEW:
                await self._begin_or_give_up(job)
            elif job.stage == SENDING:
                await self._see_to_sending(job)
            elif job.stage == FETCHING:
                await self._run_workflow(FINISH, job, FINISH_QUEUE)
            else:
                async with self._polls:
                    await self._look_at_provider(job)
        except (GateError, SQLAlchemyError) as error:
            log.error("job %s: %s", job.id, error if isinstance(error, GateError) else type(error).__name__)
        finally:
            self._looking.discard(job.id)

    async def _begin_or_give_up(self, job: Job) -> None:
        if now_ms() >= job.deadline_ms:
            await self._work.fail(job, (NEW,), (DEADLINE_EXCEEDED, "The provider did not take it in time."))
        else:
            await self._submit(job)

    async def _see_to_sending(self, job: Job) -> None:
        if job.node != self._node:  # nobody has heard of that node since
            await self._work.end_unknown(job, (SENDING,), SUBMISSION_UNKNOWN, "The node that sent it to the provider is gone; it was not sent again.")
        else:
            await self._submit(job)

    async def _submit_soon(self, job: Job) -> None:
        await asyncio.sleep(ANSWER_S)
        await self._submit(job, is_new=True)

    async def _submit(self, job: Job, *, is_new: bool = False) -> None:
        provider = job.model.partition("/")[0]
        self._engine.add_queue(queue := f"jobs:{provider}", SUBMIT_LIMITS)
        await self._run_workflow(SUBMIT, job, queue, is_new=is_new)

    async def _run_workflow(self, name: str, job: Job, queue: str, *, is_new: bool = False) -> None:
        """That of this try of the job; one that has ended and left the job where it was is followed by another. `is_new`: there is none."""
        workflow_id = f"{job.id}.{name}.{job.tries}"
        status = None if is_new else await self._engine.status(workflow_id)
        if status is not None and status not in _RUNNING:
            if await self._work.change(job.id, (job.stage,), tries=job.tries + 1) is None:
                return
            workflow_id = f"{job.id}.{name}.{job.tries + 1}"
        if status not in _RUNNING:
            turn = queue if self._work.pace.is_queued else None
            await self._engine.start_workflow(name, workflow_id, job.id, queue=turn, tenant=job.sub_account_id or job.key_id)

    def _start(self, work: Coroutine[None, None, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("jobs: %s", type(task.exception()).__name__)  # the job is due again in a minute

    # --- at the provider --------------------------------------------------------------------------------------------------------

    async def _look_at_provider(self, job: Job) -> None:
        watch = self._watched.get(job.id) or _Watch(self._work.pace.first_poll_s)
        try:
            target, dialect = self._work.target(job)
        except ClientError as error:
            await self._give_up(job, f"Its model is not offered here any more: {error.message}.")
            return
        try:
            if job.stage == STOPPING:
                watch = await self._stop(job, target, dialect, watch)
            polled = polled_of(job) if job.polled else await self._poll(job, target, dialect)
            await self._heard(job, watch, polled)
        except ProviderError as error:
            await self._poll_failed(job, watch, error, target)

    async def _poll(self, job: Job, target: Target, dialect: JobDialect) -> Polled:
        request = dialect.write_poll(job.handle, target)
        for _ in range(3):
            polled = dialect.read_poll(await self._work.client.ask(target, request), job.handle, target)
            if polled.then is None:
                return polled
            request = polled.then
        raise ProviderError(f"{target.provider.name} does not come to an end", kind="bad_reply")

    async def _stop(self, job: Job, target: Target, dialect: JobDialect, watch: _Watch) -> _Watch:
        if not watch.is_cancel_sent and job.handle and not job.polled:
            request = dialect.write_cancel(job.handle, target)
            if request is not None:
                await self._work.client.ask(target, request)  # whatever it says, the poll tells
        return watch._replace(is_cancel_sent=True)

    async def _heard(self, job: Job, watch: _Watch, polled: Polled) -> None:
        if polled.state in at_provider.ENDS:
            await self._ended_there(job, polled)
            self._watched.pop(job.id, None)
            return
        if now_ms() >= job.deadline_ms and await self._is_late(job):
            return
        if polled.progress is not None and (job.progress is None or abs(polled.progress - job.progress) >= 0.01):
            await self._work.change(job.id, (WAITING,), progress=polled.progress)
        delay_s = polled.retry_after_s or watch.delay_s
        self._watched[job.id] = watch._replace(delay_s=min(watch.delay_s * GROWTH, self._settings.poll_max_s), failures=0)
        self._again(job, min(delay_s, max(self._settings.poll_max_s, 60.0)))

    async def _ended_there(self, job: Job, polled: Polled) -> None:
        if job.stage == STOPPING:
            units = charged_units(job, polled) if polled.state == at_provider.COMPLETED else dict(polled.units or {})
            await self._work.fail(job, (STOPPING,), (CANCELLED, CANCELLED), units)
            await self._finish.drop_files(job)
        elif polled.state == at_provider.COMPLETED:
            results, text = await self._finish.take(job, polled)
            over = {"stage": FETCHING, "polled": text, "results": results, "due_ms": now_ms() + CLAIMED_MS, "tries": 0}
            moved = await self._work.change(job.id, (WAITING,), **over)
            if moved is not None:
                await self._run_workflow(FINISH, moved, FINISH_QUEUE, is_new=True)
        else:
            failure = polled.failure or JobFailure(message=f"The provider says that the job was {polled.state}.")
            await self._work.fail(job, (WAITING,), (failure.code, failure.message))

    async def _poll_failed(self, job: Job, watch: _Watch, error: ProviderError, target: Target) -> None:
        failures = watch.failures + 1
        is_gone = error.kind == "rejected" and error.provider_status in (404, 410)
        if is_gone and failures >= LOST_AFTER:
            self._watched.pop(job.id, None)
            await self._work.fail(job, (job.stage,), (PROVIDER_LOST, f"The provider knows nothing of this job any more: {error_of(error, target)}"))
            return
        if now_ms() >= job.deadline_ms and await self._is_late(job):
            return
        delay_s = self._work.wait_ms(failures, FAILURES_LAST_S) / 1000
        self._watched[job.id] = watch._replace(failures=failures)
        self._again(job, max(delay_s, min(error.retry_after_s or 0, 600)))

    async def _is_late(self, job: Job) -> bool:
        """Its time is over: stopped like one that its caller has cancelled; what nobody tells the cost of for an hour stays reserved."""
        if job.stage == WAITING:
            await self._work.stop(job, DEADLINE_EXCEEDED, f"It was not done within {self._settings.deadline_s:g} s.")
            return True
        if now_ms() - max(job.deadline_ms, job.ended_ms or 0) > STOP_S * 1000:
            self._watched.pop(job.id, None)
            await self._work.end_unknown(job, (STOPPING,), job.error_code, job.error)
            return True
        return False

    async def _give_up(self, job: Job, why: str) -> None:
        self._watched.pop(job.id, None)
        await self._work.end_unknown(job, (job.stage,), PROVIDER_LOST, why)

    def _again(self, job: Job, delay_s: float) -> None:
        self._due[job.id] = now_ms() + int(delay_s * 1000)
        self._work.wake()
