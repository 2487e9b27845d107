"""Webhooks: the secret of a key, registered endpoints, the log of deliveries. Whose they are: api/access.py own_rows."""

import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import Field

from aigate.api.access import Caller, own_rows
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input, Line, refuse_null
from aigate.api.replies import Row, page_reply
from aigate.api.services import Wired
from aigate.core.webhook import EVENT_TYPES, PENDING, Delivery, Endpoint, is_pattern
from aigate.errors import ClientError

T = TypeVar("T")

router = APIRouter(tags=["webhooks"])

MAX_OVERLAP_S = 7 * 86_400
Url = Annotated[str, Field(max_length=2048, description="https://…")]
Events = Annotated[list[Line], Field(max_length=50, description="types, or patterns such as job.*; empty: all")]
Text = Annotated[Line, Field(max_length=500)]


class Rotation(Input):
    overlap_s: Annotated[int, Field(ge=0, le=MAX_OVERLAP_S, description="so long the old secret signs beside the new one")] = 0


class NewEndpoint(Input):
    url: Url
    events: Events = []
    description: Text = ""


class EndpointChange(Input):
    url: Url | None = None
    events: Events | None = None
    description: Text | None = None
    enabled: bool | None = None


# --- the secret of a key ---


@router.get("/v1/webhook-secret")
async def get_secret(caller: Caller, services: Wired) -> Response:
    """Signs what goes to the `webhook_url` of this key's requests."""
    return json_reply({"object": "webhook_secret", "secret": await services.webhooks.secret(caller)})


@router.post("/v1/webhook-secret/rotate")
async def rotate_secret(caller: Caller, services: Wired, rotation: Rotation | None = None) -> Response:
    """The old one is invalid at once, or signs beside the new one for `overlap_s`."""
    rotation = rotation or Rotation()
    return _rotated(await services.webhooks.rotate_secret(caller, rotation.overlap_s), rotation)


# --- endpoints ---


@router.post("/v1/webhook-endpoints", status_code=201)
async def create_endpoint(new: NewEndpoint, caller: Caller, services: Wired) -> Response:
    """The answer is the only place where the endpoint's secret is shown."""
    await services.caller_urls.check_url(new.url, "url")
    fields = {"url": new.url, "events": _read_events(new.events), "description": new.description}
    made, secret = await services.webhooks.add_endpoint(own_rows(caller), fields)
    return json_reply({**_record(made), "secret": secret}, 201)


@router.get("/v1/webhook-endpoints")
async def list_endpoints(caller: Caller, services: Wired) -> Response:
    found = await services.webhooks.endpoints(own_rows(caller))
    return json_reply({"object": "list", "data": [_record(endpoint) for endpoint in found]})


@router.get("/v1/webhook-endpoints/{endpoint_id}")
async def get_endpoint(endpoint_id: str, caller: Caller, services: Wired) -> Response:
    found = await services.webhooks.endpoint(own_rows(caller), endpoint_id)
    return json_reply(_record(_theirs(found, "endpoint", endpoint_id)))


@router.patch("/v1/webhook-endpoints/{endpoint_id}")
async def change_endpoint(endpoint_id: str, change: EndpointChange, caller: Caller, services: Wired) -> Response:
    """What is on its way goes to the new URL. Disabled: nothing is sent to it, and what is on its way ends as failed."""
    changes = change.given()
    refuse_null(changes, "url", "events", "description", "enabled")
    if "url" in changes:
        await services.caller_urls.check_url(changes["url"], "url")
    if "events" in changes:
        changes["events"] = _read_events(changes["events"])
    if "enabled" in changes:
        changes["disabled_ms"] = None if changes.pop("enabled") else int(time.time() * 1000)
    changed = await services.webhooks.change_endpoint(own_rows(caller), endpoint_id, changes)
    return json_reply(_record(_theirs(changed, "endpoint", endpoint_id)))


@router.delete("/v1/webhook-endpoints/{endpoint_id}")
async def delete_endpoint(endpoint_id: str, caller: Caller, services: Wired) -> Response:
    """What is on its way to it ends as failed; the log of what went there stays."""
    is_gone = await services.webhooks.remove_endpoint(own_rows(caller), endpoint_id)
    _theirs(is_gone or None, "endpoint", endpoint_id)
    return json_reply({"id": endpoint_id, "object": "webhook_endpoint", "deleted": True})


