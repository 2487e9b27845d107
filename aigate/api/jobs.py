"""Videos, music and 3D models: submissions answer 202 with a job; /v1/jobs looks at it and cancels it. Providers tell of news at /v1/hooks."""

import hashlib
import json
import re
import time
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Request, Response
from pydantic import AliasChoices, AliasGenerator, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel, to_snake

from aigate.api.access import Caller, own_rows
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input
from aigate.api.job_record import Links, job_record
from aigate.api.replies import page_reply
from aigate.api.services import Services, Wired
from aigate.core.call import Principal
from aigate.core.job import FIELDS, MODEL_3D, MUSIC, VIDEO
from aigate.core.job_state import COMPLETED, FAILED, FETCHING, NEW, SENDING, STOPPING, WAITING, Job, NewJob
from aigate.core.switch import read_switch
from aigate.core.tag import read_tag
from aigate.errors import ClientError

router = APIRouter(prefix="/v1", tags=["jobs"])

MAX_PROMPT_CHARS = 100_000
MAX_DURATION_S = 86_400
MAX_IMAGE_CHARS = 900_000  # a data: URL must fit the body
MAX_URL_CHARS = 2048
_KEY = re.compile(r"[!-~]{1,255}\Z")
_CLIENT_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}\Z")
_STAGES = {"queued": (NEW, SENDING), "processing": (WAITING, FETCHING), "completed": (COMPLETED,), "failed": (FAILED, STOPPING)}


def _as_number(value: object) -> object:
    """Clients send what was typed: "5.5" is a number, true is none."""
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Text = Annotated[str, StringConstraints(max_length=MAX_PROMPT_CHARS)]
Word = Annotated[str, StringConstraints(min_length=1, max_length=100)]
Duration = Annotated[float, BeforeValidator(_as_number), Field(gt=0, le=MAX_DURATION_S, allow_inf_nan=False)]
Seed = Annotated[int, BeforeValidator(_as_number), Field(ge=-(2**63), lt=2**63)]
IdempotencyKey = Annotated[str | None, Header(alias="idempotency-key", max_length=255)]


class JobInput(Input):
    """Fields that all models share, typed leniently; any other is the model's own and checked by what it takes."""

    model_config = ConfigDict(
        extra="allow",
        str_strip_whitespace=True,
        coerce_numbers_to_str=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )

    model: Annotated[str, StringConstraints(max_length=200)] | None = None
    prompt: Text | None = None
    negative_prompt: Text | None = None
    duration: Duration | None = None
    aspect_ratio: Word | None = None
    resolution: Word | None = None
    image_url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_IMAGE_CHARS)] | None = None
    lyrics: Text | None = None
    is_instrumental: bool | None = None
    lyrics_optimizer: bool | None = None
    audio: bool | None = None
    seed: Seed | None = None
    webhook_url: Annotated[str, StringConstraints(min_length=1, max_length=MAX_URL_CHARS)] | None = None
    provider_key_id: str | None = None


@router.post("/videos/generations", status_code=202)
@router.post("/videos", status_code=202, include_in_schema=False)
async def make_video(asked: JobInput, request: Request, caller: Caller, services: Wired, idempotency_key: IdempotencyKey = None) -> Response:
    """From `prompt`, or `prompt` and `image_url`; `duration` in seconds, `aspect_ratio`, `resolution`. 202 with a job."""
    return await _submit(VIDEO, asked, (request, idempotency_key), caller, services)


@router.post("/audio/music", status_code=202)
async def make_music(asked: JobInput, request: Request, caller: Caller, services: Wired, idempotency_key: IdempotencyKey = None) -> Response:
    """From `prompt`, with `lyrics` or `is_instrumental`; `duration` in seconds. 202 with a job."""
    return await _submit(MUSIC, asked, (request, idempotency_key), caller, services)


@router.post("/3d/generations", status_code=202)
async def make_3d(asked: JobInput, request: Request, caller: Caller, services: Wired, idempotency_key: IdempotencyKey = None) -> Response:
    """A 3D model from `prompt` or `image_url`. 202 with a job."""
    return await _submit(MODEL_3D, asked, (request, idempotency_key), caller, services)


