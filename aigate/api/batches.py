"""Batches: /v1/batches, as OpenAI's clients know it. Seen by their owner alone: the keys of a sub-account, else the key itself."""

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.files import list_reply, no_such_file
from aigate.api.inputs import Input, Tag
from aigate.api.services import Wired
from aigate.core.account import tenant_of
from aigate.core.batch import WINDOW, NewBatch, batch_record
from aigate.core.file import MAX_LIFE_S, MIN_LIFE_S, Listing
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/batches", tags=["batches"])

Endpoint = Literal["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/embeddings", "/v1/completions"]
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class Life(BaseModel):
    model_config = ConfigDict(extra="forbid")

    anchor: Literal["created_at"] = "created_at"
    seconds: Annotated[int, Field(ge=MIN_LIFE_S, le=MAX_LIFE_S)]


class NewBatchBody(Input):
    input_file_id: Annotated[str, StringConstraints(min_length=1, max_length=100)]
    endpoint: Endpoint = "/v1/chat/completions"
    completion_window: Literal["24h"] = WINDOW  # type: ignore[assignment]
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] | None = None
    output_expires_after: Life | None = None
    webhook_url: Annotated[str, StringConstraints(max_length=2048)] | None = None


@router.post("", status_code=201)
async def create_batch(
    new: NewBatchBody, caller: Caller, services: Wired, tag: Annotated[Tag | None, Header(alias="x-aig-tag")] = None
) -> Response:
    """Makes a batch of an uploaded file. The whole file is read first: a custom_id twice, no line or too many are refused, and nothing is made."""
    asked = NewBatch(
        input_file_id=new.input_file_id,
        endpoint=new.endpoint,
        tag=tag,
        output_expires_s=None if new.output_expires_after is None else new.output_expires_after.seconds,
        metadata=new.metadata or {},
        webhook_url=new.webhook_url,
    )
    batch = await services.batches.add(tenant_of(caller), caller.key_id, asked)
    if batch is None:
        raise no_such_file(new.input_file_id, "input_file_id")
    return json_reply(batch_record(batch), 201)


@router.get("")
async def list_batches(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(max_length=100, description="id of the last batch of the page before")] = None,
) -> Response:
    """Newest first; `has_more` where there are more."""
    found = await services.batches.list(tenant_of(caller), Listing(limit + 1, after))
    return list_reply([batch_record(each) for each in found], limit)


@router.get("/{batch_id}")
async def get_batch(batch_id: str, caller: Caller, services: Wired) -> Response:
    found = await services.batches.get(tenant_of(caller), batch_id)
    if found is None:
        raise _no_such(batch_id)
    return json_reply(batch_record(found))


@router.post("/{batch_id}/cancel")
async def cancel_batch(batch_id: str, caller: Caller, services: Wired) -> Response:
    """Begins no further line; what is done is kept, and so is what runs. One that has ended stays as it is."""
    found = await services.batches.cancel(tenant_of(caller), batch_id)
    if found is None:
        raise _no_such(batch_id)
    return json_reply(batch_record(found))


def _no_such(batch_id: str) -> ClientError:
    words = f"batch_id: there is no batch {batch_id[:100]!r}; GET /v1/batches lists yours."
    return ClientError(words, status=404, code="not_found", param="batch_id")
