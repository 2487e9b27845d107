"""Stored provider keys (bring your own key): sealed when they come in, never shown again; a call names one by its id."""

import re
import secrets
import time

from fastapi import APIRouter, Response
from pydantic import JsonValue

from aigate.api.access import Admin
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input, Line, Name
from aigate.api.replies import Row
from aigate.api.services import Wired
from aigate.core.account import ProviderKey
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/provider-keys", tags=["provider keys"])

_ID = re.compile(r"pk_[0-9a-z]{1,40}\Z")
_KEY = re.compile(r"[!-~]{8,4096}\Z")  # what can be sent in a header
_HINT_CHARS = 4


class NewProviderKey(Input):
    provider: Line
    key: JsonValue  # checked here: a message about a wrong field shows its value
    name: Name | None = None
    sub_account_id: Name | None = None


@router.post("", status_code=201)
async def add_provider_key(new: NewProviderKey, admin: Admin, services: Wired) -> Response:
    """Bound to the provider's origin of today: it is sent nowhere else."""
    provider, origin = services.catalog.origin_of(new.provider)
    if not isinstance(new.key, str) or not _KEY.match(new.key):
        raise ClientError("key: must be a text of 8 to 4096 printable characters without spaces.", param="key")
    now_ms = int(time.time() * 1000)
    row = ProviderKey(
        id=f"pk_{now_ms:011x}{secrets.token_hex(6)}",
        account_id=admin.account_id,
        sub_account_id=new.sub_account_id,
        provider=provider,
        origin=origin,
        name=new.name or provider,
        hint=new.key[-_HINT_CHARS:],
        created_ms=now_ms,
    )
    await services.provider_keys.add(row, new.key)
    return json_reply(_record(row), 201)


@router.get("")
async def list_provider_keys(admin: Admin, services: Wired) -> Response:
    """Newest first, revoked ones included."""
    found = await services.provider_keys.list(admin.account_id)
    return json_reply({"object": "list", "data": [_record(row) for row in found]})


@router.post("/rotate")
async def rotate_provider_keys(admin: Admin, services: Wired) -> Response:
    """Seals every stored key under a new key of the gateway's; the stored keys themselves stay as they are."""
    return json_reply({"object": "provider_keys.rotation", "rotated": await services.provider_keys.rotate()})


@router.get("/{key_id}")
async def get_provider_key(key_id: str, admin: Admin, services: Wired) -> Response:
    row = await services.provider_keys.get(admin.account_id, key_id) if _ID.match(key_id) else None
    if row is None:
        raise _no_such(key_id)
    return json_reply(_record(row))


@router.delete("/{key_id}")
async def delete_provider_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """What was sealed is erased, and no worker uses it from now on, or the answer says that it is not `effective` yet (then within a
    minute). The record stays, as the ledger may speak of it."""
    row = None
    if _ID.match(key_id):
        row = await services.provider_keys.revoke(admin.account_id, key_id, int(time.time() * 1000))
    if row is None:
        raise _no_such(key_id)
    effective = await services.workers.push([], provider_keys=[key_id])
    return json_reply({**_record(row), "deleted": True, "effective": effective})


def _no_such(key_id: str) -> ClientError:
    words = f"There is no provider key {key_id[:100]!r}; GET /v1/provider-keys lists them."
    return ClientError(words, status=404, code="not_found", param="key_id")


def _record(row: ProviderKey) -> Row:
    return {
        "id": row.id,
        "object": "provider_key",
        "provider": row.provider,
        "origin": row.origin,
        "name": row.name,
        "status": "active" if row.revoked_ms is None else "revoked",
        "hint": f"…{row.hint}",
        "sub_account_id": row.sub_account_id,
        "created_at": row.created_ms // 1000,
        "revoked_at": row.revoked_ms // 1000 if row.revoked_ms is not None else None,
    }
