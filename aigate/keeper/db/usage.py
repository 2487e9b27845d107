"""What was used: recent calls, and sums of a month. Plain functions of a connection; how they look on the wire is the API's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, and_, func, or_, select

from aigate.errors import ClientError
from aigate.journal.records import CallEnd
from aigate.keeper.db.tables import calls, usage_totals

MAX_RECENT = 1000
SCAN_ROWS = 200_000


class Totals(msgspec.Struct, frozen=True):
    requests: int = 0
    attempts: int = 0
    cost_nanousd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class TagTotals(Totals, frozen=True):
    tag: str = ""  # "" = untagged


def recent_calls(
    connection: Connection,
    *,
    limit: int = 100,
    cursor: str | None = None,
    account_id: str | None = None,
    key_id: str | None = None,
    scan_rows: int = SCAN_ROWS,
) -> tuple[list[CallEnd], str | None]:
    """Newest first, and the cursor of the next page. With a filter a page looks through `scan_rows` calls at most: it may be short,
    even empty, and still have a next one."""
    order = (calls.c.started_ms.desc(), calls.c.call_id.desc())
    limit = max(1, min(limit, MAX_RECENT))
    before = None if cursor is None else _read_cursor(cursor)
    query = _before(select(calls), before)
    edge = None
    owner = _owner(calls, account_id, key_id)
    if owner:
        edge = connection.execute(
            _before(select(calls.c.started_ms, calls.c.call_id), before).order_by(*order).offset(scan_rows).limit(1)
        ).one_or_none()
        query = query.where(*owner)
        if edge is not None:
            query = query.where(calls.c.started_ms >= edge.started_ms)
    found = [CallEnd(**row) for row in connection.execute(query.order_by(*order).limit(limit)).mappings()]
    if len(found) == limit:
        return found, _write_cursor(found[-1].started_ms, found[-1].call_id)
    return found, None if edge is None else _write_cursor(edge.started_ms, "")


def usage_by_tag(connection: Connection, month: str, *, account_id: str | None = None, key_id: str | None = None) -> list[TagTotals]:
    """One entry a tag, dearest first."""
    tag, cost = usage_totals.c.tag, func.sum(usage_totals.c.cost_nanousd)
    query = _of_month(select(tag, *_sums()), month, account_id, key_id).group_by(tag).order_by(cost.desc(), tag)
    return [TagTotals(tag=row[0], **_whole(row[1:])) for row in connection.execute(query)]


def usage_of_month(connection: Connection, month: str, *, account_id: str | None = None, key_id: str | None = None) -> Totals:
    return Totals(**_whole(connection.execute(_of_month(select(*_sums()), month, account_id, key_id)).one()))


def _sums() -> list[ColumnElement[int]]:
    return [func.sum(usage_totals.c[name]) for name in Totals.__struct_fields__]


def _whole(sums: Sequence[object]) -> dict[str, int]:
    """Sums as integers: a database may give none, or a decimal."""
    return {name: int(value or 0) for name, value in zip(Totals.__struct_fields__, sums, strict=True)}  # type: ignore[call-overload]


def _of_month(query: Select, month: str, account_id: str | None, key_id: str | None) -> Select:
    return query.where(usage_totals.c.month == month, *_owner(usage_totals, account_id, key_id))


def _owner(table: object, account_id: str | None, key_id: str | None) -> list[ColumnElement[bool]]:
    columns = table.c  # type: ignore[attr-defined]
    wanted = ((columns.account_id, account_id), (columns.key_id, key_id))
    return [column == value for column, value in wanted if value is not None]


def _before(query: Select, position: tuple[int, str] | None) -> Select:
    if position is None:
        return query
    started_ms, call_id = position
    at, same = calls.c.started_ms, calls.c.call_id
    return query.where(at <= started_ms).where(or_(at < started_ms, and_(at == started_ms, same < call_id)))


def _write_cursor(started_ms: int, call_id: str) -> str:
    return base64.urlsafe_b64encode(f"{started_ms}:{call_id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[int, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        started_ms, colon, call_id = text.partition(":")
        if colon and len(started_ms) < 19 and "\0" not in call_id:
            return int(started_ms), call_id
    except (binascii.Error, ValueError):
        pass  # told below
    raise ClientError("cursor is not one that this gateway gave; send next_cursor as it came, or none.", param="cursor")
