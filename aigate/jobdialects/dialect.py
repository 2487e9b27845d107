"""The contract every job dialect keeps: one pure module a provider family, no I/O, no clock, no random numbers.

A dialect writes requests (submit, poll, cancel, fetch) and reads replies; the keeper sends them, stores what matters and decides
when. What a model takes and costs is data (core/job.py, catalog/job_models.json), already applied to the JobRequest a dialect gets.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from aigate.core.job import JobRequest
from aigate.core.target import Target

QUEUED, PROCESSING, COMPLETED, FAILED, CANCELLED = "queued", "processing", "completed", "failed", "cancelled"
ENDS = frozenset({COMPLETED, FAILED, CANCELLED})


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`url` beginning with "/" goes behind the provider's base URL; any other is absolute and goes through the guarded client. Only the
    provider's own origin is sent the credential and the row's headers, which the keeper adds (target.provider.auth)."""

    method: str = "GET"
    url: str
    headers: Mapping[str, str] = {}  # lower-case names; content-type where there is a body
    body: bytes = b""
    is_media: bool = False  # a good reply's body is the media itself: never given to a reader; of a submission it is stored as the result


class HttpReply(msgspec.Struct, frozen=True, kw_only=True):
    """`headers`: lower-case names. `body` is empty where the reply was media (`is_media` and 2xx and not JSON)."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


class Result(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that came out. `request` fetches it; None: it is `data`, or, where that is empty too, the body of the submission's own
    reply. The first one is *the* result."""

    request: HttpRequest | None = None
    data: bytes = b""  # the file itself, where a provider puts it into its JSON
    media_type: str = ""  # "" = as its reply says
    filename: str = ""  # video.mp4; "" = made from modality and type
    duration_s: float | None = None
    resolution: str | None = None


class JobFailure(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why a provider failed a job, in its words (shown to the caller). `code`: provider_failed | content_rejected | expired | …"""

    message: str
    code: str = "provider_failed"


class Polled(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a job stands at the provider."""

    state: str = PROCESSING  # queued | processing | completed | failed | cancelled
    progress: float | None = None  # 0 … 1
    results: tuple[Result, ...] = ()  # when completed
    units: Mapping[str, int] | None = None  # what is charged, rate name → thousandths (core/job.py); None: what was planned
    raw_usage: bytes = b""  # the provider's own JSON that says so
    failure: JobFailure | None = None
    then: HttpRequest | None = None  # the state is there, the rest is told elsewhere: asked at once, and read by read_poll again
    retry_after_s: float | None = None


class Submitted(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The provider has taken the job. `handle` is what polls and cancels need, opaque to everybody else; "" only where the reply ended
    the job (a provider that answers with the media itself)."""

    handle: str
    polled: Polled = Polled(state=QUEUED)


class JobDialect(Protocol):
    """Readers raise ProviderError: `kind` rate_limited or overloaded where the provider did not take the request (it may be sent again),
    rejected for a 4xx about the request, auth, error for the rest of 4xx and 5xx, bad_reply for what nobody can read."""

    name: str
    modalities: tuple[str, ...]  # core/job.py MODALITIES
    has_idempotency_key: bool  # write_submit sends the key, and the same key never makes a second job
    can_look_up: bool  # a job can be found by our key after a submission whose reply was lost
    takes_webhook: bool  # write_submit tells the provider where to call when it is done (the keeper then polls at once: a call is a
    # hint and never believed, so that none of their signatures needs to be known)

    def write_submit(self, request: JobRequest, target: Target, key: str, webhook_url: str | None) -> HttpRequest:
        """`key`: ours, unguessable, the same for every try of one job. ClientError for what the provider cannot be told."""

    def read_submit(self, reply: HttpReply, request: JobRequest, target: Target) -> Submitted:
        """`request`: what write_submit was given (where a job is asked for may depend on it)."""

    def write_look_up(self, key: str, target: Target) -> HttpRequest: ...
    def read_look_up(self, reply: HttpReply, key: str, target: Target) -> Submitted | None:
        """None: the provider never got it."""

    def write_poll(self, handle: str, target: Target) -> HttpRequest: ...
    def read_poll(self, reply: HttpReply, handle: str, target: Target) -> Polled: ...

    def write_cancel(self, handle: str, target: Target) -> HttpRequest | None:
        """None: it cannot be cancelled there. Any 2xx, 404 or 409 means heard; the next poll tells what became of it."""
