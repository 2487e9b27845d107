"""The ledger's attempts, row by row, for other programs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, Row, select, tuple_

from aigate.keeper.db.engine import Database
from aigate.keeper.db.tables import attempts

PAGE_ROWS = 5_000
_LEFT_OUT = ("raw_usage", "leases")  # of use to nobody else
_COLUMNS = [column for column in attempts.c if column.name not in _LEFT_OUT]
ATTEMPT_FIELDS = ["sent_at", *(column.name for column in _COLUMNS)]


def attempt_pages(database: Database, month: str | None) -> Iterator[list[dict[str, object]]]:
    """In the order of their calls. `month`: only what was sent in it (UTC). Each page is read by itself: what is shipped meanwhile may
    or may not be among the last. There is no index by time: it would cost each attempt more than an export now and then."""
    times = () if month is None else (attempts.c.sent_ms >= _first_ms(month), attempts.c.sent_ms < _first_ms(_next(month)))
    last: tuple[str, str] | None = None
    while page := database.read_now(_page, times, last):
        last = (page[-1].call_id, page[-1].attempt_id)
        yield [{"sent_at": _iso(row.sent_ms), **row._mapping} for row in page]


def _page(connection: Connection, times: Sequence[ColumnElement[bool]], last: tuple[str, str] | None) -> list[Row]:
    key = (attempts.c.call_id, attempts.c.attempt_id)
    query = select(*_COLUMNS).where(*times).order_by(*key).limit(PAGE_ROWS)
    return list(connection.execute(query if last is None else query.where(tuple_(*key) > tuple_(*last))))


def _first_ms(month: str) -> int:
    return int(datetime.strptime(month + "+0000", "%Y-%m%z").timestamp()) * 1000


def _next(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{year + number // 12}-{number % 12 + 1:02}"


def _iso(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
