"""`aigate ledger verify`: runs the keeper's verification on a data directory and puts its findings into words."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from aigate.cli.connection import CommandError
from aigate.keeper.db.engine import Database, NewerSchema, database_url, open_database
from aigate.keeper.ledger import NOTES, WRONG, Report, verify


@contextlib.contextmanager
def opened(data_dir: str) -> Iterator[Database]:
    """The database of a data directory, as the keeper would open it; never a new one."""
    folder = Path(data_dir)
    if not (folder / "gate.sqlite").is_file():
        raise CommandError(f"{folder}: there is no ledger in it; give --data-dir of the server")
    try:
        database = open_database(database_url(folder))
    except NewerSchema as error:
        raise CommandError(error.message) from error
    try:
        yield database
    finally:
        database.close()


def verify_data_dir(data_dir: str) -> Report:
    with opened(data_dir) as database:
        return database.read_now(verify, Path(data_dir) / "journals")


def report_lines(report: Report) -> list[str]:
    lines = [f"{report.attempts} attempts, {report.calls} calls, ${report.cost_nanousd / 1e9:.9f}"]
    for kind, words in {**WRONG, **NOTES}.items():
        if count := report.counts.get(kind):
            lines.append(f"{'WRONG' if kind in WRONG else 'note'}: {count} × {words}")
            lines += [f"  {finding.subject}: {finding.detail}" for finding in report.findings if finding.kind == kind]
    return [*lines, "the ledger is sound" if report.is_sound else "the ledger is NOT sound"]
