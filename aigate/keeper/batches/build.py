"""Puts a node's batches together from what the keeper has. Also: whom a key stands for, asked of the database now and then."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from aigate.config import Config
from aigate.core.call import Principal
from aigate.keeper.batches.desk import BatchDesk
from aigate.keeper.batches.run import Means
from aigate.keeper.batches.slots import Slots
from aigate.keeper.data_plane import DataPlane
from aigate.keeper.db.engine import Database
from aigate.keeper.db.principals import principal_of_key
from aigate.keeper.durable.engine import Engine
from aigate.keeper.files import FileStore
from aigate.keeper.guarded import GuardedClient
from aigate.keeper.outage import patiently
from aigate.keeper.shipper import Shipper

KNOWN_S = 2.0  # so long may a change of a key take to reach its batches
FRAME_BYTES = 64 << 10  # what a line has around its request


def build_batches(
    config: Config,
    database: Database,
    *,
    files: FileStore,
    data_plane: DataPlane,
    shipper: Shipper,
    engine: Engine,
    guarded: GuardedClient,
    recall: Callable[[str], Awaitable[tuple[int, bytes] | None]],
) -> BatchDesk:
    means = Means(
        database=database,
        files=files,
        plane=data_plane,
        recall=recall,
        settled=shipper.catch_up,
        principal=KeyHolders(database).find,
        slots=Slots(config.batches.concurrency),
        lines_at_once=config.batches.batch_concurrency,
        max_line_bytes=config.server.max_body_bytes + FRAME_BYTES,
    )
    folder = Path(config.server.data_dir).resolve() / "files" / "batches"
    return BatchDesk(means, engine, folder, check_url=guarded.check_url, max_lines=config.batches.max_lines)


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
