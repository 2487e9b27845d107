"""Uploaded files: /v1/files, as OpenAI's clients know it. Seen by their owner alone: the keys of a sub-account, else the key itself."""

from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Literal
from urllib.parse import quote

from fastapi import APIRouter, Query, Request, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.multipart import Upload
from aigate.api.ranges import bytes_reply
from aigate.api.services import Services, Wired
from aigate.core.account import tenant_of
from aigate.core.call import Principal
from aigate.core.file import BATCH, MAX_LIFE_S, MIN_LIFE_S, PURPOSES, FileFields, Listing, StoredFile
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/files", tags=["files"])

_FIELDS = {"purpose", "expires_after[anchor]", "expires_after[seconds]"}
_FORM = {"type": "object", "properties": {"file": {"type": "string", "format": "binary"}, "purpose": {"type": "string"}}, "required": ["file"]}


@router.post("", status_code=201, openapi_extra={"requestBody": {"content": {"multipart/form-data": {"schema": _FORM}}}})
async def upload_file(request: Request, caller: Caller, services: Wired) -> Response:
    """Takes a file as multipart/form-data: `file`, `purpose` (batch when left out), `expires_after[anchor]` and `expires_after[seconds]`."""
    upload = Upload(request)
    file = await services.files.add(tenant_of(caller), upload.pieces(), lambda: _read_fields(upload))
    return json_reply(file_record(file), 201)


@router.get("")
async def list_files(
    caller: Caller,
    services: Wired,
    purpose: str | None = None,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 100,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(max_length=100, description="id of the last file of the page before")] = None,
) -> Response:
    """By age; `has_more` where there are more."""
    found = await services.files.list(tenant_of(caller), Listing(limit + 1, after, order == "asc"), purpose)
    return list_reply([file_record(each) for each in found], limit)


@router.get("/{file_id}")
async def get_file(file_id: str, caller: Caller, services: Wired) -> Response:
    return json_reply(file_record(await _find(file_id, caller, services)))


@router.delete("/{file_id}")
async def delete_file(file_id: str, caller: Caller, services: Wired) -> Response:
    """Gone at once; a batch that reads it goes on."""
    if not await services.files.delete(tenant_of(caller), file_id):
        raise no_such_file(file_id, "file_id")
    return json_reply({"id": file_id, "object": "file", "deleted": True})


@router.get("/{file_id}/content")
async def get_content(file_id: str, request: Request, caller: Caller, services: Wired) -> Response:
    """The bytes; a range of them where the request names one."""
    file = await _find(file_id, caller, services)
    headers = {
        "content-type": "application/octet-stream",
        "content-disposition": f"attachment; filename*=UTF-8''{quote(file.filename, safe='')}",
        "x-content-type-options": "nosniff",
    }
    return await bytes_reply(request, file.size_bytes, partial(services.files.read, file.id), headers)


def file_record(file: StoredFile) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "bytes": file.size_bytes,
        "created_at": file.created_ms // 1000,
        "expires_at": None if file.expires_ms is None else file.expires_ms // 1000,
        "filename": file.filename,
        "purpose": file.purpose,
        "status": "processed",
        "status_details": None,
    }


def list_reply(data: list[dict[str, Any]], limit: int) -> Response:
    """A page of records that was read with one more than its limit."""
    page = data[:limit]
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return json_reply({"object": "list", "data": page, "first_id": ends[0], "last_id": ends[1], "has_more": len(data) > limit})


def no_such_file(file_id: str, param: str) -> ClientError:
    words = f"{param}: there is no file {file_id[:100]!r}; GET /v1/files lists yours."
    return ClientError(words, status=404, code="not_found", param=param)


async def _find(file_id: str, caller: Principal, services: Services) -> StoredFile:
    found = await services.files.get(tenant_of(caller), file_id)
    if found is None:
        raise no_such_file(file_id, "file_id")
    return found


def _read_fields(upload: Upload) -> FileFields:
    fields = upload.fields
    for name in fields:
        if name not in _FIELDS:
            raise ClientError(f"{name[:80]}: no such field; allowed are file and {', '.join(sorted(_FIELDS))}.", param=name[:80])
    purpose = fields.get("purpose") or BATCH
    if purpose not in PURPOSES:
        raise ClientError(f"purpose: allowed are {', '.join(PURPOSES)}, got {purpose[:40]!r}.", param="purpose")
    return FileFields(upload.filename, purpose, _read_life(fields))


def _read_life(fields: Mapping[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor not in (None, "created_at"):
        raise ClientError(f"expires_after[anchor]: the only one is created_at, got {anchor[:40]!r}.", param="expires_after[anchor]")
    if seconds is None or not seconds.isascii() or not seconds.isdigit() or not MIN_LIFE_S <= int(seconds[:18]) <= MAX_LIFE_S:
        words = f"expires_after[seconds]: a whole number from {MIN_LIFE_S} to {MAX_LIFE_S}, got {(seconds or '')[:40]!r}."
        raise ClientError(words, param="expires_after[seconds]")
    return int(seconds)
