"""The ledger's attempts, row by row, for other programs."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from sqlalchemy import Connection, Row, select, tuple_

from aigate.keeper.db.engine import Database
from aigate.keeper.db.tables import attempts

PAGE_ROWS = 5_000
_LEFT_OUT = ("raw_usage", "leases")  # of use to nobody else
_COLUMNS = [column for column in attempts.c if column.name not in _LEFT_OUT]
ATTEMPT_FIELDS = ["sent_at", *(column.name for column in _COLUMNS)]


def attempt_pages(database: Database, month: str | None) -> Iterator[list[dict[str, object]]]:
    """In the order of their calls. `month`: only what was sent in it (UTC). Each page is read by itself: what is shipped meanwhile may
    or may not be among the last."""
    last: tuple[str, str] | None = None
    while page := database.read_now(_page, last):
        last = (page[-1].call_id, page[-1].attempt_id)
        rows = [{"sent_at": _iso(row.sent_ms), **row._mapping} for row in page]
        yield [row for row in rows if month is None or str(row["sent_at"]).startswith(month)]


def _page(connection: Connection, last: tuple[str, str] | None) -> list[Row]:
    key = (attempts.c.call_id, attempts.c.attempt_id)
    query = select(*_COLUMNS).order_by(*key).limit(PAGE_ROWS)
    return list(connection.execute(query if last is None else query.where(tuple_(*key) > tuple_(*last))))


def _iso(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
