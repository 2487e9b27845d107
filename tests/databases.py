"""Databases for tests, empty at the newest schema. Made once a process and copied from then on: making the schema anew takes longer than
most tests. What making it does, and what a first start does, have tests of their own (tests/keeper/db/test_engine.py, tests/test_serve.py).
"""

from __future__ import annotations

import functools
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

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


class PostgresServer:
    """`url`: of a database on it that exists."""

    def __init__(self, url: str):
        self._url = url
        self._admin = create_engine(url.replace("postgresql://", "postgresql+psycopg://", 1), isolation_level="AUTOCOMMIT")
        self._template = ""
        with self._admin.connect() as connection:
            version = int(connection.execute(text("SHOW server_version_num")).scalar_one())
        self._strategy = "STRATEGY file_copy" if version >= 150000 else ""  # what earlier ones do anyway; half the time of the other

    @contextmanager
    def new(self) -> Iterator[str]:
        """The URL of a database that is dropped at the end."""
        if not self._template:
            template = self._create("")
            open_database(self._url_of(template)).close()
            self._template = template
        name = self._create(f"TEMPLATE {self._template} {self._strategy}")
        try:
            yield self._url_of(name)
        finally:
            self._drop(name)

    def close(self) -> None:
        if self._template:
            self._drop(self._template)
        self._admin.dispose()

    def _create(self, options: str) -> str:
        name = f"aigate_test_{secrets.token_hex(6)}"
        with self._admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name} {options}"))
        return name

    def _drop(self, name: str) -> None:
        with self._admin.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))

    def _url_of(self, name: str) -> str:
        base, mark, options = self._url.partition("?")
        return base.rpartition("/")[0] + f"/{name}" + mark + options
