"""Evals: which of some models does a job best, cheapest or fastest. POST answers once a small one has ended, else while it runs.

An eval is seen by its owner: keys of the sub-account that it was made for, else the key that made it; an admin's is its account's.
"""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Header, Query, Response
from pydantic import Field

from aigate.api.access import Caller, owner_id_of, seen_by
from aigate.api.boundary import json_reply
from aigate.api.inputs import Input, Line, Name, Tag
from aigate.api.replies import cents, page_reply
from aigate.api.services import Services, Wired
from aigate.core.allow import check_allowed
from aigate.core.call import Principal
from aigate.core.evals import ALIAS, QUALITY, Defaults, Eval, Result, read_dataset
from aigate.core.refusal import owners_of
from aigate.core.scoring import AUTO
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/evals", tags=["evals"])

MAX_CANDIDATES = 20
_CURSOR = r"^[0-9]{1,9}\.[0-9]{1,4}$"

Slug = Annotated[Line, Field(min_length=1, max_length=200)]


class NewEval(Input):
    name: Name = "eval"
    candidate_models: Annotated[list[Slug], Field(min_length=1, max_length=MAX_CANDIDATES)]
    dataset: Annotated[list[Any], Field(min_length=1, description="items {input, expected?, contains?, regex?, rubric?, scorer?, id?}")]
    metric: Literal["quality", "cost", "speed"] = QUALITY
    scorer: Literal["auto", "exact", "json", "contains", "regex", "embedding", "judge", "none"] = AUTO
    rubric: Annotated[str, Field(max_length=4000)] = ""
    judge_model: Slug | None = None
    embedding_model: Slug | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


@router.post("", status_code=201)
async def create_eval(
    new: NewEval,
    caller: Caller,
    services: Wired,
    x_aig_tag: Annotated[Tag | None, Header()] = None,
    prefer: Annotated[str, Header(description="respond-async: do not wait for the end")] = "",
) -> Response:
    """Every candidate answers every item, as metered calls of the key. What they may cost at most is set aside before the first is sent."""
    settings = services.evals.settings
    judge = new.judge_model or settings.judge_model or None
    embedder = new.embedding_model or settings.embedding_model or None
    if len(set(new.candidate_models)) != len(new.candidate_models):
        raise ClientError("candidate_models: names a model twice.", param="candidate_models")
    if len(new.dataset) * len(new.candidate_models) > settings.max_answers:
        words = f"dataset: {len(new.dataset)} items for {len(new.candidate_models)} candidates are more than {settings.max_answers} answers; send fewer."
        raise ClientError(words, param="dataset")
    candidates = tuple(_known(slug, f"candidate_models[{place}]", caller, services) for place, slug in enumerate(new.candidate_models))
    defaults = Defaults(
        scorer=new.scorer,
        rubric=new.rubric,
        has_judge=judge is not None,
        needs_scores=new.metric == QUALITY,
        max_output_tokens=new.max_output_tokens or settings.max_output_tokens,
    )
    items = read_dataset(new.dataset, defaults)
    methods = {item.rule.method for item in items}
    if "judge" in methods:
        judge = _known(judge or "", "judge_model", caller, services)
    if "embedding" in methods:
        if embedder is None:
            raise ClientError("embedding_model: name the model that embeds answers and what they are compared with.", param="embedding_model")
        embedder = _known(embedder, "embedding_model", caller, services, "embeddings")
    tag = x_aig_tag or caller.default_tag
    made = await services.evals.create(
        Eval(
            id="",
            account_id=caller.account_id,
            owner_id=owner_id_of(caller),
            key_id=caller.key_id,
            sub_account_id=caller.sub_account_id,
            tag=tag,
            name=new.name,
            metric=new.metric,
            candidates=candidates,
            judge_model=judge if "judge" in methods else None,
            embedding_model=embedder if "embedding" in methods else None,
            dataset_size=len(items),
            created_ms=0,
        ),
        items,
        owners_of(caller, tag),
    )
    if "respond-async" not in prefer.lower() and made.dataset_size * len(made.candidates) <= settings.sync_answers:
        made = await services.evals.wait(made, settings.wait_s)
    return json_reply(_record(made), 201)


@router.get("")
async def list_evals(
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(pattern="^eval_[0-9a-z]{1,40}$")] = None,
) -> Response:
    """Newest first; `next_cursor` where there are more."""
    found = await services.evals.list(caller.account_id, seen_by(caller), limit + 1, cursor)
    return page_reply(found, limit, _record)


@router.get("/{eval_id}")
async def get_eval(eval_id: str, caller: Caller, services: Wired) -> Response:
    return json_reply(_record(await _find(eval_id, caller, services)))


@router.get("/{eval_id}/results")
async def list_results(
    eval_id: str,
    caller: Caller,
    services: Wired,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(pattern=_CURSOR)] = None,
) -> Response:
    """Every answer that is known, by item and candidate."""
    found = await _find(eval_id, caller, services)
    item, _, candidate = (cursor or "").partition(".")
    results = await services.evals.results(found.id, limit + 1, (int(item), int(candidate)) if cursor else (-1, -1))
    return page_reply(results, limit, lambda each: _result(each, found), lambda last: f"{last.item}.{last.candidate}")


async def _find(eval_id: str, caller: Principal, services: Services) -> Eval:
    found = await services.evals.get(caller.account_id, seen_by(caller), eval_id.removeprefix(ALIAS))
    if found is None:
        words = f"There is no eval {eval_id[:100]!r}; GET /v1/evals lists them."
        raise ClientError(words, status=404, code="not_found", param="eval_id")
    return found


def _known(slug: str, param: str, caller: Principal, services: Services, endpoint: str = "chat") -> str:
    """The slug of a model that can be called, and may be."""
    try:
        target = services.catalog.resolve(slug, endpoint)
    except ClientError as error:
        raise ClientError(f"{param}: {error.message}", code=error.code, param=param) from None
    check_allowed(caller, target.slug)
    return target.slug


def _record(found: Eval) -> dict[str, Any]:
    return {
        "id": found.id,
        "object": "eval",
        "name": found.name,
        "candidate_models": found.candidates,
        "dataset_size": found.dataset_size,
        "metric": found.metric,
        "status": found.status,
        "winner_model": found.winner_model,
        "winning_model": found.winner_model,
        "alias": ALIAS + found.id,
        "summary": found.summary,
        "error": found.error or None,
        "judge_model": found.judge_model,
        "embedding_model": found.embedding_model,
        "tag": found.tag,
        "created_at": found.created_ms // 1000,
        "completed_at": None if found.ended_ms is None else found.ended_ms // 1000,
    }


def _result(result: Result, found: Eval) -> dict[str, Any]:
    return {
        "item": result.item,
        "model": found.candidates[result.candidate],
        "request_id": result.call_id,
        "output": result.output,
        "error": result.error or None,
        "score": result.score,
        "reason": result.reason or None,
        "cost_cents": cents(result.cost_nanousd),
        "scoring_cost_cents": cents(result.scoring_nanousd),
        "latency_ms": result.latency_ms,
    }
