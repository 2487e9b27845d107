"""Files of jobs: with a key, or by a signed link without one. Served as bytes, in ranges; never by a redirect."""

import time
from functools import partial
from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from aigate.api.access import Admin, Caller, own_rows
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input
from aigate.api.jobs import base_url
from aigate.api.ranges import bytes_reply
from aigate.api.services import Services, Wired
from aigate.core.account import Whose
from aigate.core.job_links import MAX_LIFE_S, MIN_LIFE_S, is_signed, signed_path
from aigate.core.job_state import Job, StoredResult
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/files/jobs", tags=["jobs"])

_SHOWN = ("video/", "audio/", "image/png", "image/jpeg", "image/gif", "image/webp")  # in a browser; anything else is downloaded
_MAX_EXP = 2**53


class Rotation(Input):
    overlap_s: Annotated[int, Query(ge=0, le=MAX_LIFE_S)] = MAX_LIFE_S


@router.post("/signing-key/rotate")
async def rotate_signing_key(admin: Admin, services: Wired, rotation: Rotation | None = None) -> Response:
    """A new key for signed links. Links of the old one work `overlap_s` longer, a week when left out; 0 ends them all now."""
    overlap_s = (rotation or Rotation()).overlap_s
    key_id = await services.jobs.rotate_link_key(overlap_s)
    return json_reply({"object": "signing_key", "id": key_id, "overlap_s": overlap_s})


@router.get("/{job_id}/{filename}")
async def get_file(job_id: str, filename: str, request: Request, caller: Caller, services: Wired) -> Response:
    job, file = await _find(job_id, filename, own_rows(caller), services)
    return await _serve(job, file, request, services)


@router.get("/{job_id}/{filename}/signed")
async def sign_link(
    job_id: str,
    filename: str,
    request: Request,
    caller: Caller,
    services: Wired,
    expires_in: Annotated[int, Query(ge=MIN_LIFE_S, le=MAX_LIFE_S, description="seconds")] = 3600,
) -> Response:
    """A link that works without a key until `expires_at`, or until the file is deleted."""
    job, file = await _find(job_id, filename, own_rows(caller), services)
    expires_s = int(time.time()) + expires_in
    key = await services.jobs.link_key()
    return json_reply({"url": base_url(request.headers, services) + signed_path(key, job.id, file.filename, expires_s), "expires_at": expires_s})


@router.get("/{job_id}/{filename}/public")
async def get_public_file(
    job_id: str,
    filename: str,
    request: Request,
    services: Wired,
    token: Annotated[str, Query(min_length=1, max_length=200)],
    exp: Annotated[int, Query(ge=0, le=_MAX_EXP)],
    k: Annotated[str, Query(min_length=1, max_length=100)],
) -> Response:
    """By a signed link: `token`, `exp` and `k` are parts of it."""
    key = await services.jobs.link_key(k)
    if key is None or not is_signed(key, job_id, filename, exp, token):
        raise ClientError("token: the signature of this link is not good; take a new link.", code="invalid_signature", param="token")
    if exp <= time.time():
        raise ClientError("exp: this link has expired; take a new one.", code="link_expired", param="exp")
    job, file = await _find(job_id, filename, None, services)
    return await _serve(job, file, request, services)


async def _find(job_id: str, filename: str, whose: Whose | None, services: Services) -> tuple[Job, StoredResult]:
    found = await services.jobs.file_of(job_id, filename, whose)
    if found is None:
        words = f"There is no file {filename[:100]!r} of a job {job_id[:80]!r}. Files are kept for some days; the job's record says until when."
        raise ClientError(words, status=404, code="not_found", param="filename")
    return found


async def _serve(job: Job, file: StoredResult, request: Request, services: Services) -> Response:
    etag = f'"{file.etag}"'
    is_shown = file.media_type.startswith(_SHOWN)
    headers = {
        "content-type": file.media_type,
        "content-disposition": f"{'inline' if is_shown else 'attachment'}; filename*=UTF-8''{quote(file.filename, safe='')}",
        "content-security-policy": "default-src 'none'; media-src 'self'; img-src 'self'; style-src 'unsafe-inline'; sandbox",
        "x-content-type-options": "nosniff",
        "cache-control": "private, max-age=3600",
        "etag": etag,
    }
    if etag in [part.strip() for part in request.headers.get("if-none-match", "").split(",")]:
        return Response(status_code=304, headers={"etag": etag})
    return await bytes_reply(request, file.size_bytes, partial(services.jobs.read, file), headers, etag=etag)
