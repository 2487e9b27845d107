"""Limits of budgets: set, and read with where they stand."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from sqlalchemy import ColumnElement, Connection, and_, case, select, tuple_, update

from aigate.core.account import Cap, Standing
from aigate.core.budget import ACCOUNT, ALL_TIME, Owner
from aigate.keeper.db.balances import add_budgets
from aigate.keeper.db.tables import budgets, windows


def set_limit(connection: Connection, owner: Owner, cap: Cap, now_ms: int) -> None:
    budget_id = add_budgets(connection, [owner], now_ms)[owner]
    connection.execute(update(budgets).where(budgets.c.id == budget_id).values(limit_nanousd=cap.limit_nanousd, mode=cap.mode))


def find_standings(connection: Connection, owners: Sequence[Owner]) -> dict[Owner, Standing]:
    """Of all of them, in the windows of now; an owner that nobody knows has nothing spent and no limit."""
    month = this_month()
    found: dict[Owner, Standing] = {
        owner: Standing(owner=owner, window=ALL_TIME if owner[0] == ACCOUNT else month) for owner in owners
    }
    column = budgets.c
    name = tuple_(column.scope, column.account_id, column.owner_id)
    for start in range(0, len(owners), 500):  # databases limit how many values a statement may bind
        found |= {standing.owner: standing for standing in _standings(connection, name.in_(owners[start : start + 500]), month)}
    return found


def find_limited(connection: Connection, account_id: str, scope: str) -> list[Standing]:
    column = budgets.c
    which = and_(column.scope == scope, column.account_id == account_id, column.limit_nanousd.is_not(None))
    return sorted(_standings(connection, which, this_month()), key=lambda standing: standing.owner)


def this_month() -> str:
    return datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")


def _standings(connection: Connection, which: ColumnElement[bool], month: str) -> Iterable[Standing]:
    window = case((budgets.c.window_kind == ALL_TIME, ALL_TIME), else_=month)
    join = budgets.outerjoin(windows, and_(windows.c.budget_id == budgets.c.id, windows.c.window == window))
    amounts = [windows.c[name] for name in ("spent_nanousd", "reserved_nanousd", "leased_nanousd")]
    for row in connection.execute(select(budgets, window.label("now"), *amounts).select_from(join).where(which)):
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
