"""The keeper: wires database, shipper, messages and control plane, serves until SIGTERM, then ships what is left.

The only file of the keeper that reads configuration. The order at the end matters: no new requests first, the last rows after.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.exc import InterfaceError, OperationalError, SQLAlchemyError

from aigate.api.app import control_plane
from aigate.api.services import Services
from aigate.catalog.live import socket_url
from aigate.catalog.load import load_catalog
from aigate.config import Config
from aigate.inner import inner_secret
from aigate.keeper import metrics
from aigate.keeper.accounts import AccountStore
from aigate.keeper.archive import Archive
from aigate.keeper.batches.build import Parts as BatchParts
from aigate.keeper.batches.build import build_batches
from aigate.keeper.blob_store import open_blobs
from aigate.keeper.data_plane import DataPlane
from aigate.keeper.db.accounts import add_account_if_missing
from aigate.keeper.db.engine import database_url, open_database
from aigate.keeper.db.prices import save_prices
from aigate.keeper.durable.engine import Engine
from aigate.keeper.eval_bounds import Bounds
from aigate.keeper.evals import EvalStore
from aigate.keeper.files import FileStore
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.build import JobDesk, Parts
from aigate.keeper.keys import KeyStore
from aigate.keeper.leases import LeaseDesk
from aigate.keeper.once import Once
from aigate.keeper.provider_keys import ProviderKeyStore
from aigate.keeper.push import MessageServer
from aigate.keeper.replays import ReplayStore
from aigate.keeper.responses import ResponseStore
from aigate.keeper.retention import keep_days
from aigate.keeper.shipper import Shipper
from aigate.keeper.traffic import Traffic
from aigate.keeper.usage import UsageStore
from aigate.keeper.vault import Vault
from aigate.keeper.webhooks.deliver import Policy
from aigate.keeper.webhooks.service import Webhooks
from aigate.process import ChildOptions, say_ready, settle_memory, watch_life

log = logging.getLogger("aigate.keeper")

DEFAULT_ACCOUNT = "acc_default"
REQUESTS_DRAIN_S = 3
WORK_DRAIN_S = 4.0
JOURNALS_DRAIN_S = 5.0

logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of every step


def run(config: Config, options: ChildOptions, sockets: Sequence[socket.socket]) -> int:
    """`sockets`: listening for control-plane requests and for workers' messages."""
    control, messages = sockets
    return asyncio.run(Keeper(config).serve(options, control, messages))


