"""Databases and journals for the keeper's tests: SQLite always, PostgreSQL where AIGATE_TEST_POSTGRES is a URL."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import Connection

from aigate.core.price import price_usage, with_id
from aigate.core.target import Price
from aigate.core.usage import Usage
from aigate.journal.records import CallEnd, Intent, Settled, encode_record
from aigate.journal.writer import MIN_SEGMENT_BYTES, JournalWriter
from aigate.keeper.db.balances import Balances
from aigate.keeper.db.engine import Database, open_database
from aigate.keeper.db.ledger_rows import Batch, write_batch
from tests.databases import PostgresServer, put_sqlite
from tests.keeper.money_world import Run, World

DATABASES = ("sqlite", "postgresql")
PRICE = with_id(Price(rates={"input": (150_000, 1), "output": (600_000, 1)}))


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer | None]:
    url = os.environ.get("AIGATE_TEST_POSTGRES", "")
    server = PostgresServer(url) if url else None
    yield server
    if server is not None:
        server.close()


@contextmanager
def new_url(kind: str, folder: Path, postgres_server: PostgresServer | None, *, is_own: bool = True) -> Iterator[str]:
    """Of a database as the migrations leave it. `is_own`: its schema may be changed."""
    if kind == "sqlite":
        yield put_sqlite(folder)
    elif postgres_server is None:
        pytest.skip("AIGATE_TEST_POSTGRES is not set")
    else:
        with postgres_server.new() if is_own else postgres_server.lend() as url:
            yield url


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer | None) -> Iterator[str]:
    with new_url(request.param, tmp_path, postgres_server, is_own=False) as url:
        yield url


@pytest.fixture
def database(url: str) -> Iterator[Database]:
    database = open_database(url)
    yield database
    database.close()


@pytest.fixture
def journals_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journals"
    folder.mkdir()
    return folder


@pytest.fixture
def new_journal(journals_folder: Path) -> Iterator[Callable[[str], JournalWriter]]:
    writers: list[JournalWriter] = []

    def make(journal_id: str = "jrn_a") -> JournalWriter:
        writers.append(JournalWriter(journals_folder, journal_id, segment_bytes=MIN_SEGMENT_BYTES))
        return writers[-1]

    yield make
    for writer in writers:
        writer.close()


def write_whole(connection: Connection, batch: Batch, **options: bool) -> None:
    """A batch with its balances, as the shipper writes it."""
    Balances().write(connection, "jrn_test", write_batch(connection, batch, **options), now_ms=1)


class Traffic:
    """Calls as a worker writes them down: call number `n` is `req_000n`, started n milliseconds into 15 November 2023."""

    price = PRICE

    def intent(self, n: int, *, number: int = 1, hold: int = 10_000_000, tag: str | None = None, key_id: str = "key_1") -> Intent:
        started_ms = 1_700_000_000_000 + n
        attempt_id, call_id = f"att_{n:04d}_{number}", f"req_{n:04d}"
        return Intent(attempt_id, call_id, number, started_ms, "sim", "sim/echo", hold, PRICE.id, "acc_default", key_id, None, tag)

    def settled(self, n: int, *, number: int = 1, end: str = "complete", call: CallEnd | None = None, output: int | None = None) -> Settled:
        usage = Usage(10, n if output is None else output)
        cost = price_usage(PRICE, usage)
        numbers = (usage.input_tokens, usage.output_tokens, 0, 0, 0, 0, 0, cost)
        return Settled(f"att_{n:04d}_{number}", end, "reported", *numbers, PRICE.id, 200, "", 12, 5, b'{"prompt_tokens":10}', call)

    def call_end(self, n: int, *, attempts: int = 1, cost: int | None = None, tag: str | None = None, key_id: str = "key_1") -> CallEnd:
        if cost is None:
            cost = price_usage(PRICE, Usage(10, n)) if attempts else 0
        return CallEnd(
            f"req_{n:04d}", "openai-chat", "chat", "sim/echo", "sim/echo" if attempts else "", 200 if attempts else 400,
            1_700_000_000_000 + n, 12, 5, False, attempts, cost, "acc_default", key_id, None, tag, None, "",
        )  # fmt: skip

    def write_call(self, writer: JournalWriter, n: int, **fields: object) -> None:
        writer.intent(encode_record(self.intent(n, **fields)))  # type: ignore[arg-type]
        writer.settled(encode_record(self.settled(n, call=self.call_end(n, **fields))))  # type: ignore[arg-type]

    def write_open(self, writer: JournalWriter, n: int, **fields: object) -> None:
        """Sent, not settled."""
        writer.intent(encode_record(self.intent(n, **fields)))  # type: ignore[arg-type]


@pytest.fixture
def traffic() -> Traffic:
    return Traffic()


@pytest.fixture
def run(database: Database, tmp_path: Path) -> Run:
    """Runs a test in a world with a serving desk, then brings that to rest."""

    def run(test: Callable[[World], Awaitable[None]]) -> None:
        async def serve() -> None:
            world = World(database, tmp_path)
            async with world.desk.serving():
                await test(world)
                await world.rest()

        asyncio.run(asyncio.wait_for(serve(), 30))

    return run