@router.get("/jobs")
async def list_jobs(
    request: Request,
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=100, description="next_cursor of the page before")] = None,
    status: Literal["queued", "processing", "completed", "failed"] | None = None,
) -> Response:
    """Newest first; `next_cursor` where there are more."""
    found = await services.jobs.list(own_rows(caller), limit + 1, cursor, _STAGES[status] if status else ())
    links = await links_of(found, request, services)
    return page_reply(found, limit, lambda job: job_record(job, links))


@router.get("/jobs/{job_id}")
async def get_job(job_id: str, request: Request, caller: Caller, services: Wired) -> Response:
    job = await services.jobs.get(own_rows(caller), job_id)
    if job is None:
        raise no_such_job(job_id)
    return await _reply(job, request, services)


@router.post("/jobs/{job_id}/cancel")
@router.delete("/jobs/{job_id}")
async def cancel_job(job_id: str, request: Request, caller: Caller, services: Wired) -> Response:
    """Ends it as failed, with the error `cancelled`; one that has ended stays as it is. What was not sent to the provider costs nothing."""
    job = await services.jobs.cancel(own_rows(caller), job_id)
    if job is None:
        raise no_such_job(job_id)
    return await _reply(job, request, services)


@router.post("/hooks/jobs/{job_id}/{token}", include_in_schema=False)
async def provider_news(job_id: str, token: str, services: Wired) -> Response:
    """Called by a provider that has news of a job. What it says is not read: the provider is asked."""
    if not await services.jobs.poke(job_id, token):
        raise no_such_job(job_id)
    return json_reply({"status": "ok"})


async def _submit(modality: str, asked: JobInput, sent: tuple[Request, str | None], caller: Principal, services: Services) -> Response:
    request, idempotency_key = sent
    if asked.provider_key_id is not None or any(name.startswith("x-byok-") for name in request.headers):
        raise ClientError("provider_key_id: jobs run on this gateway's own provider keys; leave yours out.", param="provider_key_id")
    if idempotency_key is not None and not _KEY.match(idempotency_key):
        raise ClientError("idempotency-key: up to 255 printable ASCII characters.", param="idempotency-key")
    client_request_id = request.headers.get("x-request-id", "")
    tag = request.headers.get("x-aig-tag")
    new = NewJob(
        modality=modality,
        model=(asked.model or "").strip(),
        fields=_fields(asked),
        webhook_url=asked.webhook_url,
        tag=caller.default_tag if tag is None else read_tag(tag.encode("latin-1")),
        client_request_id=client_request_id if _CLIENT_REQUEST_ID.match(client_request_id) else None,
        is_strict=read_switch("x-aig-strict", request.headers.get("x-aig-strict", ""), "true", "false"),
        idempotency_key=idempotency_key,
        digest=_digest(modality, asked),
        call_id=request.state.request_id,
    )
    job, is_repeat = await services.jobs.submit(new, caller)
    reply = await _reply(job, request, services, status=202)
    if job.warnings:
        reply.headers["x-aig-warning"] = job.warnings
    if is_repeat:
        reply.headers["x-aig-idempotent-replay"] = "true"
    return reply


def _fields(asked: JobInput) -> dict[str, Any]:
    """As core/job.py JobRequest has them."""
    known = {name: value for name in FIELDS if (value := getattr(asked, name)) is not None}
    extra = {to_snake(name): value for name, value in (asked.model_extra or {}).items() if value is not None}
    return {"prompt": asked.prompt or "", **known, "extra": extra}


def _digest(modality: str, asked: JobInput) -> bytes:
    """The same for requests that ask for the same, however they are written."""
    content = json.dumps([modality, asked.model_dump()], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(content.encode()).digest()


async def _reply(job: Job, request: Request, services: Services, status: int = 200) -> Response:
    return json_reply(job_record(job, await links_of([job], request, services)), status)


async def links_of(jobs: Collection[Job], request: Request, services: Services) -> Links:
    key = await services.jobs.link_key() if any(job.stage == COMPLETED for job in jobs) else None
    return Links(base_url(request.headers, services), key, int(time.time()))


def base_url(headers: Mapping[str, str], services: Services) -> str:
    """Where the caller reaches this gateway, unless the operator says where it is reached."""
    return services.public_url or f"http://{headers.get('host', 'localhost')}"


def no_such_job(job_id: str) -> ClientError:
    words = f"There is no job {job_id[:80]!r}; GET /v1/jobs lists yours."
    return ClientError(words, status=404, code="not_found", param="job_id")
