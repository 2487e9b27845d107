"""Money of work that the keeper itself sends out (jobs, whole runs): a hold goes straight into `reserved`, with its attempt as an `unsettled`
row, in the transaction of its cause; the end turns it into what was spent, once.

The arithmetic is core/budget.py's. Rows are touched in the order the shipper touches them (usage, then windows by id), so that two keepers
on one database never wait for each other in a ring; a refusal is an exception, which undoes the transaction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec.structs import astuple, replace
from sqlalchemy import Connection, select, update

from aigate.core.budget import Given, Owner, Want, grant, window_of
from aigate.journal.records import CallEnd, Intent, Settled
from aigate.keeper.db.balances import Balances
from aigate.keeper.db.conditions import is_any_of
from aigate.keeper.db.grants import CHANGING, exhausted_events, lock_windows, refusal_of
from aigate.keeper.db.ledger_rows import UNSETTLED, Batch, write_batch
from aigate.keeper.db.outbox import Event
from aigate.keeper.db.tables import attempts, budgets
from aigate.messages import Refused

_NO_JOURNAL = ""  # what a keeper sends out stands in no journal
_SETTLED = Settled.__struct_fields__[1:17]  # columns of `attempts` that a settled record fills
_INTENT = [name for name in Intent.__struct_fields__ if name != "leases"]


class InForce(Protocol):
    """Limits that every worker acts by (keeper/leases.py)."""

    @property
    def version(self) -> int: ...
    @property
    def settling(self) -> frozenset[int]: ...


_b, _a = budgets.c, attempts.c


class HoldRefused(Exception):
    """The hold does not fit a budget of its path: `refused.reason` says how (keeper/db/grants.py). `events`: to be written all the same."""

    def __init__(self, refused: Refused, events: Sequence[Event] = ()):
        super().__init__(refused.reason)
        self.refused = refused
        self.events = events


def reserve(connection: Connection, intent: Intent, owners: Sequence[Owner], in_force: InForce) -> None:
    """Sets the hold of an attempt about to be sent aside on every budget of its path, and writes its row. Raises HoldRefused.
    `intent.window`: by the database's clock."""
    reserve_all(connection, [intent], owners, in_force)


def reserve_all(connection: Connection, intents: Sequence[Intent], owners: Sequence[Owner], in_force: InForce) -> None:
    """The same of several attempts of one path and window: all of them or none."""
    batch = Batch()
    for intent in intents:
        batch.add_unsettled(intent)
    write_batch(connection, batch)
    admit(connection, owners, sum(intent.hold_nanousd for intent in intents), intents[0].window, in_force)
    Balances().write(connection, _NO_JOURNAL, batch, now_ms=intents[0].sent_ms)


def admit(connection: Connection, owners: Sequence[Owner], hold_nanousd: int, month: str, in_force: InForce) -> None:
    """Raises HoldRefused unless so much more fits every budget of the owners; in this transaction nobody else can take it."""
    is_its = is_any_of((_b.scope, _b.account_id, _b.owner_id), list(owners))
    found = {row.id: row for row in connection.execute(select(budgets).where(is_its, _b.limit_nanousd.is_not(None)).order_by(_b.id))}
    places = [(row.id, window_of(row.window_kind, month)) for row in found.values()]
    states = lock_windows(connection, places)
    for place in places:
        row = found[place[0]]
        states[place].limit = row.limit_nanousd
        if row.version > in_force.version or row.id in in_force.settling:
            raise HoldRefused(Refused(0, CHANGING, row.id))
    wants = [Want(budget_id, hold_nanousd, hold_nanousd) for budget_id in found]
    outcome = grant(wants, [states[place] for place in places], journals=1)
    if not isinstance(outcome, Given):
        row = found[outcome.budget_id]
        refused = refusal_of(outcome, row, states[row.id, window_of(row.window_kind, month)], month)
        raise HoldRefused(refused, exhausted_events(refused, row, month))


def settle_reserved(connection: Connection, settled: Settled, now_ms: int) -> bool:
    """The end of such an attempt, with its call: what was reserved is spent, or free again. False where it has ended before (an operator
    has resolved it): then only its call is written, if it has none."""
    call = settled.call
    assert call is not None
    which = (_a.call_id == call.call_id) & (_a.attempt_id == settled.attempt_id)
    row = connection.execute(select(attempts).where(which, _a.end == UNSETTLED).with_for_update()).one_or_none()
    if row is None:
        end_call(connection, call, now_ms)
        return False
    values = dict(zip(_SETTLED, astuple(settled)[1:17], strict=True))
    connection.execute(update(attempts).where(which).values(**values, reserved_nanousd=0))
    batch = Batch()
    batch.end_reserved(Intent(**{name: getattr(row, name) for name in _INTENT}), settled, row.reserved_nanousd)
    batch.add_call(call)
    Balances().write(connection, _NO_JOURNAL, write_batch(connection, batch), now_ms=now_ms)
    return True


def end_call(connection: Connection, call: CallEnd, now_ms: int) -> None:
    """The call of an attempt that stays as it is: reserved, or resolved before. Does nothing where it has its row."""
    cost_nanousd = connection.execute(select(_a.cost_nanousd).where(_a.call_id == call.call_id)).scalar() or 0
    batch = Batch()
    batch.add_call(replace(call, cost_nanousd=cost_nanousd))
    Balances().write(connection, _NO_JOURNAL, write_batch(connection, batch, is_careful=True), now_ms=now_ms)
