from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aigate.keeper.db.engine import Database
from tests.keeper.jobs.media_provider import MediaProvider
from tests.keeper.jobs.world import World

Test = Callable[[World], Awaitable[None]]


@pytest.fixture
def provider() -> Iterator[MediaProvider]:
    provider = MediaProvider()
    yield provider
    provider.close()


@pytest.fixture
def run(database: Database, provider: MediaProvider, tmp_path: Path) -> Callable[..., None]:
    """Runs a test in a world whose jobs are served, then looks whether the ledger adds up."""

    def run(test: Test, *, dialects: Any = None, **settings: Any) -> None:
        async def serve() -> None:
            world = World(database, tmp_path, provider, **settings)
            world.dialects = dialects or world.dialects
            async with world.serving():
                await test(world)
                await world.is_sound()

        asyncio.run(asyncio.wait_for(serve(), 60))

    return run
