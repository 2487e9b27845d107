"""Client keys: make, list, revoke. A change is in force on every worker before its call answers, or the answer says so."""

import re
import secrets
import time
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field, StringConstraints, field_validator

from aigate.api.access import Admin
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input, Line
from aigate.api.services import Services, Wired
from aigate.core.client_key import KEY_RANDOM_BYTES, ClientKey, key_digest, make_key
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_KEY_ID = re.compile(r"key_[0-9a-z]{1,40}\Z")

Glob = Annotated[Line, StringConstraints(min_length=1, max_length=200)]


class NewKey(Input):
    name: Line = Field(min_length=1, max_length=200)
    expires_at: datetime | None = Field(None, description="ISO 8601 or unix seconds")
    allowed_models: list[Glob] = Field([], max_length=200, description="patterns over slugs, such as moonshot/*; empty: all")
    default_tag: Line | None = Field(None, min_length=1, max_length=64)
    is_admin: bool = False

    @field_validator("expires_at")
    @classmethod
    def _lies_ahead(cls, value: datetime | None) -> datetime | None:
        if value is None:
            return None
        value = value if value.tzinfo else value.replace(tzinfo=UTC)
        if value.timestamp() <= time.time():
            raise ValueError("must lie in the future")
        return value


@router.post("", status_code=201)
async def create_key(new: NewKey, admin: Admin, services: Wired) -> Response:
    """Makes a key. The answer is the only place where it is ever shown."""
    now_ms = int(time.time() * 1000)
    key = make_key(secrets.token_bytes(KEY_RANDOM_BYTES))
    row = ClientKey(
        id=f"key_{now_ms:011x}{secrets.token_hex(6)}",  # rises with time, so that ids sort by age
        account_id=admin.account_id,
        name=new.name,
        digest=key_digest(services.key_secret, key.encode()),
        hint=key[-4:],
        created_ms=now_ms,
        expires_ms=int(new.expires_at.timestamp() * 1000) if new.expires_at else None,
        allowed_models=tuple(new.allowed_models),
        default_tag=new.default_tag,
        is_admin=new.is_admin,
    )
    await services.keys.add(row)
    effective = await services.workers.push(((row.digest, row.principal()),))
    return json_reply({**_record(row), "key": key, "scoped_key": key, "effective": effective}, 201)


@router.get("")
async def list_keys(
    admin: Admin,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    cursor: Annotated[str | None, Query(pattern="^key_[0-9a-z]{1,40}$")] = None,
) -> Response:
    """Newest first, revoked ones included; `next_cursor` where there are more."""
    rows = await services.keys.list(limit + 1, cursor)
    next_cursor = rows[limit - 1].id if len(rows) > limit else None
    return json_reply({"object": "list", "data": [_record(row) for row in rows[:limit]], "next_cursor": next_cursor})


@router.get("/{key_id}")
async def get_key(key_id: str, admin: Admin, services: Wired) -> Response:
    row = await services.keys.get(key_id) if _KEY_ID.match(key_id) else None
    if row is None:
        raise _no_such_key(key_id)
    return json_reply(_record(row))


@router.delete("/{key_id}")
async def delete_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """Revokes a key; its row and its usage stay. Revoking it again changes nothing."""
    return await _revoke(key_id, services)


@router.post("/{key_id}/revoke")
async def revoke_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """The same as DELETE."""
    return await _revoke(key_id, services)


async def _revoke(key_id: str, services: Services) -> Response:
    row = await services.keys.revoke(key_id, int(time.time() * 1000)) if _KEY_ID.match(key_id) else None
    if row is None:
        raise _no_such_key(key_id)
    effective = await services.workers.push(((row.digest, None),))
    return json_reply({**_record(row), "deleted": True, "effective": effective})


def _no_such_key(key_id: str) -> ClientError:
    if key_id == "key_root":
        return ClientError("The root key is not in the list of keys: set another one and restart.", param="key_id")
    return ClientError(f"There is no key {key_id[:100]!r}; GET /v1/keys lists them.", status=404, code="not_found", param="key_id")


def _record(key: ClientKey) -> dict[str, Any]:
    status = "active"
    if key.revoked_ms is not None:
        status = "revoked"
    elif key.expires_ms is not None and key.expires_ms <= time.time() * 1000:
        status = "expired"
    return {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "status": status,
        "hint": f"sk-aig-…{key.hint}",
        "account_id": key.account_id,
        "sub_account_id": key.sub_account_id,
        "allowed_models": key.allowed_models,
        "default_tag": key.default_tag,
        "is_admin": key.is_admin,
        "created_at": key.created_ms // 1000,
        "expires_at": key.expires_ms // 1000 if key.expires_ms is not None else None,
        "revoked_at": key.revoked_ms // 1000 if key.revoked_ms is not None else None,
    }
