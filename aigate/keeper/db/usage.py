"""What was used: recent calls, and sums of a month. Plain functions of a connection; how they look on the wire is the API's."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from itertools import starmap

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, Table, and_, func, literal, or_, select

from aigate.core.account import Page, Whose
from aigate.errors import ClientError
from aigate.journal.records import CallEnd
from aigate.keeper.db.tables import budgets, calls, usage_days, usage_totals, windows

MAX_RECENT = 1000
SCAN_ROWS = 200_000


class Totals(msgspec.Struct, frozen=True):
    requests: int = 0
    attempts: int = 0
    cost_nanousd: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class LabelTotals(Totals, frozen=True):
    """`label`: the tag, sub-account, key, model or day that they are of; "" = of what has none."""

    label: str = ""


def recent_calls(
    connection: Connection,
    *,
    limit: int = 100,
    cursor: str | None = None,
    whose: Whose | None = None,
    scan_rows: int = SCAN_ROWS,
) -> tuple[list[CallEnd], str | None]:
    """Newest first, and the cursor of the next page. A page of what is not everybody's looks through `scan_rows` calls at most: it may
    be short, even empty, and still have a next one."""
    order = (calls.c.started_ms.desc(), calls.c.call_id.desc())
    limit = max(1, min(limit, MAX_RECENT))
    before = None if cursor is None else _read_cursor(cursor)
    query = _before(select(calls), before)
    edge = None
    owner = _of(calls, whose)
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


def usage_by(connection: Connection, dimension: str, month: str, whose: Whose, page: Page | None = None) -> list[LabelTotals]:
    """One entry a tag, sub_account, key, model or day; of "all" one entry."""
    if dimension in ("tag", "sub_account", "key") and whose.sub_account_id is None and whose.key_id is None:
        return _sum_owners(connection, dimension, month, whose.account_id, page)
    found = _sum_rows(connection, dimension, month, whose)
    if page is None:
        return found
    found = [total for total in found if page.after is None or total.label > page.after]
    return sorted(found, key=lambda total: total.label)[: page.limit]


def _sum_rows(connection: Connection, dimension: str, month: str, whose: Whose) -> list[LabelTotals]:
    if dimension in ("model", "day", "all"):
        return _sum_days(connection, dimension, whose, [usage_days.c.month == month])
    label = usage_totals.c["tag" if dimension == "tag" else dimension + "_id"]
    return _totals(connection, select(label, *_sums(usage_totals)).where(usage_totals.c.month == month, *_of(usage_totals, whose)).group_by(label))


def usage_in_days(connection: Connection, dimension: str, first_day: str, last_day: str, whose: Whose) -> list[LabelTotals]:
    """The same of model, day or all, for what was sent from one day to another, both inside."""
    day = usage_days.c.day
    return _sum_days(connection, dimension, whose, [day >= first_day, day <= last_day])


def _sum_days(connection: Connection, dimension: str, whose: Whose, times: list[ColumnElement[bool]]) -> list[LabelTotals]:
    columns = usage_days.c
    label = literal("") if dimension == "all" else columns[dimension]
    owner = whose.key_id or whose.sub_account_id or ""
    query = select(label, *_sums(usage_days)).where(columns.account_id == whose.account_id, columns.owner_id == owner, *times)
    if dimension == "all":
        return _totals(connection, query.having(func.count() > 0))
    return _totals(connection, query.group_by(label), is_by_label=dimension == "day")


def _sum_owners(connection: Connection, scope: str, month: str, account_id: str, page: Page | None) -> list[LabelTotals]:
    """What the windows of all owners of a scope say: no sum is needed. There may be very many, and pages are read along their index."""
    names = {"cost_nanousd": "spent_nanousd"}
    values = [windows.c[names.get(name, name)] for name in Totals.__struct_fields__]
    join = budgets.join(windows, and_(windows.c.budget_id == budgets.c.id, windows.c.window == month))
    query = select(*values, budgets.c.owner_id).select_from(join).where(budgets.c.scope == scope, budgets.c.account_id == account_id)
    query = query.where(or_(windows.c.attempts > 0, windows.c.requests > 0))
    if page is None:
        query = query.order_by(windows.c.spent_nanousd.desc(), budgets.c.owner_id)
    else:
        query = query.where(budgets.c.owner_id > page.after) if page.after is not None else query
        query = query.order_by(budgets.c.owner_id).limit(page.limit)
    return list(starmap(LabelTotals, connection.execute(query)))


def _totals(connection: Connection, query: Select, *, is_by_label: bool = False) -> list[LabelTotals]:
    """Dearest first, or in the order of their labels."""
    found = [LabelTotals(label=row[0], **_whole(row[1:])) for row in connection.execute(query)]
    found.sort(key=lambda total: total.label if is_by_label else (-total.cost_nanousd, total.label))
    return found


def _sums(table: Table) -> list[ColumnElement[int]]:
    return [func.sum(table.c[name]) for name in Totals.__struct_fields__]


def _whole(sums: Sequence[object]) -> dict[str, int]:
    """Sums as integers: a database may give none, or a decimal."""
    return {name: int(value or 0) for name, value in zip(Totals.__struct_fields__, sums, strict=True)}  # type: ignore[call-overload]


def _of(table: Table, whose: Whose | None) -> list[ColumnElement[bool]]:
    if whose is None:
        return []
    wanted = ((table.c.account_id, whose.account_id), (table.c.sub_account_id, whose.sub_account_id), (table.c.key_id, whose.key_id))
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
