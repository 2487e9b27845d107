"""What shipped records do to the budgets: spent, reserved and leased of every owner, and the journal's leases.

Runs inside the shipper's transaction, on its thread. The arithmetic is core/budget.py's; here are the rows. Every owner of an attempt
has its row, limited or not, so that sums by key, tag and sub-account need no other table and a first limit starts from the truth.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.postgresql import insert as insert_or_leave_postgresql
from sqlalchemy.dialects.sqlite import insert as insert_or_leave_sqlite

from aigate.core.account import CLAMP, Standing
from aigate.core.budget import ACCOUNT, ALL_TIME, BY_MONTH, KEY, SUB_ACCOUNT, TAG, Changes, Owner, Place, window_of
from aigate.journal.records import ADOPTED, RESTATED, RETURNED
from aigate.keeper.db.conditions import is_any_of
from aigate.keeper.db.ledger_rows import Batch, Row, Share, driver_sql, write_sums
from aigate.keeper.db.outbox import Event, add_events, overrun_event, threshold_events
from aigate.keeper.db.tables import budgets, leases, windows

MAX_IDS_KEPT = 100_000
_IDS_A_QUERY = 500

_LIMITED = """SELECT budgets.id, scope, account_id, owner_id, limit_nanousd, "window", spent_nanousd
    FROM budgets JOIN windows ON windows.budget_id = budgets.id WHERE limit_nanousd IS NOT NULL"""

_T = TypeVar("_T")
_Sums = dict[tuple[Owner, str], list[int]]  # owner, window → requests, attempts, nano-dollars, input and output tokens, reserved


class Balances:
    """Keeps the ids of owners it has met; they never change."""

    def __init__(self) -> None:
        self._ids: dict[Owner, int] = {}

    def write(self, connection: Connection, journal_id: str, batch: Batch, *, now_ms: int, is_seal: bool = False) -> None:
        """`is_seal`: the journal was read to its end and nobody writes it any more."""
        sums = _sums_by_owner(batch.totals)
        ids = self._ids_of(connection, {owner for owner, _ in sums}, now_ms)
        counts = {(ids[owner], window): amounts for (owner, window), amounts in sums.items()}
        changes = _changes(batch, counts, is_seal=is_seal)
        before = _leases_of(connection, journal_id, None if changes.is_whole else changes.places)
        changed, after = changes.result(before)
        rows: dict[Row, list[int]] = {}
        for place in counts.keys() | changed.keys():
            requests, attempts, _, input_tokens, output_tokens, _ = counts.get(place, (0,) * 6)
            change = changed.get(place)
            money = [change.spent, change.reserved, change.leased] if change else [0, 0, 0]
            rows[place] = [*money, requests, attempts, input_tokens, output_tokens]
        write_sums(connection, windows, rows)
        moved = {(journal_id, *place): [amount - before.get(place, 0)] for place, amount in after.items() if amount != before.get(place, 0)}
        write_sums(connection, leases, moved)  # type: ignore[arg-type]
        if is_seal:
            connection.execute(delete(leases).where(leases.c.journal_id == journal_id))
        spent = {place: amounts[2] for place, amounts in counts.items() if amounts[2]}
        events = [overrun_event(*overrun) for overrun in batch.overruns]
        add_events(connection, events + _crossed(connection, spent), now_ms)

    def _ids_of(self, connection: Connection, owners: set[Owner], now_ms: int) -> dict[Owner, int]:
        known = self._ids
        unknown = [owner for owner in owners if owner not in known]
        if unknown:
            if len(known) > MAX_IDS_KEPT:
                known.clear()
                unknown = list(owners)
            known.update(_find_ids(connection, unknown))
            new = [owner for owner in unknown if owner not in known]
            if new:  # not kept: this transaction may yet fail
                return known | add_budgets(connection, new, now_ms)
        return known


def add_budgets(connection: Connection, owners: Iterable[Owner], now_ms: int) -> dict[Owner, int]:
    """The ids of owners' budgets, made where they are missing."""
    wanted = sorted(set(owners))
    insert_or_leave = insert_or_leave_sqlite if connection.dialect.name == "sqlite" else insert_or_leave_postgresql
    rows = [
        dict(
            scope=scope,
            account_id=account_id,
            owner_id=owner_id,
            window_kind=ALL_TIME if scope == ACCOUNT else BY_MONTH,
            mode=CLAMP,
            version=0,
            created_ms=now_ms,
        )
        for scope, account_id, owner_id in wanted
    ]
    if rows:
        connection.execute(insert_or_leave(budgets).on_conflict_do_nothing(), rows)
    return _find_ids(connection, wanted)


