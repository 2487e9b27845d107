"""Kept responses: GET, DELETE and cancel of /v1/responses/{id}, and the items it answered. POST /v1/responses itself is the workers'.

A response is seen by its owner alone: keys of the sub-account that it was made for, else the key that made it.
"""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.services import Wired
from aigate.core.account import tenant_of
from aigate.dialects.openai_responses_background import is_background
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/responses", tags=["responses"])


@router.get("/{response_id}")
async def get_response(
    response_id: str,
    caller: Caller,
    services: Wired,
    stream: Annotated[bool, Query(description="only false: a stream is not kept")] = False,
) -> Response:
    if stream:
        raise ClientError("stream: a finished response is only sent whole; leave stream out.", param="stream", code="unsupported_parameter")
    found = await services.responses.get(*tenant_of(caller), response_id)
    if found is None:
        raise _no_such(response_id)
    return Response(found.body, media_type="application/json")


@router.delete("/{response_id}")
async def delete_response(response_id: str, caller: Caller, services: Wired) -> Response:
    """Nothing can go on from it any more, and from what went on from it neither."""
    if not await services.responses.delete(*tenant_of(caller), response_id):
        raise _no_such(response_id)
    return json_reply({"id": response_id, "object": "response", "deleted": True})


@router.post("/{response_id}/cancel")
async def cancel_response(response_id: str, caller: Caller, services: Wired) -> Response:
    """The response as it is from then on; one that had ended is as it was."""
    found = await services.responses.cancel(*tenant_of(caller), response_id)
    if found is None:
        raise _no_such(response_id)
    if not is_background(found.body):
        words = f"response_id: {response_id!r} has ended; only background responses can be cancelled."
        raise ClientError(words, status=409, code="not_cancellable", param="response_id")
    return Response(found.body, media_type="application/json")


@router.get("/{response_id}/input_items")
async def list_input_items(
    response_id: str,
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Literal["asc", "desc"] = "desc",
    after: Annotated[str | None, Query(description="id of the last item of the page before")] = None,
) -> Response:
    """What the response answered, the turns before it included."""
    items = await services.responses.input_items(*tenant_of(caller), response_id)
    if items is None:
        raise _no_such(response_id)
    if order == "desc":
        items.reverse()
    start = 0
    if after is not None:
        start = next((place + 1 for place, item in enumerate(items) if item["id"] == after), -1)
        if start < 0:
            raise ClientError(f"after: there is no item {after[:100]!r} in this list.", param="after")
    page = items[start : start + limit]
    ends = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    return json_reply({"object": "list", "data": page, "first_id": ends[0], "last_id": ends[1], "has_more": start + limit < len(items)})


def _no_such(response_id: str) -> ClientError:
    words = f"Response with id {response_id[:100]!r} not found: it was never kept, was deleted or is too old."
    return ClientError(words, status=404, code="not_found", param="response_id")
