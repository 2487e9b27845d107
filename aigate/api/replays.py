"""Replays: a past call asked of another model, and shadows: a share of a key's calls asked of one as they come.

A caller replays calls that it may see: an admin's key those of its account, a sub-account's key that sub-account's, any other its own.
"""

import time
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from aigate.api.access import Caller, own_rows, owner_id_of, seen_by
from aigate.api.boundary import json_reply
from aigate.api.inputs import Future, Input, Line, Tag
from aigate.api.replies import cents, page_reply
from aigate.api.services import Services, Wired
from aigate.core.allow import check_allowed
from aigate.core.call import Principal
from aigate.core.replay import Replay, Shadow
from aigate.errors import ClientError
from aigate.journal.records import CallEnd

router = APIRouter(prefix="/v1/replays", tags=["replays"])

WAIT_S = 50.0  # of a request, for its replay to end
SHADOW_DAYS = 7

Slug = Annotated[Line, Field(min_length=1, max_length=200)]
ShadowId = Annotated[str | None, Query(pattern="^shd_[0-9a-z]{1,40}$")]


class NewReplay(Input):
    source_request_id: Annotated[Line, Field(min_length=1, max_length=100)]
    target_model: Slug
    shadow: Annotated[bool, Field(description="mirror the calls of the source's key from now on, too")] = False
    share: Annotated[float, Field(gt=0, le=1, description="of the key's calls, of a shadow")] = 0.05
    max_calls: Annotated[int, Field(ge=1, le=100_000, description="of a shadow")] = 1000
    until: Future | None = None


@router.post("", status_code=201)
async def create_replay(
    new: NewReplay,
    caller: Caller,
    services: Wired,
    x_aig_tag: Annotated[Tag | None, Header()] = None,
    prefer: Annotated[str, Header(description="respond-async: do not wait for the answer")] = "",
) -> Response:
    """The same request, as a metered call of this key. With `shadow` the record has a `shadow_id`: its mirrored calls are listed by it."""
    source = await _source(new.source_request_id, caller, services)
    endpoint = "embeddings" if source.endpoint == "embeddings" else "chat"
    target = services.catalog.resolve(new.target_model, endpoint)
    check_allowed(caller, target.slug)
    tag, now_ms = x_aig_tag or caller.default_tag, int(time.time() * 1000)
    own = {"account_id": caller.account_id, "owner_id": owner_id_of(caller), "key_id": caller.key_id, "sub_account_id": caller.sub_account_id, "tag": tag}
    made = await services.replays.create(
        Replay(
            id="",
            source_request_id=source.call_id,
            source_model=source.served_by or source.asked_model,
            target_model=target.slug,
            call_id="",
            source_started_ms=source.started_ms,
            source_cost_nanousd=source.cost_nanousd,
            source_latency_ms=source.latency_ms,
            created_ms=now_ms,
            **own,
        ),
        source,
    )
    shadow = None
    if new.shadow:
        until_ms = int(new.until.timestamp() * 1000) if new.until else now_ms + SHADOW_DAYS * 86_400_000
        shadow = await services.replays.add_shadow(
            Shadow(
                id="",
                watched_key_id=source.key_id,
                target_model=target.slug,
                share=new.share,
                max_calls=new.max_calls,
                created_ms=now_ms,
                until_ms=until_ms,
                **own,
            )
        )
    if "respond-async" not in prefer.lower():
        made = await services.replays.wait(made, WAIT_S)
    return json_reply({**_record(made), "shadow": new.shadow, "shadow_id": shadow.id if shadow else None}, 201)


@router.get("")
async def list_replays(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 50,
    cursor: Annotated[str | None, Query(pattern="^rpl_[0-9a-z]{1,40}$")] = None,
    shadow_id: ShadowId = None,
) -> Response:
    """Newest first; `next_cursor` where there are more."""
    found = await services.replays.list(caller.account_id, seen_by(caller), limit + 1, cursor, shadow_id)
    return page_reply(found, limit, _record)


