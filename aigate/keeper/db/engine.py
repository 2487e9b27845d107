"""Opens the database: SQLite (WAL) or PostgreSQL by URL, at the schema this code knows. Owns connections and threads; no queries.

A query is a plain function of a Connection. `Database.read` runs it on a small pool of threads, `Database.write` in one transaction on
the only writing thread: a synchronous driver in a thread costs one hop a transaction, an async one a hop a statement.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text

from aigate.errors import GatewayError
from aigate.keeper.db.tables import SCHEMA_REVISION

P = ParamSpec("P")
T = TypeVar("T")
Query = Callable[Concatenate[Connection, P], T]

READ_THREADS = 3


class NewerSchema(GatewayError):
    """The database was written by a later release. Nothing is touched."""

    code = "newer_schema"


class Database:
    def __init__(self, engine: Engine):
        self.engine = engine
        self._write_engine = engine.execution_options(is_write=True)
        self._writer = ThreadPoolExecutor(1, "db-write")
        self._readers = ThreadPoolExecutor(READ_THREADS, "db-read")

    async def read(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, lambda: self._run(self.engine, query, *args, **kwargs))

    async def write(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In one transaction, after every write asked for before."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: self.write_now(query, *args, **kwargs))

    async def on_write_thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """For work that makes its own transactions with `write_now`."""
        return await asyncio.get_running_loop().run_in_executor(self._writer, lambda: work(*args, **kwargs))

    def write_now(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """On the calling thread: the writing thread, or a process that has no loop."""
        return self._run(self._write_engine, query, *args, **kwargs)

    def read_now(self, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return self._run(self.engine, query, *args, **kwargs)

    def close(self) -> None:
        self._writer.shutdown()
        self._readers.shutdown()
        self.engine.dispose()

    @staticmethod
    def _run(engine: Engine, query: Query[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with engine.begin() as connection:
            return query(connection, *args, **kwargs)


def database_url(data_dir: str | Path) -> str:
    return f"sqlite:///{Path(data_dir).resolve() / 'gate.sqlite'}"


def open_database(url: str) -> Database:
    """Connects, creates or migrates the schema where needed. Raises NewerSchema."""
    database = Database(_create_engine(url))
    try:
        _bring_up_to_date(database)
    except BaseException:
        database.close()
        raise
    return database


def schema_revision(connection: Connection) -> str | None:
    """What the database says of itself; None = empty. Reads the stamp without importing the migration library."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _bring_up_to_date(database: Database) -> None:
    found = database.read_now(schema_revision)
    if found == SCHEMA_REVISION:
        return
    if found is not None and found > SCHEMA_REVISION:
        raise NewerSchema(
            f"The database has schema {found}; this release knows up to {SCHEMA_REVISION}. Start the newer release, or restore a backup made before it."
        )
    from aigate.keeper.db.migrations.run import upgrade  # its library costs memory and start time: only when there is work

    database.write_now(upgrade)


def _create_engine(url: str) -> Engine:
    if url.startswith("postgresql"):
        return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), pool_size=READ_THREADS + 1, pool_pre_ping=True)
    engine = create_engine(url, pool_size=READ_THREADS + 1)
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


# The driver asks for an adapter of each value that is no plain int, float or text; to find one costs it a third of finding none.
for _type, _as_it_is in ((type(None), {}.get), (bool, int), (bytes, bytes.__bytes__)):
    sqlite3.register_adapter(_type, _as_it_is)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # we say BEGIN ourselves: the driver's own comes too late for a write lock
    for pragma in (
        "journal_mode=WAL",
        "synchronous=NORMAL",  # a power cut may undo the last transactions, rows and shipped offset together: they are shipped again
        "busy_timeout=10000",
        "cache_size=-16000",
        "wal_autocheckpoint=4000",
        "temp_store=MEMORY",
    ):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: Connection) -> None:
    is_write = connection.get_execution_options().get("is_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if is_write else "BEGIN")
