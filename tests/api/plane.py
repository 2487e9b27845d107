"""A control plane in this process for the tests of its routes: real database, real key queries, real message server, no sockets."""

import asyncio
import contextlib

import httpx2

from aigate.api.app import control_plane
from aigate.api.services import Services
from aigate.core.target import Model, Price
from aigate.errors import ClientError, model_not_found
from aigate.journal.records import CallEnd
from aigate.keeper import metrics
from aigate.keeper.accounts import AccountStore
from aigate.keeper.blobs import LocalBlobs
from aigate.keeper.db.engine import open_database
from aigate.keeper.db.usage import LabelTotals
from aigate.keeper.files import FileStore
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.keys import KeyStore
from aigate.keeper.provider_keys import ProviderKeyStore
from aigate.keeper.push import MessageServer
from aigate.keeper.responses import ResponseStore
from aigate.keeper.vault import Vault
from aigate.keeper.webhooks.secrets import WebhookSecrets
from aigate.keeper.webhooks.store import WebhookStore
from tests.databases import put_sqlite
from tests.keeper.batches.world import BatchWorld

ROOT_KEY = "root-secret"
SECRET = b"s" * 32
ROOT_HEADERS = {"authorization": f"Bearer {ROOT_KEY}"}

MODELS = [
    Model(
        slug="openai/gpt-5.4",
        context_window=400_000,
        max_output_tokens=128_000,
        capabilities=("tools", "streaming"),
        price=Price(rates={"input": (2_500_000, 1), "output": (15_000_000, 1)}, tiers=((200_000, Price(rates={"input": (5_000_000, 1)})),)),
    ),
    Model(slug="sim/embed", modality="embedding"),
]


class Catalog:
    def models(self):
        return MODELS

    def capabilities(self):
        return [{"id": "tools", "description": "Calls functions.", "endpoint": "/v1/chat/completions"}]

    def describe(self, slug):
        for model in MODELS:
            if model.slug == slug:
                return {"schema": {"endpoint": "/v1/chat/completions"}}
        raise model_not_found(f"Model not found: {slug}")

    def model(self, slug):
        self.describe(slug)
        return next(model for model in MODELS if model.slug == slug)

    def origin_of(self, provider):
        if provider not in ("openai", "groq"):
            raise ClientError(f"provider: {provider!r} is unknown here", param="provider")
        return provider, f"https://api.{provider}.com"

    def providers_live(self):
        return ["openai", "sim"]

    def providers_dormant(self):
        return [("groq", "GROQ_API_KEY is not set")]


CALL = CallEnd(
    "req_1", "openai-chat", "chat", "openai/gpt-5.4", "", 502, 1_795_000_000_123, 812, -1, True, 2, 4_389_000, "acc_default", "key_1", None, None, "mine", "provider_unavailable"
)  # fmt: skip


class Usage:
    """Remembers what was asked of it."""

    def __init__(self):
        self.asked = []

    async def recent(self, *, limit, cursor, whose):
        self.asked.append((limit, cursor, whose))
        return [CALL], "next"

    async def by(self, dimension, month, whose, page=None):
        self.asked.append((dimension, month, whose) if page is None else (dimension, month, whose, page))
        return self._totals(dimension)

    async def by_in_days(self, dimension, first_day, last_day, whose):
        self.asked.append((dimension, first_day, last_day, whose))
        return self._totals(dimension)

    def _totals(self, dimension):
        if dimension == "all":
            return [LabelTotals(3, 4, 4_389_000, 11, 22)]
        return [LabelTotals(2, 3, 4_389_000, 10, 20), LabelTotals(1, 1, 0, 1, 2, label="a,b")]


class Workers(MessageServer):
    """Remembers what they were told."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.pushed = []

    async def push(self, keys, **options):
        self.pushed += keys
        return await super().push(keys, **options)


class Limits:
    """In force at once, as where there are no workers."""

    async def is_open(self):
        return True

    async def announce_limits(self):
        return True


class Plane:
    def __init__(self, database, folder, **replaced):
        self.database = database
        self.keys = KeyStore(database)
        self.workers = Workers(self.keys.find, expected_workers=0)
        self.pushed = self.workers.pushed
        vault = Vault(folder / "provider.key")
        self.provider_keys = ProviderKeyStore(database, vault)
        self.webhooks = WebhookStore(database, WebhookSecrets(database, vault))
        self.responses = ResponseStore(database)
        self.files = FileStore(database, LocalBlobs(folder / "files"), max_bytes=1_000_000, max_tenant_bytes=2_000_000)
        self.batch_world = BatchWorld(database, folder, files=self.files)
        self.batches = self.batch_world.desk(max_lines=50)
        self.keys.push = self.workers.push
        self.usage = Usage()
        self.checks = {"database": "ok"}
        self.logged = []

        async def checks():
            return self.checks

        async def numbers():
            return metrics.render({"calls_total;status=200": 3, "workers_connected": 1})

        services = Services(
            **{
                "keys": self.keys,
                "accounts": AccountStore(database, self.workers, Limits()),
                "provider_keys": self.provider_keys,
                "responses": self.responses,
                "files": self.files,
                "batches": self.batches,
                "jobs": None,
                "webhooks": self.webhooks,
                "caller_urls": GuardedClient(allow_loopback=True),
                "evals": None,  # theirs need workers: tests/e2e
                "replays": None,
                "usage": self.usage,
                "workers": self.workers,
                "catalog": Catalog(),
                "key_secret": SECRET,
                "root_key": ROOT_KEY,
                "checks": checks,
                "metrics": numbers,
                "log": self.logged.append,
                **replaced,
            }
        )
        app = control_plane(services, outages=(ConnectionError,))
        self.client = httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://gate", headers=ROOT_HEADERS)

    async def get(self, path, **options):
        return await self.client.get(path, **options)

    async def post(self, path, body=None, **options):
        return await self.client.post(path, json=body, **options)


@contextlib.contextmanager
def opened(tmp_path):
    database = open_database(put_sqlite(tmp_path))
    try:
        yield database
    finally:
        database.close()


def run(tmp_path, test, **replaced):
    """Runs `test(plane)` against a fresh control plane."""

    async def main(database):
        plane = Plane(database, tmp_path, **replaced)
        async with plane.client:
            await asyncio.wait_for(test(plane), 20)

    with opened(tmp_path) as database:
        asyncio.run(main(database))
