"""A world for batches without workers: a real database, real files and spools, and a data plane that plays what a body asks for."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from aigate.catalog.load import load_catalog
from aigate.config import Config, ModelConfig, ProviderConfig
from aigate.core.batch import WINDOW_MS, Batch
from aigate.core.call import Principal
from aigate.core.file import FileFields
from aigate.keeper.batches.desk import BatchDesk
from aigate.keeper.batches.native import Native, Pace
from aigate.keeper.batches.run import BatchRun, Means
from aigate.keeper.batches.slots import Slots
from aigate.keeper.batches.spool import ERRORS, OUTPUT, Spool
from aigate.keeper.blobs import LocalBlobs
from aigate.keeper.data_plane import InnerReply, NotSent, OutcomeUnknown
from aigate.keeper.db.batches import add_batch, get_batch
from aigate.keeper.db.engine import Database
from aigate.keeper.db.fates import ENDED, NEVER_SENT, UNSETTLED, Fate
from aigate.keeper.db.prices import save_prices
from aigate.keeper.files import FileStore
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.client import ProviderClient
from tests.keeper.jobs.world import Leases

OWNER = ("acc_default", "key_1")
CHAT = "/v1/chat/completions"


def line(custom_id: str, **body: Any) -> bytes:
    return json.dumps({"custom_id": custom_id, "method": "POST", "url": CHAT, "body": {"do": [200], **body}}).encode()


class Plane:
    """Calls go on when their caller is gone, as workers' do. `do` of a body: the statuses of its tries, the last one for ever."""

    def __init__(self, seed: int = 0):
        self.random = random.Random(seed)
        self.seen: Counter[str] = Counter()  # by call id
        self.by_name: Counter[str] = Counter()
        self.ended: dict[str, tuple[int, bytes]] = {}
        self.dead: set[str] = set()
        self.running: dict[str, asyncio.Task[None]] = {}
        self.most = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.trouble = 0.0  # how often a call meets some

    async def call(self, principal: Principal, path: str, body: bytes, *, call_id: str, options: Any) -> InnerReply:
        assert path.startswith("/v1/") and options.ignores_rate_limits and options.must_archive and options.price_variant == "batch"
        if self.random.random() < self.trouble / 2:
            raise NotSent("no worker")
        self.seen[call_id] += 1
        self.running[call_id] = task = asyncio.get_running_loop().create_task(self._run(call_id, json.loads(body)))
        self.most = max(self.most, len(self.running))
        await asyncio.shield(task)
        if call_id in self.dead or self.random.random() < self.trouble / 2:
            raise OutcomeUnknown("the worker has gone")
        status, reply = self.ended[call_id]
        return InnerReply(status=status, headers={}, body=reply, cost_nanousd=1, latency_ms=1)

    async def _run(self, call_id: str, body: dict[str, Any]) -> None:
        await self.gate.wait()
        for _ in range(self.random.randrange(4)):
            await asyncio.sleep(0)
        number = int(call_id[-2:], 16)
        self.by_name[body.get("name", "")] += 1
        status = body["do"][min(number, len(body["do"]) - 1)]
        if status:
            self.ended[call_id] = (status, json.dumps(body.get("reply", {"said": body.get("name")})).encode())
        else:
            self.dead.add(call_id)
        del self.running[call_id]

    async def final_fate(self, call_id: str) -> Fate:
        if call_id in self.running:
            await asyncio.shield(self.running[call_id])
        if call_id in self.ended:
            return Fate(state=ENDED, status=self.ended[call_id][0])
        return Fate(state=UNSETTLED if call_id in self.dead else NEVER_SENT)

    async def recall(self, call_id: str) -> tuple[int, bytes] | None:
        return self.ended.get(call_id)


class InlineEngine:
    """Workflows in a thread each, kept nowhere: a batch must come to its end with each step done once or twice."""

    def __init__(self) -> None:
        self._workflows: dict[str, Callable[..., None]] = {}
        self._started: set[str] = set()

    def register(self, name: str, workflow: Callable[..., None]) -> None:
        self._workflows[name] = workflow

    async def start_workflow(self, name: str, workflow_id: str, *args: str) -> None:
        self._loop = asyncio.get_running_loop()
        if workflow_id not in self._started:
            self._started.add(workflow_id)
            await asyncio.to_thread(self._workflows[name], *args)

    def step(self, name: str, function: Callable[..., Any], *args: str) -> None:
        for _ in range(2):
            asyncio.run_coroutine_threadsafe(function(*args), self._loop).result()


