"""What was used and what it cost. A key that is not an admin's sees its own calls only."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.inputs import Month, month_or_now
from aigate.api.services import Wired
from aigate.core.call import Principal

router = APIRouter(prefix="/v1/usage", tags=["usage"])


@router.get("/recent")
async def recent_calls(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=200)] = None,
) -> Response:
    """Calls, newest first; `next_cursor` where there are more."""
    calls, next_cursor = await services.usage.recent(limit, cursor, _own(caller))
    return json_reply({"object": "list", "data": calls, "next_cursor": next_cursor})


@router.get("/by-tag")
async def usage_by_tag(caller: Caller, services: Wired, month: Month = None) -> Response:
    month = month_or_now(month)
    return json_reply({"object": "list", "month": month, "data": await services.usage.by_tag(month, _own(caller))})


@router.get("")
async def usage_of_month(caller: Caller, services: Wired, month: Month = None) -> Response:
    month = month_or_now(month)
    return json_reply({"object": "usage", "month": month, **await services.usage.totals(month, _own(caller))})


def _own(caller: Principal) -> str | None:
    return None if caller.is_admin else caller.key_id