@router.get("/shadows")
async def list_shadows(caller: Caller, services: Wired, limit: Annotated[int, Query(ge=1, le=1000)] = 50) -> Response:
    """Newest first."""
    found = await services.replays.shadows(caller.account_id, seen_by(caller), limit)
    return json_reply({"object": "list", "data": [_shadow(each) for each in found]})


@router.delete("/shadows/{shadow_id}")
async def stop_shadow(shadow_id: str, caller: Caller, services: Wired) -> Response:
    """No further call is mirrored; the replays stay. Stopping it again changes nothing."""
    stopped = await services.replays.stop_shadow(caller.account_id, seen_by(caller), shadow_id)
    if stopped is None:
        words = f"There is no shadow {shadow_id[:100]!r}; GET /v1/replays/shadows lists them."
        raise ClientError(words, status=404, code="not_found", param="shadow_id")
    return json_reply(_shadow(stopped))


@router.get("/{replay_id}")
async def get_replay(replay_id: str, caller: Caller, services: Wired) -> Response:
    found = await services.replays.get(caller.account_id, seen_by(caller), replay_id)
    if found is None:
        words = f"There is no replay {replay_id[:100]!r}; GET /v1/replays lists them."
        raise ClientError(words, status=404, code="not_found", param="replay_id")
    return json_reply(_record(found))


async def _source(call_id: str, caller: Principal, services: Services) -> CallEnd:
    """The call, where the caller may see it."""
    whose = own_rows(caller)
    found = await services.replays.source(caller.account_id, call_id)
    is_theirs = found is not None and (
        whose.sub_account_id in (None, found.sub_account_id) and whose.key_id in (None, found.key_id)
    )
    if found is None or not is_theirs:
        words = f"source_request_id: there is no call {call_id[:100]!r}; give the x-request-id of one (GET /v1/usage/recent lists them)."
        raise ClientError(words, status=404, code="not_found", param="source_request_id")
    return found


def _record(found: Replay) -> dict[str, Any]:
    source_cents = cents(found.source_cost_nanousd)
    target_cents = None if found.target_cost_nanousd is None else cents(found.target_cost_nanousd)
    return {
        "id": found.id,
        "object": "replay",
        "status": found.status,
        "source_request_id": found.source_request_id,
        "request_id": found.call_id + "0",
        "source_model": found.source_model,
        "target_model": found.target_model,
        "shadow": found.shadow_id is not None,
        "shadow_id": found.shadow_id,
        "cost_source_cents": source_cents,
        "source_cost_cents": source_cents,
        "cost_target_cents": target_cents,
        "target_cost_cents": target_cents,
        "latency_source_ms": found.source_latency_ms,
        "source_latency_ms": found.source_latency_ms,
        "latency_target_ms": found.target_latency_ms,
        "target_latency_ms": found.target_latency_ms,
        "score_delta": found.score,
        "similarity": found.score,
        "source_output": found.source_output,
        "target_output": found.target_output,
        "diff": found.diff,
        "error": found.error or None,
        "tag": found.tag,
        "created_at": found.created_ms // 1000,
        "completed_at": None if found.ended_ms is None else found.ended_ms // 1000,
    }


def _shadow(found: Shadow) -> dict[str, Any]:
    is_over = found.stopped_ms is not None or found.mirrored >= found.max_calls or found.until_ms <= time.time() * 1000
    return {
        "id": found.id,
        "object": "shadow",
        "status": "ended" if is_over else "active",
        "key_id": found.watched_key_id,
        "target_model": found.target_model,
        "share": found.share,
        "max_calls": found.max_calls,
        "mirrored": found.mirrored,
        "dropped": found.dropped,
        "tag": found.tag,
        "created_at": found.created_ms // 1000,
        "until": found.until_ms // 1000,
        "stopped_at": None if found.stopped_ms is None else found.stopped_ms // 1000,
    }
