"""Sub-accounts: a product's own customers, each with a key, a monthly cap and limits of its own.

An admin's key manages those of its account; a sub-account's key sees itself and nothing else: what is not its own is not there.
"""

import re
import secrets
import time
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from aigate.api.access import Admin, Caller
from aigate.api.allow_lists import read_allow_list, unmatched
from aigate.api.boundary import json_reply
from aigate.api.inputs import ArchiveDays, Cents, Globs, Input, Name, Rate, Tag, refuse_null, to_nanousd
from aigate.api.keys import make_client_key, take_cap
from aigate.api.replies import Row, page_reply, standing_fields, whole_cents
from aigate.api.services import Services, Wired
from aigate.api.usage import sums
from aigate.core.account import CLAMP, Cap, Standing, SubAccount, Whose
from aigate.core.budget import SUB_ACCOUNT, Owner
from aigate.core.call import Principal
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/sub-accounts", tags=["sub-accounts"])

_ID = re.compile(r"sa_[0-9a-z]{1,40}\Z")
_LIMITS = ("rate_limit_rpm", "rate_limit_tpm", "max_streams", "archive_days")
_NEVER_NULL = ("name", "allowed_models", "budget_mode")


class NewSubAccount(Input):
    name: Name
    external_ref: Name | None = None
    spend_cap_cents: Cents | None = None
    budget_mode: Literal["clamp", "hard"] = CLAMP
    rate_limit_rpm: Rate | None = None
    rate_limit_tpm: Rate | None = None
    max_streams: Rate | None = None
    archive_days: ArchiveDays | None = None
    default_tag: Tag | None = None
    allowed_models: Globs = []


class SubAccountChange(NewSubAccount):
    name: Name | None = None  # type: ignore[assignment]


@router.post("", status_code=201)
async def create_sub_account(new: NewSubAccount, admin: Admin, services: Wired) -> Response:
    """Makes a sub-account and its first key. The answer is the only place where the key is ever shown."""
    now_ms = int(time.time() * 1000)
    sub_account = SubAccount(
        id=f"sa_{now_ms:011x}{secrets.token_hex(6)}",  # rises with time, so that ids sort by age
        account_id=admin.account_id,
        name=new.name,
        external_ref=new.external_ref,
        default_tag=new.default_tag,
        allowed_models=read_allow_list(new.allowed_models, services.catalog),
        created_ms=now_ms,
        **{name: getattr(new, name) for name in _LIMITS},
    )
    key, row = make_client_key(services.key_secret, now_ms, account_id=admin.account_id, sub_account_id=sub_account.id, name=new.name)
    cap = Cap(to_nanousd(new.spend_cap_cents), new.budget_mode)
    effective = await services.accounts.add_sub_account(sub_account, cap, row)
    shown = await _shown(sub_account, services)
    return json_reply({**shown, "key": key, "scoped_key": key, "key_id": row.id, "effective": effective}, 201)


@router.get("")
async def list_sub_accounts(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    cursor: Annotated[str | None, Query(pattern="^sa_[0-9a-z]{1,40}$")] = None,
) -> Response:
    """Newest first, without deleted ones; `next_cursor` where there are more."""
    if not caller.is_admin:
        found = [await _find(caller.sub_account_id, caller, services)] if caller.sub_account_id and cursor is None else []
    else:
        found = await services.accounts.list_sub_accounts(caller.account_id, limit + 1, cursor)
    standings = await services.accounts.standings([_owner(each) for each in found])
    return page_reply(found, limit, lambda each: _record(each, standings[_owner(each)], services))


@router.get("/{sub_account_id}")
async def get_sub_account(sub_account_id: str, caller: Caller, services: Wired) -> Response:
    return json_reply(await _shown(await _find(sub_account_id, caller, services), services))


@router.patch("/{sub_account_id}")
async def change_sub_account(sub_account_id: str, change: SubAccountChange, admin: Admin, services: Wired) -> Response:
    """What is left out stays as it is; null takes a limit away. A cap may lie below what is spent: then nothing more is admitted."""
    changes = change.given()
    refuse_null(changes, *_NEVER_NULL)
    found = await _find(sub_account_id, admin, services)
    if "allowed_models" in changes:
        changes["allowed_models"] = read_allow_list(changes["allowed_models"], services.catalog)
    cap = await take_cap(changes, _owner(found), services)
    changed = await services.accounts.change_sub_account(admin.account_id, found.id, changes, cap)
    if changed is None:
        raise _no_such(sub_account_id)
    sub_account, effective = changed
    return json_reply({**await _shown(sub_account, services), "effective": effective})


