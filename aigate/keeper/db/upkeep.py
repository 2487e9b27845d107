"""What becomes of ledger rows afterwards: unsettled attempts resolved, leases of unreadable journals written off, old rows removed."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Connection, delete, literal_column, select, update

from aigate.core.budget import Change, resolve
from aigate.keeper.db.balances import add_budgets, owners_of
from aigate.keeper.db.ledger_rows import RESOLVED, Share, calendar_of, write_sums, write_usage
from aigate.keeper.db.tables import attempts, calls, journals, leases, meta, windows

BOUNDARY_MS = 86_400_000  # a call that began before midnight may have attempts after it
ROWS_A_STEP = 2_000


def resolve_attempt(connection: Connection, attempt_id: str, cost_nanousd: int | None, now_ms: int) -> int | None:
    """An unsettled attempt has cost so much after all, or (None) nothing. The hold that ends with it; None where there is none of this
    id that is still reserved."""
    column = attempts.c
    row = connection.execute(select(attempts).where(column.attempt_id == attempt_id, column.reserved_nanousd > literal_column("0"))).one_or_none()
    if row is None:
        return None
    change = resolve(row.reserved_nanousd, cost_nanousd)
    this = (column.call_id == row.call_id) & (column.attempt_id == attempt_id)
    connection.execute(update(attempts).where(this).values(end=RESOLVED, cost_nanousd=change.spent, reserved_nanousd=0))
    connection.execute(update(calls).where(calls.c.call_id == row.call_id).values(cost_nanousd=calls.c.cost_nanousd + change.spent))
    month, day = calendar_of(row.sent_ms)
    share = Share(row.window or month, day, row.account_id, row.key_id, row.sub_account_id or "", row.tag or "", row.model)
    write_usage(connection, {share: [0, 0, change.spent, 0, 0, 0]})
    change_windows(connection, share, change, now_ms)
    return row.reserved_nanousd


def change_windows(connection: Connection, share: Share, change: Change, now_ms: int) -> None:
    """Adds to every budget of the share's owners."""
    owners = owners_of(share)
    ids = add_budgets(connection, [owner for owner, _ in owners], now_ms)
    write_sums(connection, windows, {(ids[owner], window): [change.spent, change.reserved, 0, 0, 0, 0, 0] for owner, window in owners})


def write_off_leases(connection: Connection, journal_id: str) -> int:
    """An operator has seen to a journal that ended damaged: its leases return, whatever was spent of them. How much that was."""
    is_over = select(journals.c.id).where(journals.c.id == journal_id, journals.c.sealed_ms.is_not(None))
    rows = connection.execute(select(leases).where(leases.c.journal_id.in_(is_over))).all()
    write_sums(connection, windows, {(row.budget_id, row.window): [0, 0, -row.amount_nanousd, 0, 0, 0, 0] for row in rows})
    connection.execute(delete(leases).where(leases.c.journal_id.in_(is_over)))
    return sum(row.amount_nanousd for row in rows)


def remove_old_rows(connection: Connection, kept_month: str) -> bool:
    """Removes some calls of months before `kept_month`, with their attempts; whether there are more. Sums stay, and so does what is reserved."""
    connection.execute(update(meta).where(meta.c.name == "kept_month", meta.c.value < kept_month).values(value=kept_month))
    first_ms = int(datetime(int(kept_month[:4]), int(kept_month[5:]), 1, tzinfo=UTC).timestamp() * 1000)
    old = select(calls.c.call_id).where(calls.c.started_ms < first_ms - BOUNDARY_MS).order_by(calls.c.started_ms).limit(ROWS_A_STEP)
    ids = connection.execute(old).scalars().all()
    for start in range(0, len(ids), 500):  # databases limit how many values a statement may bind
        chunk = ids[start : start + 500]
        connection.execute(delete(attempts).where(attempts.c.call_id.in_(chunk), attempts.c.reserved_nanousd == 0))
        connection.execute(delete(calls).where(calls.c.call_id.in_(chunk)))
    return len(ids) == ROWS_A_STEP
