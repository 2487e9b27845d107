"""What was used and what it cost. An admin's key sees its account, a sub-account's key that sub-account, any other its own calls."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from msgspec.structs import replace

from aigate.api.access import Caller, own_rows
from aigate.api.boundary import json_reply
from aigate.api.inputs import AskedPage, Month, month_or_now, next_cursor
from aigate.api.replies import Row, cents, table_reply, wants_csv
from aigate.api.services import Services, Totals, Wired
from aigate.core.account import Page, Whose
from aigate.core.budget import KEY, SUB_ACCOUNT
from aigate.core.call import Principal
from aigate.errors import ClientError
from aigate.journal.records import CallEnd

router = APIRouter(prefix="/v1/usage", tags=["usage"])

_SUMS = ("requests", "attempts", "cost_cents", "input_tokens", "output_tokens")
# dimension → the field that names it beside `label`, and the label of what has none: a label is never null
_DIMENSIONS = {
    "tag": ("tag", "(untagged)"),
    "sub-account": ("sub_account_id", "(none)"),
    "key": ("key_id", "(none)"),
    "model": ("model", "(not served)"),
    "day": ("date", ""),
}


@router.get("/recent")
async def recent_calls(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Calls, newest first; `next_cursor` where there are more."""
    calls, next_cursor = await services.usage.recent(limit=limit, cursor=cursor, whose=own_rows(caller))
    return json_reply({"object": "list", "data": [_call(call) for call in calls], "next_cursor": next_cursor})


@router.get("/by-tag")
async def usage_by_tag(caller: Caller, services: Wired, request: Request, page: AskedPage, month: Month = None) -> Response:
    return await _usage_by("tag", month, caller, services, (request, page))


@router.get("/by-sub-account")
async def usage_by_sub_account(caller: Caller, services: Wired, request: Request, page: AskedPage, month: Month = None) -> Response:
    return await _usage_by("sub-account", month, caller, services, (request, page))


@router.get("/by-key")
async def usage_by_key(caller: Caller, services: Wired, request: Request, page: AskedPage, month: Month = None) -> Response:
    return await _usage_by("key", month, caller, services, (request, page))


@router.get("/by-model")
async def usage_by_model(caller: Caller, services: Wired, request: Request, page: AskedPage, month: Month = None) -> Response:
    return await _usage_by("model", month, caller, services, (request, page))


@router.get("/by-day")
async def usage_by_day(caller: Caller, services: Wired, request: Request, page: AskedPage, month: Month = None) -> Response:
    return await _usage_by("day", month, caller, services, (request, page))


@router.get("")
async def usage_of_month(caller: Caller, services: Wired, month: Month = None) -> Response:
    month = month_or_now(month)
    total = await services.usage.by("all", month, own_rows(caller))
    return json_reply({"object": "usage", "month": month, **(sums(total[0]) if total else dict.fromkeys(_SUMS, 0))})


async def _usage_by(dimension: str, month: str | None, caller: Principal, services: Services, asked: tuple[Request, Page | None]) -> Response:
    """Dearest first, days in their order; in pages, where these are asked for, all in the order of their labels."""
    request, page = asked
    month, whose = month_or_now(month), own_rows(caller)
    more: Row = {}
    if page is None:
        totals = await services.usage.by(dimension.replace("-", "_"), month, whose)
    elif wants_csv(request):
        raise ClientError("limit: CSV comes whole; leave limit and cursor out, or take JSON.", param="limit")
    else:
        totals = await services.usage.by(dimension.replace("-", "_"), month, whose, replace(page, limit=page.limit + 1))
        more["next_cursor"] = next_cursor(page, [total.label for total in totals])
        totals = totals[: page.limit]
    names = await _names(dimension, [total.label for total in totals if total.label], whose, services)
    field, nothing = _DIMENSIONS[dimension]
    columns = ["label", field, *(["name"] if names is not None else []), *_SUMS]
    rows = []
    for total in totals:
        row: Row = {"label": total.label or nothing, field: total.label or None, **sums(total)}
        if names is not None:
            row["name"] = names.get(total.label)
            row["label"] = row["name"] or row["label"]
        rows.append(row)
    return table_reply(request, rows, columns, month=month, **more)


async def _names(dimension: str, ids: list[str], whose: Whose, services: Services) -> dict[str, str] | None:
    """What people call those of these ids that have a name."""
    if dimension == "sub-account":
        return await services.accounts.names(SUB_ACCOUNT, whose.account_id, ids)
    if dimension == "key":
        return await services.accounts.names(KEY, whose.account_id, ids)
    return None


def sums(total: Totals) -> dict[str, Any]:
    return {
        "requests": total.requests,
        "attempts": total.attempts,
        "cost_cents": cents(total.cost_nanousd),
        "input_tokens": total.input_tokens,
        "output_tokens": total.output_tokens,
    }


def _call(call: CallEnd) -> dict[str, Any]:
    started = datetime.fromtimestamp(call.started_ms / 1000, UTC)
    return {
        "request_id": call.call_id,
        "model": call.served_by or call.asked_model,
        "asked_model": call.asked_model,
        "status": call.status,
        "error_code": call.error_code or None,
        "latency_ms": call.latency_ms,
        "ttft_ms": call.ttft_ms if call.ttft_ms >= 0 else None,
        "stream": call.is_stream,
        "attempts": call.attempts,
        "cost_cents": cents(call.cost_nanousd),
        "tag": call.tag,
        "key_id": call.key_id,
        "sub_account_id": call.sub_account_id,
        "client_request_id": call.client_request_id,
        "endpoint": call.endpoint,
        "surface": call.surface,
        "warnings": call.warnings or None,
        "created_at": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # text here alone: clients cut it up
    }