@router.delete("/{sub_account_id}")
async def delete_sub_account(sub_account_id: str, admin: Admin, services: Wired) -> Response:
    """Its keys are refused from now on; what it used stays in the ledger. Deleting it again changes nothing."""
    now_ms = int(time.time() * 1000)
    deleted = None
    if _ID.match(sub_account_id):
        deleted = await services.accounts.delete_sub_account(admin.account_id, sub_account_id, now_ms)
    if deleted is None:
        raise _no_such(sub_account_id)
    return json_reply({"status": "ok", "id": deleted[0].id, "object": "sub_account", "deleted": True, "effective": deleted[1]})


@router.get("/{sub_account_id}/usage")
async def sub_account_usage(
    sub_account_id: str,
    caller: Caller,
    services: Wired,
    window: Annotated[str, Query(pattern="^([1-9]|[1-9][0-9]|[123][0-9][0-9])d$", description="so many days up to today, UTC: 30d")] = "30d",
) -> Response:
    """Also of a deleted one."""
    sub_account = await _find(sub_account_id, caller, services, is_deleted_too=True)
    today = datetime.fromtimestamp(time.time(), UTC).date()
    days = (str(today - timedelta(int(window[:-1]) - 1)), str(today))
    whose = Whose(caller.account_id, sub_account_id=sub_account.id)
    by_model, by_day = [await services.usage.by_in_days(dimension, *days, whose) for dimension in ("model", "day")]
    total = await services.usage.by_in_days("all", *days, whose)
    no_sums = dict.fromkeys(("requests", "attempts", "cost_cents", "input_tokens", "output_tokens"), 0)
    return json_reply(
        {
            "object": "sub_account.usage",
            "sub_account_id": sub_account.id,
            "window": window,
            "from": days[0],
            "to": days[1],
            "summary": sums(total[0]) if total else no_sums,
            "by_model": [{"model_id": each.label or "(not served)", "model": each.label or None, **sums(each)} for each in by_model],
            "by_day": [{"date": each.label, **sums(each)} for each in by_day],
        }
    )


async def _find(sub_account_id: str, caller: Principal, services: Services, *, is_deleted_too: bool = False) -> SubAccount:
    """The caller's; one that is somebody else's is not there."""
    is_visible = caller.is_admin or caller.sub_account_id == sub_account_id
    found = None
    if is_visible and _ID.match(sub_account_id):
        found = await services.accounts.get_sub_account(caller.account_id, sub_account_id)
    if found is None or (found.deleted_ms is not None and not is_deleted_too):
        raise _no_such(sub_account_id)
    return found


def _no_such(sub_account_id: str) -> ClientError:
    words = f"There is no sub-account {sub_account_id[:100]!r}; GET /v1/sub-accounts lists them."
    return ClientError(words, status=404, code="not_found", param="sub_account_id")


def _owner(sub_account: SubAccount) -> Owner:
    return (SUB_ACCOUNT, sub_account.account_id, sub_account.id)


async def _shown(sub_account: SubAccount, services: Services) -> Row:
    owner = _owner(sub_account)
    return _record(sub_account, (await services.accounts.standings([owner]))[owner], services)


def _record(sub_account: SubAccount, standing: Standing, services: Services) -> dict[str, Any]:
    record: dict[str, Any] = {
        "id": sub_account.id,
        "object": "sub_account",
        "name": sub_account.name,
        "external_ref": sub_account.external_ref,
        "status": "active" if sub_account.deleted_ms is None else "deleted",
        "spend_cap_cents": whole_cents(standing.limit_nanousd),
        **standing_fields(standing),
        **{name: getattr(sub_account, name) for name in _LIMITS},
        "default_tag": sub_account.default_tag,
        "allowed_models": sub_account.allowed_models,
        "created_at": sub_account.created_ms // 1000,
    }
    if warnings := unmatched(sub_account.allowed_models, services.catalog):
        record["warnings"] = warnings
    return record
