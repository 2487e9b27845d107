from __future__ import annotations

import asyncio
import importlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, inspect, select, text

from aigate.keeper.db.engine import Database, NewerSchema, database_url, open_database, schema_revision
from aigate.keeper.db.migrations.run import upgrade
from aigate.keeper.db.tables import SCHEMA_REVISION, meta
from tests.databases import PostgresServer
from tests.keeper.conftest import DATABASES, new_url

FOLDER = Path(sys.modules["aigate.keeper.db"].__file__ or "").parent
METADATA = {importlib.import_module(f"aigate.keeper.db.{path.stem}").metadata for path in FOLDER.glob("*tables.py")}


@pytest.fixture(params=DATABASES)
def url(request: pytest.FixtureRequest, tmp_path: Path, postgres_server: PostgresServer | None) -> Iterator[str]:
    """These tests change its schema."""
    with new_url(request.param, tmp_path, postgres_server) as url:
        yield url


def shape(engine: Engine) -> dict[str, Any]:
    found = inspect(engine)
    return {
        table: (
            [(column["name"], str(column["type"]), column["nullable"]) for column in found.get_columns(table)],
            found.get_pk_constraint(table)["constrained_columns"],
            sorted((tuple(index["column_names"]), bool(index["unique"])) for index in found.get_indexes(table)),
            sorted(tuple(unique["column_names"]) for unique in found.get_unique_constraints(table)),
        )
        for table in found.get_table_names()
        if table != "alembic_version"
    }


def test_a_migrated_schema_is_the_schema_of_the_tables(url: str, database: Database) -> None:
    migrated = shape(database.engine)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        for metadata in METADATA:
            metadata.drop_all(connection)
            metadata.create_all(connection)
    assert shape(database.engine) == migrated
    assert set(migrated) == {table for metadata in METADATA for table in metadata.tables}


def test_the_revision_of_the_tables_is_that_of_the_newest_migration(database: Database) -> None:
    assert database.read_now(schema_revision) == SCHEMA_REVISION
    versions = Path(sys.modules["aigate.keeper.db.migrations"].__file__ or "").parent / "versions"
    assert max(path.name[:4] for path in versions.glob("[0-9]*.py")) == SCHEMA_REVISION


def test_opening_again_keeps_what_is_there(url: str, database: Database) -> None:
    database.write_now(lambda connection: connection.execute(meta.insert().values(name="kept", value="yes")))
    again = open_database(url)
    assert again.read_now(lambda connection: connection.execute(select(meta.c.value).where(meta.c.name == "kept")).scalar()) == "yes"
    again.close()


def test_a_newer_schema_is_refused_and_not_touched(url: str, database: Database) -> None:
    database.write_now(lambda connection: connection.execute(text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(NewerSchema, match="schema 9999; this release knows up to"):
        open_database(url)
    assert database.read_now(schema_revision) == "9999"


def test_a_migration_that_fails_leaves_the_database_empty(url: str) -> None:
    database = Database(open_database(url).engine)
    with database.engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
        for metadata in METADATA:
            metadata.drop_all(connection)

    def upgrade_and_fail(connection: Connection) -> None:
        upgrade(connection)
        raise RuntimeError("the power went")

    with pytest.raises(RuntimeError):
        database.write_now(upgrade_and_fail)
    assert inspect(database.engine).get_table_names() == []
    database.close()


def test_the_migration_library_is_only_imported_when_there_is_work(tmp_path: Path) -> None:
    url = database_url(tmp_path)
    code = "import sys; from aigate.keeper.db.engine import open_database; open_database(sys.argv[1]).close(); print('alembic' in sys.modules)"
    said = [subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert said == ["True\n", "False\n"]


def test_a_write_is_one_transaction_on_the_only_writing_thread(database: Database) -> None:
    threads = set()

    def add(connection: Connection, name: str) -> None:
        threads.add(threading.get_ident())
        connection.execute(meta.insert().values(name=name, value=""))

    def add_and_fail(connection: Connection) -> None:
        add(connection, "never")
        raise ValueError("no")

    async def write() -> None:
        await asyncio.gather(*(database.write(add, f"row {n}") for n in range(20)))
        with pytest.raises(ValueError, match="no"):
            await database.write(add_and_fail)

    asyncio.run(write())
    names = database.read_now(lambda connection: connection.execute(select(meta.c.name).where(meta.c.name.like("row %"))).scalars().all())
    assert len(names) == 20 and "never" not in names
    assert len(threads) == 1 and threads.isdisjoint({threading.get_ident()})


def test_reading_goes_on_while_a_write_is_open(database: Database) -> None:
    is_writing, may_end = threading.Event(), threading.Event()

    def write_slowly(connection: Connection) -> None:
        connection.execute(meta.insert().values(name="slow", value=""))
        is_writing.set()
        assert may_end.wait(10)

    def count(connection: Connection) -> int:
        return len(connection.execute(select(meta).where(meta.c.name == "slow")).all())

    async def read_meanwhile() -> list[int]:
        writing = asyncio.ensure_future(database.write(write_slowly))
        await asyncio.to_thread(is_writing.wait, 10)
        seen = [await database.read(count)]
        may_end.set()
        await writing
        return [*seen, await database.read(count)]

    assert asyncio.run(read_meanwhile()) == [0, 1]