class Keeper:
    """One keeper process, from its configuration to its end."""

    def __init__(self, config: Config):
        data_dir = Path(config.server.data_dir).resolve()
        self._config = config
        self._database = open_database(database_url(data_dir))
        self._catalog = load_catalog(config, sim_base_url=socket_url(str(data_dir / "run" / "sim.sock")))
        self._traffic = Traffic([model.slug for model in self._catalog.models()], self._catalog.providers_live())
        self._shipper = Shipper(self._database, data_dir / "journals", on_shipped=self._traffic.add)
        self._engine = Engine(data_dir)
        self._keys = KeyStore(self._database)
        self._leases = LeaseDesk(self._database, self._shipper)
        self._messages = MessageServer(self._keys.find, expected_workers=config.server.workers, leases=self._leases)
        self._keys.push = self._messages.push
        vault = Vault(data_dir / "provider.key", config.auth.provider_key)
        self._provider_keys = ProviderKeyStore(self._database, vault)
        self._guarded = GuardedClient(allow_loopback=config.webhooks.allow_loopback)
        self._webhooks = Webhooks(self._database, vault, self._guarded, _webhook_policy(config))
        self._messages.reveal_key = self._provider_keys.reveal
        self._messages.responses = self._responses = ResponseStore(self._database)
        blobs = open_blobs(config.files, data_dir)
        self._files = FileStore(self._database, blobs, max_bytes=config.files.max_bytes, max_tenant_bytes=config.files.max_tenant_bytes)
        self._jobs = JobDesk(config, self._database, self._catalog, Parts(self._leases, self._engine, blobs, self._guarded))
        self._data_plane = DataPlane(
            str(data_dir / "run"),
            inner_secret(config.key_secret),
            config.server.workers,
            database=self._database,
            shipper=self._shipper,
            journals=self._messages.journals,
        )
        self._archive = Archive(data_dir / "archive")
        once = Once(self._database, self._data_plane, self._archive)
        parts = BatchParts(self._files, self._data_plane, once.recall, self._shipper, self._leases, self._engine, self._guarded)
        self._batches = build_batches(config, self._database, self._catalog, parts)
        self._messages.evals = self._evals = EvalStore(
            self._database,
            lane=once,
            desk=HoldDesk(self._database, self._leases),
            bounds=Bounds(self._catalog.resolve, config.ledger.default_max_output_tokens),
            settings=config.evals,
        )
        self._replays = ReplayStore(
            self._database, lane=once, archive=self._archive, shipper=self._shipper, retention_days=config.archive.replay_retention_days
        )
        self._responses.is_living = self._shipper.is_living
        self._responses.tell_workers = self._messages.tell_all

    async def serve(self, options: ChildOptions, control: socket.socket, messages: socket.socket) -> int:
        loop = asyncio.get_running_loop()
        watch_life(loop, options.life_fd)
        http = _http_server(self._control_plane())
        loop.add_signal_handler(signal.SIGTERM, http.stop)
        await self._prepare_database()
        listener = await loop.create_unix_server(self._messages.protocol, sock=messages)
        shipping = loop.create_task(self._shipper.run())
        upkeep = (
            self._engine.run(),
            self._webhooks.run(),
            self._leases.run(),
            keep_days(self._database, self._config.ledger.retention_days),
            self._responses.expire(self._config.responses.retention_days),
            self._files.sweep(),
            self._batches.run(),
            self._jobs.runner.run(),
            self._jobs.results.expire(),
            self._archive.run(),
            self._evals.go_on(),
            self._replays.run(),
            self._evals.expire(),
        )
        others = [loop.create_task(work) for work in upkeep]
        serving = loop.create_task(http.serve([control]))
        say_ready(options.ready_fd)
        settle_memory()
        await asyncio.wait((serving, shipping), return_when=asyncio.FIRST_COMPLETED)
        if shipping.done():
            shipping.result()  # raises: a keeper that cannot ship is of no use, and the next one starts clean
        await serving
        await asyncio.gather(self._engine.drain(WORK_DRAIN_S), self._webhooks.drain(WORK_DRAIN_S))
        await self._jobs.close()
        listener.close()
        self._messages.close()
        self._leases.close()
        self._data_plane.close()
        for task in (shipping, *others):
            task.cancel()
        await asyncio.gather(shipping, *others, return_exceptions=True)
        await self._ship_the_rest()
        self._archive.close()
        self._database.close()
        return 0

    def _control_plane(self) -> FastAPI:
        services = Services(
            keys=self._keys,
            accounts=AccountStore(self._database, self._messages, self._leases),
            provider_keys=self._provider_keys,
            responses=self._responses,
            evals=self._evals,
            replays=self._replays,
            files=self._files,
            batches=self._batches,
            jobs=self._jobs.service,
            public_url=self._config.server.public_url.rstrip("/"),
            webhooks=self._webhooks.store,
            caller_urls=self._guarded,
            usage=UsageStore(self._database, self._shipper),
            workers=self._messages,
            catalog=self._catalog,
            key_secret=self._config.key_secret,
            root_key=self._config.root_key,
            checks=self._checks,
            metrics=self._metrics,
            log=log.error,
        )
        return control_plane(services, outages=(OperationalError, InterfaceError))

    async def _prepare_database(self) -> None:
        now_ms = int(time.time() * 1000)
        await self._database.write(add_account_if_missing, DEFAULT_ACCOUNT, now_ms)
        await self._database.write(save_prices, self._catalog.prices(), now_ms)

    async def _ship_the_rest(self) -> None:
        """What it cannot ship now, the next keeper will: the journals stay."""
        with contextlib.suppress(SQLAlchemyError, OSError):
            if not await self._shipper.finish(JOURNALS_DRAIN_S):
                log.warning("some journals are still held by a worker; the next start ships their rest")

    async def _checks(self) -> dict[str, str]:
        problems = self._shipper.status.problems
        try:
            await self._database.read(lambda connection: connection.execute(text("SELECT 1")))
            database = "ok"
        except SQLAlchemyError:
            database = "does not answer"
        unwritable = self._messages.unwritable_journals()
        journals = f"{len(problems)} cannot be shipped" if problems else f"{unwritable} cannot be written" if unwritable else "ok"
        return {
            "database": database,
            "journals": journals,
            "workers": "ok" if self._messages.worker_count() else "none is connected",
        }

    async def _metrics(self) -> bytes:
        status = self._shipper.status
        own = {
            "workers_connected": self._messages.worker_count(),
            "journals_living": status.living,
            "journals_with_problems": len(status.problems),
            "ledger_rows_shipped_total": status.shipped_rows,
        }
        return metrics.render({**self._messages.counters(), **own}, self._traffic)


def _webhook_policy(config: Config) -> Policy:
    webhooks = config.webhooks
    return Policy(webhooks.retry_delays_s, webhooks.timeout_s, webhooks.per_host, webhooks.retention_days)


class _HttpServer(uvicorn.Server):
    """Signals are the keeper's, and the end is waited for: uvicorn's own loop looks for it ten times a second."""

    def __init__(self, config: uvicorn.Config):
        super().__init__(config)
        self._stopped = asyncio.Event()

    def capture_signals(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def stop(self) -> None:
        self.should_exit = True
        self._stopped.set()

    async def main_loop(self) -> None:
        await self.on_tick(0)  # makes what its replies share
        await self._stopped.wait()


def _http_server(app: FastAPI) -> _HttpServer:
    return _HttpServer(
        uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="error",  # its warnings are about requests, and a caller could fill the log with them
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_graceful_shutdown=REQUESTS_DRAIN_S,
        )
    )
