"""Limits of budgets: set, told to the workers, and read with where they stand."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, and_, case, literal_column, select, text, update

from aigate.core.account import Cap, Page, Standing
from aigate.core.budget import ACCOUNT, ALL_TIME, TAG, Limit, Owner, window_of
from aigate.keeper.db.balances import add_budgets
from aigate.keeper.db.conditions import is_any_of
from aigate.keeper.db.outbox import add_events, threshold_events
from aigate.keeper.db.tables import budgets, meta, windows

FindMonth = Callable[[Connection], str]

_VERSION = select(meta.c.value).where(meta.c.name == "limits_version")
_NEXT_VERSION = text(
    "UPDATE meta SET value = CAST(CAST(value AS BIGINT) + 1 AS TEXT) WHERE name = 'limits_version' RETURNING CAST(value AS BIGINT)"
)


def set_limit(connection: Connection, owner: Owner, cap: Cap, now_ms: int, *, is_new_owner: bool = False) -> None:
    """`is_new_owner`: nothing of it can run yet, so the workers need not hear of it. Nor need they of a limit that was only raised."""
    budget_id = add_budgets(connection, [owner], now_ms)[owner]
    before = find_standings(connection, [owner])[owner]
    changed: dict[str, object] = {"limit_nanousd": cap.limit_nanousd, "mode": cap.mode}
    if not is_new_owner and not _is_raise(before.limit_nanousd, cap.limit_nanousd):
        changed["version"] = connection.execute(_NEXT_VERSION).scalar_one()
    connection.execute(update(budgets).where(budgets.c.id == budget_id).values(changed))
    add_events(connection, threshold_events(before, replace(before, limit_nanousd=cap.limit_nanousd)), now_ms)


def _is_raise(before: int | None, after: int | None) -> bool:
    return before == after or (before is not None and after is not None and after > before)


def limits_version(connection: Connection) -> int:
    return int(connection.execute(_VERSION).scalar_one())


def changed_limits(connection: Connection, since: int, find_month: FindMonth) -> tuple[int, list[Limit]]:
    """The newest version, and the limits changed after version `since`."""
    was_ever = budgets.c.version > literal_column("0")  # as the index says it, else it is not used
    return limits_version(connection), _limits(connection, and_(was_ever, budgets.c.version > since), find_month)


def first_limits(connection: Connection, find_month: FindMonth) -> tuple[int, list[Limit]]:
    """For a worker that has just begun: limits that no key that it looks up tells it of."""
    is_untold = and_(budgets.c.scope.in_((ACCOUNT, TAG)), budgets.c.limit_nanousd.is_not(None))
    return limits_version(connection), _limits(connection, is_untold, find_month)


def _limits(connection: Connection, which: ColumnElement[bool], find_month: FindMonth) -> list[Limit]:
    month = find_month(connection)
    rows = connection.execute(select(budgets).where(which).order_by(budgets.c.version)).all()
    return [
        Limit((row.scope, row.account_id, row.owner_id), row.id, row.limit_nanousd is not None, window_of(row.window_kind, month))
        for row in rows
    ]


def find_standings(connection: Connection, owners: Sequence[Owner]) -> dict[Owner, Standing]:
    """Of all of them, in the windows of now; an owner that nobody knows has nothing spent and no limit."""
    month = this_month()
    found: dict[Owner, Standing] = {
        owner: Standing(owner=owner, window=ALL_TIME if owner[0] == ACCOUNT else month) for owner in owners
    }
    column = budgets.c
    name = (column.scope, column.account_id, column.owner_id)
    for start in range(0, len(owners), 500):  # databases limit how many values a statement may bind
        found |= {standing.owner: standing for standing in _standings(connection, is_any_of(name, owners[start : start + 500]), month)}
    return found


def find_limited(connection: Connection, account_id: str, scope: str, page: Page) -> list[Standing]:
    column = budgets.c
    which = and_(column.scope == scope, column.account_id == account_id, column.limit_nanousd.is_not(None))
    if page.after is not None:
        which = and_(which, column.owner_id > page.after)
    return list(_standings(connection, which, this_month(), page.limit))


def this_month() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")


def _standings(connection: Connection, which: ColumnElement[bool], month: str, limit: int | None = None) -> Iterable[Standing]:
    """`limit`: at most so many, in the order of their ids."""
    window = case((budgets.c.window_kind == ALL_TIME, ALL_TIME), else_=month)
    join = budgets.outerjoin(windows, and_(windows.c.budget_id == budgets.c.id, windows.c.window == window))
    amounts = [windows.c[name] for name in ("spent_nanousd", "reserved_nanousd", "leased_nanousd")]
    query = select(budgets, window.label("now"), *amounts).select_from(join).where(which)
    for row in connection.execute(query if limit is None else query.order_by(budgets.c.owner_id).limit(limit)):
        yield Standing(
            owner=(row.scope, row.account_id, row.owner_id),
            budget_id=row.id,
            limit_nanousd=row.limit_nanousd,
            mode=row.mode,
            window=row.now,
            spent=row.spent_nanousd or 0,
            reserved=row.reserved_nanousd or 0,
            leased=row.leased_nanousd or 0,
            created_ms=row.created_ms,
        )
