"""Client keys: make, list, change, rotate, revoke. A change is in force on every worker before its call answers, or the answer says so."""

import re
import secrets
import time
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response
from pydantic import Field

from aigate.api.access import Admin
from aigate.api.allow_lists import read_allow_list, unmatched
from aigate.api.boundary import json_reply
from aigate.api.inputs import ArchiveDays, Cents, Future, Globs, Input, Name, Rate, Tag, refuse_null, to_nanousd
from aigate.api.replies import Row, page_reply, standing_fields, whole_cents
from aigate.api.services import Services, Wired
from aigate.core.account import CLAMP, Cap, Standing
from aigate.core.budget import KEY, Owner
from aigate.core.call import Principal
from aigate.core.client_key import KEY_RANDOM_BYTES, ClientKey, key_digest, make_key
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/keys", tags=["keys"])

_KEY_ID = re.compile(r"key_[0-9a-z]{1,40}\Z")
_HINT_CHARS = 4


class _KeyFields(Input):
    expires_at: Future | None = None
    allowed_models: Globs = []
    default_tag: Tag | None = None
    spend_cap_cents: Cents | None = Field(None, description="a month")
    budget_mode: Literal["clamp", "hard"] = CLAMP
    rate_limit_rpm: Rate | None = None
    rate_limit_tpm: Rate | None = None
    max_streams: Rate | None = None
    archive_days: ArchiveDays | None = None


class NewKey(_KeyFields):
    name: Name
    is_admin: bool = False
    sub_account_id: Name | None = None


class KeyChange(_KeyFields):
    name: Name | None = None


def make_client_key(secret: bytes, now_ms: int, **fields: Any) -> tuple[str, ClientKey]:
    """A new key, and what is kept of it."""
    key = make_key(secrets.token_bytes(KEY_RANDOM_BYTES))
    return key, ClientKey(
        id=f"key_{now_ms:011x}{secrets.token_hex(6)}",  # rises with time, so that ids sort by age
        digest=key_digest(secret, key.encode()),
        hint=key[-_HINT_CHARS:],
        created_ms=now_ms,
        **fields,
    )


@router.post("", status_code=201)
async def create_key(new: NewKey, admin: Admin, services: Wired) -> Response:
    """Makes a key. The answer is the only place where it is ever shown."""
    if new.is_admin and new.sub_account_id is not None:
        raise ClientError("is_admin: a sub-account's key cannot be an admin's.", param="is_admin")
    key, row = make_client_key(
        services.key_secret,
        int(time.time() * 1000),
        account_id=admin.account_id,
        sub_account_id=new.sub_account_id,
        name=new.name,
        expires_ms=_unix_ms(new.expires_at),
        allowed_models=read_allow_list(new.allowed_models, services.catalog),
        default_tag=new.default_tag,
        is_admin=new.is_admin,
        rate_limit_rpm=new.rate_limit_rpm,
        rate_limit_tpm=new.rate_limit_tpm,
        max_streams=new.max_streams,
        archive_days=new.archive_days,
    )
    effective = await services.accounts.add_key(row, Cap(to_nanousd(new.spend_cap_cents), new.budget_mode))
    return json_reply({**await _shown(row, services), "key": key, "scoped_key": key, "effective": effective}, 201)


@router.get("")
async def list_keys(
    admin: Admin,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    cursor: Annotated[str | None, Query(pattern="^key_[0-9a-z]{1,40}$")] = None,
) -> Response:
    """Newest first, revoked ones included; `next_cursor` where there are more."""
    rows = await services.keys.list(limit + 1, cursor)
    standings = await services.accounts.standings([_owner(row) for row in rows])
    return page_reply(rows, limit, lambda row: _record(row, standings[_owner(row)], services))


@router.get("/{key_id}")
async def get_key(key_id: str, admin: Admin, services: Wired) -> Response:
    return json_reply(await _shown(await _find(key_id, admin, services), services))


@router.patch("/{key_id}")
async def change_key(key_id: str, change: KeyChange, admin: Admin, services: Wired) -> Response:
    """What is left out stays as it is; null takes a limit, the expiry or the tag away. An expired key may be given more time."""
    changes = change.given()
    refuse_null(changes, "name", "allowed_models", "budget_mode")
    found = await _find(key_id, admin, services)
    if "allowed_models" in changes:
        changes["allowed_models"] = read_allow_list(changes["allowed_models"], services.catalog)
    if "expires_at" in changes:
        changes["expires_ms"] = _unix_ms(changes.pop("expires_at"))
    cap = await take_cap(changes, _owner(found), services)
    changed = await services.accounts.change_key(admin.account_id, key_id, changes, cap)
    if changed is None:
        raise _not_active(found, "revoked", "changed")
    key, effective = changed
    return json_reply({**await _shown(key, services), "effective": effective})


