"""The files that came out of jobs: taken over from the provider as a stream, kept for some days, read in ranges, then really deleted."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import AsyncIterator

import msgspec
from msgspec.structs import replace
from sqlalchemy.exc import SQLAlchemyError

from aigate.core.job import MODEL_3D, MUSIC, VIDEO
from aigate.core.job_state import Job, StoredResult
from aigate.core.target import Target
from aigate.errors import ClientError, GatewayError, ProviderError
from aigate.jobdialects.dialect import HttpReply, Polled, Result
from aigate.keeper.blobs import Blobs, MissingBlob
from aigate.keeper.db.engine import Database
from aigate.keeper.db.jobs import find_expired, forget_results, forget_submissions
from aigate.keeper.jobs.client import Media, ProviderClient, Unusable
from aigate.keeper.jobs.work import now_ms

log = logging.getLogger("aigate.keeper")

LOOK_S = 600.0
EXPIRED_AT_ONCE = 100
IDEMPOTENCY_MS = 86_400_000
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}\Z")
_MEDIA_TYPE = re.compile(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}\Z")
_EXTENSIONS = {
    "video/mp4": "mp4", "video/webm": "webm", "video/quicktime": "mov", "image/gif": "gif", "audio/mpeg": "mp3", "audio/wav": "wav",
    "audio/x-wav": "wav", "audio/flac": "flac", "audio/ogg": "ogg", "audio/mp4": "m4a", "model/gltf-binary": "glb", "model/gltf+json": "gltf",
    "image/png": "png", "image/jpeg": "jpg", "image/webp": "webp", "application/zip": "zip", "model/obj": "obj", "model/stl": "stl",
    "application/json": "json", "text/plain": "txt",
}  # fmt: skip
_TYPES = {extension: media_type for media_type, extension in reversed(_EXTENSIONS.items())}
_UNTOLD = frozenset({"", "application/octet-stream", "binary/octet-stream"})
_STEMS = {VIDEO: "video", MUSIC: "audio", MODEL_3D: "model"}
_USUAL = {VIDEO: "video/mp4", MUSIC: "audio/mpeg", MODEL_3D: "model/gltf-binary"}


class ResultStore:
    def __init__(self, database: Database, blobs: Blobs, client: ProviderClient, *, max_bytes: int):
        self._database = database
        self._blobs = blobs
        self._client = client
        self._max_bytes = max_bytes

    # --- taking over ------------------------------------------------------------------------------------------------------------

    async def store_given(self, job: Job, polled: Polled, media: Media | None = None) -> tuple[list[StoredResult], Polled]:
        """The files that came with a reply itself, inside it or (`media`) as its body, which cannot be asked for again; and the rest of it."""
        stored: list[StoredResult] = []
        for place, result in enumerate(polled.results):
            if result.request is not None:
                break
            source = Media(HttpReply(status=200), _whole(result.data)) if result.data else media
            if source is None:
                raise Unusable("the provider names no place where the result is", kind="bad_reply")
            stored.append(await self._store(replace(job, results=_encode(stored)), place, result, source))
        rest = tuple(replace(result, data=b"") if result.data else result for result in polled.results)
        return stored, replace(polled, results=rest)

    async def fetch_all(self, job: Job, results: tuple[Result, ...], target: Target) -> list[StoredResult]:
        """Every file of it, each once: what is stored already is not asked for again. Raises ProviderError."""
        if not results:
            raise Unusable("the provider says the job is done but names no result", kind="bad_reply")
        stored = job.files
        for place, result in enumerate(results[len(stored) :], len(stored)):
            if result.request is None:
                raise Unusable("the provider names no place where the result is", kind="bad_reply")
            async with self._client.fetch(target, result.request, self._max_bytes) as media:
                if media.reply.status != 200:
                    raise ProviderError(f"the result cannot be read: its server answered {media.reply.status}", kind="error")
                stored.append(await self._store(replace(job, results=_encode(stored)), place, result, media))
        return stored

    async def _store(self, job: Job, place: int, result: Result, media: Media) -> StoredResult:
        told = (result.media_type or media.reply.headers.get("content-type", "")).partition(";")[0].strip().lower()
        is_told = told not in _UNTOLD and _MEDIA_TYPE.match(told)
        media_type = told if is_told else _by_name(result.filename) or _USUAL[job.modality]
        digest = hashlib.sha256()
        size = await self._blobs.put(_key(job, place), _digested(media.pieces, digest, self._max_bytes))
        length = media.reply.headers.get("content-length")
        if size == 0 or (length is not None and length.isdecimal() and int(length) != size):
            raise ProviderError("the result broke off", kind="cut")
        taken = {file.filename for file in job.files[:place]}
        return StoredResult(
            filename=_filename(job, place, result.filename, media_type, taken),
            media_type=media_type,
            size_bytes=size,
            etag=digest.hexdigest()[:32],
            key=_key(job, place),
            duration_s=result.duration_s,
            resolution=result.resolution,
        )

    # --- reading and forgetting -------------------------------------------------------------------------------------------------

    async def read(self, file: StoredResult, start: int, end: int) -> AsyncIterator[bytes]:
        try:
            return await self._blobs.open(file.key, start, end)
        except MissingBlob:
            raise ClientError("The file is no longer in the store.", status=404, code="not_found", param="filename") from None
        except OSError as error:
            log.error("a result cannot be read: %s", error)
            raise GatewayError("The store of results does not answer.", status=503, code="store_unavailable", retryable=True, retry_after_s=5) from None

    async def expire(self) -> None:
        """Until cancelled: deletes results whose time has come, and idempotency keys of yesterday."""
        while True:
            try:
                await self.forget_expired()
            except (SQLAlchemyError, OSError) as error:
                log.error("expired results could not be removed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def forget_expired(self) -> None:
        while jobs := await self._database.read(find_expired, now_ms(), EXPIRED_AT_ONCE):
            for job in jobs:
                await self.delete(job, len(job.files))
            await self._database.write(forget_results, [job.id for job in jobs])
        await self._database.write(forget_submissions, now_ms() - IDEMPOTENCY_MS)

    async def delete(self, job: Job, count: int) -> None:
        """Its first `count` files."""
        for place in range(count):
            await self._blobs.delete(_key(job, place))


async def _whole(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _encode(files: list[StoredResult]) -> str:
    return msgspec.json.encode(files).decode()


async def _digested(pieces: AsyncIterator[bytes], digest: hashlib._Hash, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > max_bytes:
            raise Unusable(f"it has more than {max_bytes} bytes", kind="bad_reply")
        digest.update(piece)
        yield piece


def _key(job: Job, place: int) -> str:
    return f"jobs/{job.id}/{place}"


def _by_name(filename: str) -> str:
    return _TYPES.get(filename.rpartition(".")[2].lower(), "")


def _filename(job: Job, place: int, given: str, media_type: str, taken: set[str]) -> str:
    """The provider's name where it is a plain one, else the modality's; never twice in one job."""
    extension = _EXTENSIONS.get(media_type, "bin")
    number = f"-{place + 1}" if place else ""
    made = f"{_STEMS[job.modality]}{number}.{extension}"
    return given if _NAME.match(given) and given not in taken else made


