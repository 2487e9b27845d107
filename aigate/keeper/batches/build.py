"""Puts a node's batches together from what the keeper has. Also: whom a key stands for, asked of the database now and then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

from aigate.catalog.load import Catalog
from aigate.config import Config
from aigate.core.call import Principal
from aigate.keeper.batches.desk import BatchDesk
from aigate.keeper.batches.native import Native
from aigate.keeper.batches.run import Means
from aigate.keeper.batches.slots import Slots
from aigate.keeper.data_plane import DataPlane
from aigate.keeper.db.engine import Database
from aigate.keeper.db.principals import principal_of_key
from aigate.keeper.durable.engine import Engine
from aigate.keeper.files import FileStore
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.hold_desk import HoldDesk
from aigate.keeper.jobs.client import ProviderClient
from aigate.keeper.leases import LeaseDesk
from aigate.keeper.outage import patiently
from aigate.keeper.shipper import Shipper

KNOWN_S = 2.0  # so long may a change of a key take to reach its batches
FRAME_BYTES = 64 << 10  # what a line has around its request


class Parts(NamedTuple):
    """`recall`: (status, body) of a call that has ended; None where its reply was not kept."""

    files: FileStore
    data_plane: DataPlane
    recall: Callable[[str], Awaitable[tuple[int, bytes] | None]]
    shipper: Shipper
    leases: LeaseDesk
    engine: Engine
    guarded: GuardedClient


def build_batches(config: Config, database: Database, catalog: Catalog, parts: Parts) -> BatchDesk:
    holders = KeyHolders(database)
    native = Native(
        database=database,
        resolve=catalog.resolve,
        client=ProviderClient(parts.guarded),
        holds=HoldDesk(database, parts.leases),
        principal=holders.find,
        default_max_output_tokens=config.ledger.default_max_output_tokens,
        is_on=any(provider.batches for provider in catalog.providers.values()),
    )
    means = Means(
        database=database,
        files=parts.files,
        plane=parts.data_plane,
        recall=parts.recall,
        settled=parts.shipper.catch_up,
        principal=holders.find,
        slots=Slots(config.batches.concurrency),
        native=native,
        lines_at_once=config.batches.batch_concurrency,
        max_line_bytes=config.server.max_body_bytes + FRAME_BYTES,
    )
    folder = Path(config.server.data_dir).resolve() / "files" / "batches"
    return BatchDesk(means, parts.engine, folder, check_url=parts.guarded.check_url, max_lines=config.batches.max_lines)


class KeyHolders:
    """Principals by the id of their key, each read anew after KNOWN_S."""

    def __init__(self, database: Database):
        self._database = database
        self._known: dict[str, tuple[float, Principal | None]] = {}

    async def find(self, key_id: str) -> Principal | None:
        read_at, principal = self._known.get(key_id, (0.0, None))
        now = time.monotonic()
        if now - read_at > KNOWN_S or not read_at:
            principal = await patiently(self._database.read, principal_of_key, key_id, time.time())
            self._known = {each: known for each, known in self._known.items() if now - known[0] <= KNOWN_S}
            self._known[key_id] = (now, principal)
        return principal