@router.post("/v1/webhook-endpoints/{endpoint_id}/rotate")
async def rotate_endpoint_secret(endpoint_id: str, caller: Caller, services: Wired, rotation: Rotation | None = None) -> Response:
    rotation = rotation or Rotation()
    secret = await services.webhooks.rotate_endpoint_secret(own_rows(caller), endpoint_id, rotation.overlap_s)
    return _rotated(_theirs(secret, "endpoint", endpoint_id), rotation)


# --- deliveries ---


class Filters(Input):
    endpoint_id: Line | None = None
    event_id: Line | None = None
    event_type: Line | None = None
    subject: Line | None = None
    status: Literal["pending", "delivered", "failed"] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,18}$")] | None = None


@router.get("/v1/webhook-deliveries")
async def list_deliveries(asked: Annotated[Filters, Query()], caller: Caller, services: Wired) -> Response:
    """Newest first; `next_cursor` where there are more."""
    filters = {name: value for name, value in asked.given().items() if value is not None and name not in ("limit", "cursor")}
    before = None if asked.cursor is None else int(asked.cursor)
    rows = await services.webhooks.deliveries(own_rows(caller), filters, asked.limit + 1, before)
    return page_reply(rows, asked.limit, _delivery, lambda last: str(last.number))


@router.get("/v1/webhook-deliveries/{delivery_id}")
async def get_delivery(delivery_id: str, caller: Caller, services: Wired) -> Response:
    """With what is sent, and what its last tries came to."""
    found = await services.webhooks.delivery(own_rows(caller), delivery_id)
    return json_reply(_whole_delivery(_theirs(found, "delivery", delivery_id)))


@router.post("/v1/webhook-deliveries/{delivery_id}/resend", status_code=202)
async def resend(delivery_id: str, caller: Caller, services: Wired) -> Response:
    """At once, with the same delivery id, and again by the schedule where that fails."""
    found = _theirs(await services.webhooks.send_again(own_rows(caller), delivery_id), "delivery", delivery_id)
    if found.status != PENDING:
        raise ClientError(f"The endpoint {found.endpoint_id} of this delivery was deleted: there is nowhere to send it.", status=409, code="endpoint_deleted")
    return json_reply(_whole_delivery(found), 202)


# --- on the wire ---


def _read_events(events: list[str]) -> tuple[str, ...]:
    for place, text in enumerate(events):
        if text == "*":
            return ()
        if not is_pattern(text):
            words = f"events[{place}]: {text[:80]!r} is no event; there are {', '.join(EVENT_TYPES)}, and patterns such as job.*"
            raise ClientError(words, param=f"events[{place}]")
    return tuple(dict.fromkeys(events))


def _theirs(found: T | None, kind: str, asked_id: str) -> T:
    if found is None:
        plural = {"endpoint": "endpoints", "delivery": "deliveries"}[kind]
        words = f"There is no webhook {kind} {asked_id[:100]!r}; GET /v1/webhook-{plural} lists them."
        raise ClientError(words, status=404, code="not_found", param=f"{kind}_id")
    return found


def _rotated(secret: str, rotation: Rotation) -> Response:
    until = int(time.time()) + rotation.overlap_s if rotation.overlap_s else None
    return json_reply({"object": "webhook_secret", "secret": secret, "previous_valid_until": until})


def _record(endpoint: Endpoint) -> Row:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "url": endpoint.url,
        "events": list(endpoint.events) or ["*"],
        "description": endpoint.description,
        "status": "enabled" if endpoint.disabled_ms is None else "disabled",
        "sub_account_id": endpoint.sub_account_id,
        "key_id": endpoint.key_id,
        "created_at": endpoint.created_ms // 1000,
    }


def _delivery(row: Delivery) -> Row:
    last = row.tries[-1] if row.tries else None
    return {
        "id": row.id,
        "object": "webhook_delivery",
        "event_id": row.event_id,
        "event_type": row.event_type,
        "endpoint_id": row.endpoint_id,
        "url": row.url,
        "subject": row.subject or None,
        "status": row.status,
        "attempts": row.attempts,
        "response_status": (last.status or None) if last else None,
        "error": (last.error or None) if last else None,
        "created_at": row.created_ms // 1000,
        "next_attempt_at": _seconds(row.due_ms),
        "ended_at": _seconds(row.ended_ms),
    }


def _whole_delivery(row: Delivery) -> Mapping[str, Any]:
    tries = [{"at": each.at_ms // 1000, "took_ms": each.took_ms, "status": each.status or None, "error": each.error or None} for each in row.tries]
    return {**_delivery(row), "tries": tries, "body": msgspec.Raw(row.body.encode())}


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000
