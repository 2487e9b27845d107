"""Submission of a job to its provider: once. One step of a workflow, which may run again after a crash; then the row tells how far it came.

A provider with idempotency keys is sent the same key again, one that can be asked is asked; with any other, a submission whose reply was
never written down ends the job as `submission_unknown`.
"""

from __future__ import annotations

import base64

import msgspec
from msgspec.structs import replace

from aigate.core.job import JobRequest
from aigate.core.job_state import (
    CANCELLED,
    FETCHING,
    IMAGE_UNREADABLE,
    NEW,
    PROVIDER_REJECTED,
    PROVIDER_UNAVAILABLE,
    SENDING,
    SUBMISSION_UNKNOWN,
    WAITING,
    Job,
)
from aigate.core.target import Target
from aigate.errors import ClientError, ProviderError
from aigate.jobdialects.dialect import COMPLETED, ENDS, HttpRequest, JobDialect, Submitted
from aigate.keeper.db.jobs import begin_sending, move_on
from aigate.keeper.guarded import Bounds, GuardedClient, Unreachable
from aigate.keeper.jobs.client import Media, NotSent
from aigate.keeper.jobs.results import ResultStore
from aigate.keeper.jobs.work import JobWork, error_of, now_ms, request_of

MAX_IMAGE_BYTES, IMAGE_S = 20 << 20, 30.0
MAX_TRIES, LONGEST_WAIT_S = 8, 60.0
_NOT_TAKEN = frozenset({"refused", "rate_limited", "overloaded"})  # ProviderError kinds after which it may be sent again
_KNOWN_REFUSALS = frozenset({"rejected", "auth", "error"})  # replies: the provider has no job of it …
_GATEWAYS_WORDS = frozenset({502, 520, 521, 522, 523, 524})  # … unless it was not the provider who said so