class BatchWorld:
    def __init__(self, database: Database, folder: Path, *, at_once: int = 4, seed: int = 0, files: FileStore | None = None):
        self.database = database
        self.folder = folder
        self.plane = Plane(seed)
        self.key: Principal | None = Principal(key_id="key_1")
        self.endpoint = CHAT
        self.files = files or FileStore(database, LocalBlobs(folder / "files"), max_bytes=0, max_tenant_bytes=0)
        self.means = Means(
            database=database,
            files=self.files,
            plane=self.plane,
            recall=self.plane.recall,
            settled=self._settled,
            principal=self._principal,
            slots=Slots(8),
            native=self.native(""),
            lines_at_once=at_once,
            max_line_bytes=10_000,
            delay_s=lambda tries, told_s: 0.0,
            pause_s=0.01,
        )

    def native(self, base_url: str, dialect: str = "openai-chat") -> Native:
        """Whose lines for `prov/…` go to the provider at `base_url`; "": there is none."""
        provider = ProviderConfig(dialect=dialect, base_url=base_url, api_key="none", models=("*",), batches="native")
        models = {f"prov/{name}": ModelConfig(input_usd_per_mtok=1.0, output_usd_per_mtok=2.0, max_output_tokens=100) for name in "mn"}
        config = Config(providers={"prov": provider} if base_url else {}, models=models)
        catalog = load_catalog(config, sim_base_url=None)
        self.database.write_now(save_prices, catalog.prices(), 1)
        return Native(
            database=self.database,
            resolve=catalog.resolve,
            client=ProviderClient(GuardedClient()),
            holds=HoldDesk(self.database, Leases()),  # type: ignore[arg-type]
            principal=self._principal,
            default_max_output_tokens=1000,
            is_on=bool(base_url),
            pace=Pace(first_s=0.01, last_s=0.02, look_again_s=0.05),
        )

    async def _principal(self, key_id: str) -> Principal | None:
        return self.key

    async def _settled(self) -> None:
        pass  # nothing of this plane is in the ledger

    def desk(self, **options: int) -> BatchDesk:
        return BatchDesk(self.means, InlineEngine(), self.folder / "spool", check_url=GuardedClient().check_url, **{"max_lines": 5000, **options})  # type: ignore[arg-type]

    async def upload(self, *lines: bytes) -> str:
        async def pieces():
            for start in range(0, len(data), 1000):
                yield data[start : start + 1000]

        data = b"\n".join(lines) + b"\n"
        return (await self.files.add(OWNER, pieces(), lambda: FileFields("in.jsonl"))).id

    async def batch(self, *lines: bytes, life_ms: int = WINDOW_MS) -> str:
        now_ms = int(time.time() * 1000)
        new = Batch(
            id="batch_0193a1b2c3daabbccddeeff", account_id=OWNER[0], owner_id=OWNER[1], key_id="key_1", endpoint=self.endpoint,
            input_file_id=await self.upload(*lines), total=len(lines), created_ms=now_ms, expires_ms=now_ms + life_ms,
        )  # fmt: skip
        await self.database.write(add_batch, new)
        return new.id

    async def row(self, batch_id: str) -> Batch:
        found = await self.database.read(get_batch, batch_id)
        assert found is not None
        return found

    async def run_of(self, batch_id: str) -> BatchRun:
        """What the one before was writing when it was cancelled is written before: a crash leaves it whole or not at all, never to come."""
        await self.database.write(lambda connection: None)
        return BatchRun(await self.row(batch_id), self.means, self.spool(batch_id))

    def spool(self, batch_id: str) -> Spool:
        return Spool(self.folder / "spool", batch_id)

    def results(self, batch_id: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(output, errors), in the order of their lines."""
        texts = (self.spool(batch_id).path(kind).read_text() for kind in (OUTPUT, ERRORS))
        output, errors = ([json.loads(each) for each in text.splitlines()] for text in texts)
        return sorted(output, key=lambda each: each["id"]), sorted(errors, key=lambda each: each["id"])