async def take_cap(changes: dict[str, Any], owner: Owner, services: Services) -> Cap | None:
    """The cap that a PATCH sets, its fields taken out of `changes`; None where it names none of them."""
    if "spend_cap_cents" not in changes and "budget_mode" not in changes:
        return None
    standing = (await services.accounts.standings([owner]))[owner]
    limit = to_nanousd(changes.pop("spend_cap_cents")) if "spend_cap_cents" in changes else standing.limit_nanousd
    return Cap(limit, changes.pop("budget_mode", standing.mode))


@router.delete("/{key_id}")
async def delete_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """Revokes a key; its row and its usage stay. Revoking it again changes nothing."""
    return await _revoke(key_id, admin, services)


@router.post("/{key_id}/revoke")
async def revoke_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """The same as DELETE."""
    return await _revoke(key_id, admin, services)


@router.post("/{key_id}/rotate", status_code=201)
async def rotate_key(key_id: str, admin: Admin, services: Wired) -> Response:
    """A new key in the place of the old one, in force at once: same id, limits and usage. The old one dies when the new one is first
    used. Rotating again before that makes the newest count."""
    row = await _find(key_id, admin, services)
    status = _status(row)
    if status != "active":
        raise _not_active(row, status, "rotated")
    key = make_key(secrets.token_bytes(KEY_RANDOM_BYTES))
    digest = key_digest(services.key_secret, key.encode())
    rotated = await services.accounts.rotate_key(key_id, digest, key[-_HINT_CHARS:])
    if rotated is None:
        raise _no_such_key(key_id)
    return json_reply({**await _shown(rotated, services), "key": key, "scoped_key": key, "effective": True}, 201)


async def _revoke(key_id: str, admin: Principal, services: Services) -> Response:
    await _find(key_id, admin, services)
    row = await services.keys.revoke(key_id, int(time.time() * 1000))
    if row is None:
        raise _no_such_key(key_id)
    digests = [digest for digest in (row.digest, row.next_digest) if digest is not None]
    effective = await services.workers.push([(digest, None) for digest in digests])
    return json_reply({**await _shown(row, services), "deleted": True, "effective": effective})


async def _find(key_id: str, admin: Principal, services: Services) -> ClientKey:
    row = await services.keys.get(key_id) if _KEY_ID.match(key_id) else None
    if row is None or row.account_id != admin.account_id:
        raise _no_such_key(key_id)
    return row


def _not_active(key: ClientKey, status: str, done: str) -> ClientError:
    words = f"The key {key.id!r} is {status}: it cannot be {done}; make a new one with POST /v1/keys."
    return ClientError(words, status=409, code="key_not_active", param="key_id")


def _no_such_key(key_id: str) -> ClientError:
    if key_id == "key_root":
        return ClientError("The root key is not in the list of keys: set another one and restart.", param="key_id")
    return ClientError(f"There is no key {key_id[:100]!r}; GET /v1/keys lists them.", status=404, code="not_found", param="key_id")


def _unix_ms(moment: datetime | None) -> int | None:
    return int(moment.timestamp() * 1000) if moment else None


def _owner(key: ClientKey) -> Owner:
    return (KEY, key.account_id, key.id)


async def _shown(key: ClientKey, services: Services) -> Row:
    return _record(key, (await services.accounts.standings([_owner(key)]))[_owner(key)], services)


def _status(key: ClientKey) -> str:
    if key.revoked_ms is not None:
        return "revoked"
    return "expired" if key.expires_ms is not None and key.expires_ms <= time.time() * 1000 else "active"


def _record(key: ClientKey, standing: Standing, services: Services) -> Row:
    record: Row = {
        "id": key.id,
        "object": "key",
        "name": key.name,
        "status": _status(key),
        "hint": f"sk-aig-…{key.hint}",
        "next_hint": f"sk-aig-…{key.next_hint}" if key.next_hint else None,
        "account_id": key.account_id,
        "sub_account_id": key.sub_account_id,
        "allowed_models": key.allowed_models,
        "default_tag": key.default_tag,
        "is_admin": key.is_admin,
        "spend_cap_cents": whole_cents(standing.limit_nanousd),
        **standing_fields(standing),
        "rate_limit_rpm": key.rate_limit_rpm,
        "rate_limit_tpm": key.rate_limit_tpm,
        "max_streams": key.max_streams,
        "archive_days": key.archive_days,
        "created_at": key.created_ms // 1000,
        "expires_at": key.expires_ms // 1000 if key.expires_ms is not None else None,
        "revoked_at": key.revoked_ms // 1000 if key.revoked_ms is not None else None,
    }
    if warnings := unmatched(key.allowed_models, services.catalog):
        record["warnings"] = warnings
    return record
