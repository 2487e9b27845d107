"""What can be called: the models of the live providers, each one's schema block, the capability vocabulary."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.services import Wired
from aigate.core.job import CREDIT, IMAGE, ITEM, SECOND
from aigate.core.price import rate_to_usd
from aigate.core.target import Model, Price

router = APIRouter(prefix="/v1", tags=["models"])

Modality = Literal["text", "image", "video", "music", "3d", "audio-stt", "audio-tts", "embedding", "rerank", "moderation"]

JOB_UNITS = (SECOND, ITEM, IMAGE, CREDIT)
ECONOMY_BELOW_USD, PREMIUM_FROM_USD = 1.0, 10.0  # per million output tokens


@router.get("/models")
async def list_models(
    caller: Caller,
    services: Wired,
    modality: Modality | None = None,
    provider: Annotated[str | None, Query(min_length=1, max_length=64, description="slug prefix, such as openai")] = None,
) -> Response:
    models = services.catalog.models()
    if modality is not None:
        models = [model for model in models if model.modality == modality]
    if provider is not None:
        models = [model for model in models if model.slug.startswith(provider + "/")]
    return json_reply({"object": "list", "data": [_item(model) for model in models]})


@router.get("/capabilities")
async def list_capabilities(caller: Caller, services: Wired) -> Response:
    return json_reply({"object": "list", "data": services.catalog.capabilities()})


# A slug has a slash in it, raw or percent-encoded, so these two take the rest of the path.
@router.get("/models/{model_id:path}/schema")
async def get_schema(model_id: str, caller: Caller, services: Wired) -> Response:
    """How to call the model: endpoint, request and reply examples, quirks, snippets."""
    return json_reply(services.catalog.describe(model_id)["schema"])


@router.get("/models/{model_id:path}")
async def get_model(model_id: str, caller: Caller, services: Wired) -> Response:
    model = services.catalog.model(model_id)
    return json_reply({**_item(model), **services.catalog.describe(model_id)})


def _item(model: Model) -> dict[str, Any]:
    return {
        "id": model.slug,
        "object": "model",
        "created": model.created,
        "owned_by": model.slug.partition("/")[0],
        "description": model.description,
        "modality": model.modality,
        "context_window": model.context_window or None,
        "max_output_tokens": model.max_output_tokens or None,
        "pricing": _pricing(model.price) if model.price else None,
        "capabilities": model.capabilities,
        "tier": _tier(model.price),
    }


def _pricing(price: Price) -> dict[str, Any]:
    """Dollars for a million tokens by usage class; `request` is dollars for one. Of media jobs: dollars for one second, item or credit."""
    unit = next((unit for unit in JOB_UNITS if any(name.partition(":")[0] == unit for name in price.rates)), "")
    if unit:
        return {"currency": "usd", "unit": f"per_{unit}", **{name: rate_to_usd(rate, 1000) for name, rate in price.rates.items()}}
    pricing: dict[str, Any] = {"currency": "usd", "unit": "per_million_tokens"}
    pricing |= {name: rate_to_usd(rate, 1 if name == "request" else 1_000_000) for name, rate in price.rates.items()}
    if price.tiers:
        pricing["above_input_tokens"] = {str(above): _pricing(tier) for above, tier in price.tiers}
    return pricing


def _tier(price: Price | None) -> str | None:
    """A word for the cost of output, for people to choose by."""
    rate = price.rates.get("output") if price else None
    if rate is None:
        return None
    usd = rate_to_usd(rate)
    if usd < ECONOMY_BELOW_USD:
        return "economy"
    return "premium" if usd >= PREMIUM_FROM_USD else "standard"