def _find_ids(connection: Connection, owners: list[Owner]) -> dict[Owner, int]:
    column = budgets.c
    query = select(column.id, column.scope, column.account_id, column.owner_id)
    found: dict[Owner, int] = {}
    for chunk in _chunks(owners):
        for row in connection.execute(query.where(is_any_of((column.scope, column.account_id, column.owner_id), chunk))):
            found[row[1], row[2], row[3]] = row[0]
    return found


def owners_of(share: Share) -> list[tuple[Owner, str]]:
    """Whose an amount is, and in which window it counts for each."""
    account_id = share.account_id
    owners = ((ACCOUNT, account_id), (SUB_ACCOUNT, share.sub_account_id), (KEY, share.key_id), (TAG, share.tag))
    return [
        ((scope, account_id, owner_id), window_of(ALL_TIME if scope == ACCOUNT else BY_MONTH, share.month)) for scope, owner_id in owners
    ]


def _sums_by_owner(totals: dict[Share, list[int]]) -> _Sums:
    sums: _Sums = {}
    for share, total in totals.items():
        for key in owners_of(share):
            known = sums.get(key)
            sums[key] = total if known is None else [a + b for a, b in zip(known, total, strict=True)]
    return sums


def _changes(batch: Batch, counts: dict[Place, list[int]], *, is_seal: bool) -> Changes:
    changes = Changes()
    for place, amounts in counts.items():
        changes.spend(place, amounts[2])
        if amounts[5]:
            changes.reserve(place, amounts[5])
    for kind, moved in batch.moves:
        tell = {RETURNED: changes.end_leases, ADOPTED: changes.adopt, RESTATED: changes.restate}[kind]
        tell((*place, amount) for place, amount in moved.items())
    if is_seal:
        changes.seal()
    return changes


def _leases_of(connection: Connection, journal_id: str, places: list[Place] | None) -> dict[Place, int]:
    """`places` None: all of them."""
    if places is not None and not places:
        return {}
    column = leases.c
    query = select(column.budget_id, column.window, column.amount_nanousd).where(column.journal_id == journal_id)
    if places is None:
        return {(row[0], row[1]): row[2] for row in connection.execute(query)}
    found: dict[Place, int] = {}
    for chunk in _chunks(sorted({budget_id for budget_id, _ in places})):
        found.update(((row[0], row[1]), row[2]) for row in connection.execute(query.where(column.budget_id.in_(chunk))))
    return found


def _crossed(connection: Connection, spent: dict[Place, int]) -> list[Event]:
    """Events of limits that the spending of this batch came near to or reached."""
    events: list[Event] = []
    for chunk in _chunks(sorted({budget_id for budget_id, _ in spent})):
        query = driver_sql(connection, f"{_LIMITED} AND budgets.id IN ({', '.join('?' * len(chunk))})")
        for budget_id, scope, account_id, owner_id, limit, window, total in connection.exec_driver_sql(query, tuple(chunk)):
            added = spent.get((budget_id, window))
            if added:
                owner = (scope, account_id, owner_id)
                after = Standing(owner=owner, budget_id=budget_id, limit_nanousd=limit, window=window, spent=total)
                before = Standing(owner=owner, limit_nanousd=limit, spent=total - added)
                events += threshold_events(before, after)
    return events


def _chunks(items: list[_T]) -> Iterable[list[_T]]:
    """Databases limit how many values a statement may bind."""
    return (items[start : start + _IDS_A_QUERY] for start in range(0, len(items), _IDS_A_QUERY))
