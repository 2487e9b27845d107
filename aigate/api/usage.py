"""What was used and what it cost. A key that is not an admin's sees its own calls only."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.inputs import Month, month_or_now
from aigate.api.services import Totals, Wired
from aigate.core.call import Principal
from aigate.core.price import format_cents
from aigate.journal.records import CallEnd

router = APIRouter(prefix="/v1/usage", tags=["usage"])

UNTAGGED = "(untagged)"  # a label is never null


@router.get("/recent")
async def recent_calls(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Calls, newest first; `next_cursor` where there are more."""
    calls, next_cursor = await services.usage.recent(limit=limit, cursor=cursor, key_id=_own(caller))
    return json_reply({"object": "list", "data": [_call(call) for call in calls], "next_cursor": next_cursor})


@router.get("/by-tag")
async def usage_by_tag(caller: Caller, services: Wired, month: Month = None) -> Response:
    month = month_or_now(month)
    tags = await services.usage.by_tag(month, key_id=_own(caller))
    data = [{"label": total.tag or UNTAGGED, "tag": total.tag or None, **_sums(total)} for total in tags]
    return json_reply({"object": "list", "month": month, "data": data})


@router.get("")
async def usage_of_month(caller: Caller, services: Wired, month: Month = None) -> Response:
    month = month_or_now(month)
    return json_reply({"object": "usage", "month": month, **_sums(await services.usage.of_month(month, key_id=_own(caller)))})


def _own(caller: Principal) -> str | None:
    return None if caller.is_admin else caller.key_id


def _sums(total: Totals) -> dict[str, Any]:
    return {
        "requests": total.requests,
        "attempts": total.attempts,
        "cost_cents": _cents(total.cost_nanousd),
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
        "cost_cents": _cents(call.cost_nanousd),
        "tag": call.tag,
        "key_id": call.key_id,
        "sub_account_id": call.sub_account_id,
        "client_request_id": call.client_request_id,
        "endpoint": call.endpoint,
        "surface": call.surface,
        "warnings": call.warnings or None,
        "created_at": started.isoformat(timespec="milliseconds").replace("+00:00", "Z"),  # text here alone: clients cut it up
    }


def _cents(nanousd: int) -> float:
    return float(format_cents(nanousd))
