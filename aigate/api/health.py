"""Is it well: readiness, metrics (both without a key, as probes have none), and the state of the providers."""

from typing import Any

from fastapi import APIRouter, Response

from aigate.api.access import Caller
from aigate.api.boundary import json_reply
from aigate.api.services import Wired

router = APIRouter(tags=["health"])

_STATES = ("closed", "half_open", "open")  # of a circuit breaker, best first


@router.get("/readyz")
async def ready(services: Wired) -> Response:
    """200 when calls can be served and their rows kept, else 503 with what is wrong."""
    checks = await services.checks()
    is_ready = all(words == "ok" for words in checks.values())
    return json_reply({"status": "ready" if is_ready else "not_ready", "checks": checks}, 200 if is_ready else 503)


@router.get("/metrics")
async def metrics(services: Wired) -> Response:
    return Response(await services.metrics(), media_type="text/plain; version=0.0.4; charset=utf-8")


@router.get("/v1/health/providers")
async def provider_health(caller: Caller, services: Wired) -> Response:
    """Live providers with the targets that have failed lately, as the workers see them; and why the others are not live."""
    troubled = _worst_states(services.workers.targets())
    live = []
    for name in services.catalog.providers_live():
        targets = [{"model": slug, **state} for slug, state in sorted(troubled.items()) if slug.startswith(name + "/")]
        is_degraded = any(target["state"] != "closed" for target in targets)
        live.append({"provider": name, "status": "degraded" if is_degraded else "operational", "targets": targets})
    dormant = [
        {"provider": name, "status": "not_configured", "reason": reason, "targets": []}
        for name, reason in services.catalog.providers_dormant()
    ]
    return json_reply({"object": "list", "data": live + dormant})


def _worst_states(reports: list[dict[str, dict[str, object]]]) -> dict[str, dict[str, Any]]:
    """One state a target, out of what each worker says of it."""
    worst: dict[str, dict[str, Any]] = {}
    for report in reports:
        for slug, state in report.items():
            known = worst.get(slug)
            if known is None or _STATES.index(state["state"]) > _STATES.index(known["state"]):
                worst[slug] = state
    return worst
