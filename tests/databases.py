"""Databases for tests, empty at the newest schema. Made once a process and copied from then on: making the schema anew takes longer than
most tests. What making it does, and what a first start does, have tests of their own (tests/keeper/db/test_engine.py, tests/test_serve.py).
"""

from __future__ import annotations

import functools
import secrets
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, inspect, text

from aigate.keeper.db.engine import database_url, open_database


@functools.cache
def _sqlite_file() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        open_database(database_url(folder)).close()
        return (Path(folder) / "gate.sqlite").read_bytes()


def put_sqlite(folder: Path) -> str:
    """The URL of a database in `folder`."""
    (folder / "gate.sqlite").write_bytes(_sqlite_file())
    return database_url(folder)


_UNTOUCHED = {"alembic_version"}
# Rows and counters as they were; what a test has left open is ended.
_END_OTHERS = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
  WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()"""
_EMPTY = """DO $$ DECLARE place record; BEGIN
  FOR place IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
    EXECUTE format('DELETE FROM %I', place.tablename);
  END LOOP;
  FOR place IN SELECT sequencename FROM pg_sequences WHERE schemaname = 'public' LOOP
    EXECUTE format('ALTER SEQUENCE %I RESTART', place.sequencename);
  END LOOP;
END $$"""


class PostgresServer:
    """`url`: of a database on it that exists."""

    def __init__(self, url: str):
        self._url = url
        self._admin = self._connect(url)
        self._names: list[str] = []  # of databases made here
        self._template = ""
        self._lent: Engine | None = None
        self._first_rows: dict[str, list[dict[str, Any]]] = {}  # what the migrations write, by table

    @contextmanager
    def lend(self) -> Iterator[str]:
        """The URL of a database that is emptied at the end and lent again; its schema must stay as it is."""
        if self._lent is None:
            self._lent = self._connect(self._url_of(self._make()))
            self._first_rows = self._rows(self._lent)
        yield self._lent.url.render_as_string(hide_password=False).replace("postgresql+psycopg://", "postgresql://", 1)
        with self._lent.connect() as connection:
            while connection.execute(text(_END_OTHERS)).all():
                time.sleep(0.001)
            if set(inspect(connection).get_table_names()) - _UNTOUCHED != self._first_rows.keys():
                self._lent = None  # a test that failed left it changed
                return
            connection.execute(text(_EMPTY))
            for table, rows in self._first_rows.items():
                if not rows:
                    continue
                columns = rows[0].keys()
                values = ", ".join(f":{column}" for column in columns)
                connection.execute(text(f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({values})"), rows)

    @contextmanager
    def new(self) -> Iterator[str]:
        """The URL of a database of one's own."""
        name = self._make()
        yield self._url_of(name)
        self._drop(name)

    def close(self) -> None:
        if self._lent is not None:
            self._lent.dispose()
        for name in list(self._names):
            self._drop(name)
        self._admin.dispose()

    def _make(self) -> str:
        if not self._template:
            template = self._create()
            open_database(self._url_of(template)).close()
            self._template = template
        return self._create(f"TEMPLATE {self._template}")

    def _create(self, options: str = "") -> str:
        name = f"aigate_test_{secrets.token_hex(6)}"
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} {options}"))
        self._names.append(name)
        return name

    def _drop(self, name: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        self._names.remove(name)

    def _url_of(self, name: str) -> str:
        base, mark, options = self._url.partition("?")
        return base.rpartition("/")[0] + f"/{name}" + mark + options

    @staticmethod
    def _connect(url: str) -> Engine:
        return create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT", pool_size=1, max_overflow=0)

    @staticmethod
    def _rows(engine: Engine) -> dict[str, list[dict[str, Any]]]:
        with engine.connect() as connection:
            tables = set(inspect(connection).get_table_names()) - _UNTOUCHED
            return {name: [dict(row) for row in connection.execute(text(f"SELECT * FROM {name}")).mappings()] for name in tables}