class Submission:
    def __init__(self, work: JobWork, results: ResultStore, guarded: GuardedClient, node: str):
        self._work = work
        self._results = results
        self._guarded = guarded
        self._node = node
        self._in_flight: set[str] = set()

    async def run(self, job_id: str) -> None:
        job = await self._work.get(job_id)
        if job is None or job_id in self._in_flight:
            return
        self._in_flight.add(job_id)
        try:
            if job.stage == NEW:
                await self._begin(job)
            elif job.stage == SENDING:
                await self._go_on(job)
        finally:
            self._in_flight.discard(job_id)

    async def _begin(self, job: Job) -> None:
        """Everything that can be wrong on this side is found before the row says that it is sent."""
        if job.cancelled_ms is not None:
            await self._work.fail(job, (NEW,), (CANCELLED, CANCELLED))
            return
        target: Target | None = None
        try:
            target, dialect = self._work.target(job)
            asked = await self._write(job, target, dialect)
        except ClientError as error:
            await self._work.fail(job, (NEW,), (error.code, error_of(error, target)))
            return
        sending = await self._work.database.write(begin_sending, job.id, self._node, now_ms())
        if sending is None:
            return  # cancelled at this moment
        try:
            await self._send(sending, target, dialect, asked)
        except ProviderError as error:
            await self._refused(sending, target, dialect, error)

    async def _go_on(self, job: Job) -> None:
        """It was sent before, and nobody knows with what end. Whatever goes wrong now tells nothing of that either."""
        try:
            target, dialect = self._work.target(job)
            if not _is_findable(dialect, target):
                await self._unknown(job)
                return
            found = None if _can_repeat(dialect, target) else await self._look_up(job, target, dialect)
            if found is not None:
                await self._taken(job, found)
                return
            await self._send(job, target, dialect, await self._write(job, target, dialect))
        except (ClientError, ProviderError) as error:
            await self._try_again(job, error_of(error))

    async def _write(self, job: Job, target: Target, dialect: JobDialect) -> tuple[JobRequest, HttpRequest]:
        request = await self._with_image(request_of(job), target)
        hook_url = self._work.hook_url(job) if dialect.takes_webhook else None
        message = dialect.write_submit(request, target, job.submit_key, hook_url)
        if header := target.provider.idempotency_header:
            message = replace(message, headers={**message.headers, header: job.submit_key})
        return request, message

    async def _send(self, job: Job, target: Target, dialect: JobDialect, asked: tuple[JobRequest, HttpRequest]) -> None:
        request, message = asked
        async with self._work.client.submit(target, message) as media:
            submitted = dialect.read_submit(media.reply, request, target)
            await self._taken(job, submitted, media)

    async def _look_up(self, job: Job, target: Target, dialect: JobDialect) -> Submitted | None:
        reply = await self._work.client.ask(target, dialect.write_look_up(job.submit_key, target))
        return dialect.read_look_up(reply, job.submit_key, target)

    async def _taken(self, job: Job, submitted: Submitted, media: Media | None = None) -> None:
        """The provider has it. Where its reply was the media itself, that is stored first: it cannot be asked for again."""
        polled = submitted.polled
        if polled.state == COMPLETED:
            files, polled = await self._results.store_given(job, polled, media)
            texts = {"polled": msgspec.json.encode(polled).decode(), "results": msgspec.json.encode(files).decode()}
            await self._move(job, FETCHING, {**texts, "handle": submitted.handle, "due_ms": now_ms(), "tries": 0})
        elif polled.state in ENDS:
            failure = polled.failure
            await self._work.fail(job, (SENDING,), (failure.code, failure.message) if failure else (CANCELLED, CANCELLED))
        else:
            values = {"handle": submitted.handle, "due_ms": now_ms() + int(self._work.pace.first_poll_s * 1000), "tries": 0, "progress": polled.progress}
            await self._move(job, WAITING, values)

    async def _move(self, job: Job, stage: str, values: dict[str, object]) -> None:
        """To `stage`, or to be stopped at once where its caller has cancelled it meanwhile."""
        await self._work.database.write(move_on, job.id, stage, values, now_ms())
        self._work.wake()

    async def _refused(self, job: Job, target: Target, dialect: JobDialect, error: ProviderError) -> None:
        """The first answer, or none."""
        message = error_of(error, target)
        if isinstance(error, NotSent) or error.kind in _NOT_TAKEN:
            if job.cancelled_ms is None and job.tries < MAX_TRIES and now_ms() < job.deadline_ms:
                wait_ms = self._work.wait_ms(job.tries, LONGEST_WAIT_S)
                if error.retry_after_s is not None:
                    wait_ms = max(wait_ms, int(min(error.retry_after_s, 600) * 1000))
                await self._work.change(job.id, (SENDING,), stage=NEW, due_ms=now_ms() + wait_ms, tries=job.tries + 1)
                return
            await self._work.fail(job, (SENDING,), (PROVIDER_UNAVAILABLE, message))
        elif error.kind in _KNOWN_REFUSALS and error.provider_status not in _GATEWAYS_WORDS:
            code = PROVIDER_REJECTED if error.kind == "rejected" else PROVIDER_UNAVAILABLE
            await self._work.fail(job, (SENDING,), (code, message))
        elif _is_findable(dialect, target):
            await self._try_again(job, message)
        else:
            await self._unknown(job, message)

    async def _try_again(self, job: Job, why: str) -> None:
        if job.tries >= MAX_TRIES:
            await self._unknown(job, why)
        else:
            await self._work.change(job.id, (SENDING,), due_ms=now_ms() + self._work.wait_ms(job.tries, LONGEST_WAIT_S), tries=job.tries + 1)

    async def _unknown(self, job: Job, why: str = "the gateway stopped before it had the provider's answer") -> None:
        words = f"It is not known whether the provider took this job ({why}); it was not sent again."
        await self._work.end_unknown(job, (SENDING,), SUBMISSION_UNKNOWN, words)

    async def _with_image(self, request: JobRequest, target: Target) -> JobRequest:
        limits = target.model.job
        url = request.image_url
        if url is None or limits is None or limits.image_as != "data" or url.startswith("data:"):
            return request
        try:
            async with self._guarded.read(url, Bounds(MAX_IMAGE_BYTES, IMAGE_S)) as reply:
                if reply.status != 200:
                    raise Unreachable(f"its server answered {reply.status}")
                data = b"".join([piece async for piece in reply])
        except Unreachable as error:
            raise ClientError(f"image_url: the picture cannot be read: {error}.", code=IMAGE_UNREADABLE, param="image_url") from None
        media_type = reply.media_type if reply.media_type.startswith("image/") else "application/octet-stream"
        return replace(request, image_url=f"data:{media_type};base64,{base64.b64encode(data).decode()}")


def _can_repeat(dialect: JobDialect, target: Target) -> bool:
    """Whether the same submission, sent again with its key, makes no second job."""
    return dialect.has_idempotency_key or bool(target.provider.idempotency_header)


def _is_findable(dialect: JobDialect, target: Target) -> bool:
    """Whether a submission whose answer was lost can be gone on with."""
    return dialect.can_look_up or _can_repeat(dialect, target)
