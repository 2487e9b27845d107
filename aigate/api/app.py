"""The control plane as one ASGI application. Wires the routes; what they work with is given."""

from fastapi import FastAPI

from aigate import __version__
from aigate.api import (
    account,
    balance,
    batches,
    budgets,
    evals,
    files,
    health,
    job_files,
    jobs,
    keys,
    models,
    provider_keys,
    replays,
    responses,
    sub_accounts,
    usage,
    webhooks,
)
from aigate.api.boundary import Boundary, install_handlers
from aigate.api.services import Services


def control_plane(services: Services, *, outages: tuple[type[Exception], ...] = ()) -> FastAPI:
    """`outages`: exceptions of the stores that mean the database is away (a 503, not a bug)."""
    app = FastAPI(
        title="aigate",
        version=__version__,
        description="Control plane of the gateway. Model calls (`/v1/chat/completions`, …) are served beside it, on the same port.",
        docs_url=None,  # the pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.services = services
    parts = (
        health, models, usage, keys, sub_accounts, budgets, account, balance, provider_keys, responses, evals, replays, job_files, files, batches,
        jobs, webhooks,
    )  # fmt: skip
    for part in parts:
        app.include_router(part.router)
    install_handlers(app, [route.path for part in parts for route in part.router.routes])
    app.add_middleware(Boundary, log=services.log, outages=outages)
    return app
