"""The model's database: the tables of the money in memory, changed only by the functions of core/budget.py, a transaction a method.

The keeper's SQL does the same with rows on disk; nothing else of it is modelled.
"""

from __future__ import annotations

import msgspec

from aigate.core.budget import (
    ACCOUNT,
    BY_MONTH,
    KEY,
    TAG,
    Change,
    Changes,
    Given,
    Over,
    Owner,
    Place,
    Short,
    Want,
    WindowRow,
    grant,
    resolve,
    window_of,
)
from aigate.journal.records import (
    ADOPTED,
    INTENT,
    RESTATED,
    RETURNED,
    SETTLED,
    Intent,
    decode_intent,
    decode_leases,
    decode_settled,
)
from aigate.messages import Granted

ACCOUNT_ID = "acc"
OWNERS: dict[int, Owner] = {
    1: (ACCOUNT, ACCOUNT_ID, ACCOUNT_ID),
    2: (KEY, ACCOUNT_ID, "key-a"),
    3: (KEY, ACCOUNT_ID, "key-b"),
    4: (TAG, ACCOUNT_ID, "tag"),
}
PATHS = ((1, 2), (1, 3), (1, 3, 4))  # who may call: budgets of the owners, limited or not
IDS = {owner: budget_id for budget_id, owner in OWNERS.items()}

Records = list[tuple[int, bytes]]


class Budget(msgspec.Struct):
    limit: int | None
    kind: str = BY_MONTH
    version: int = 1


class Row(msgspec.Struct, frozen=True):
    """Of the ledger: one attempt that was sent."""

    intent: Intent
    cost: int | None  # None: unsettled
    is_resolved: bool = False


class Store:
    """Everything that a backup holds."""

    def __init__(self, limits: dict[int, int | None], kinds: dict[int, str]):
        self.budgets = {b: Budget(limits.get(b), kinds.get(b, BY_MONTH)) for b in OWNERS}
        self.windows: dict[Place, WindowRow] = {}
        self.leases: dict[str, dict[Place, int]] = {}
        self.grants: dict[tuple[str, int], Granted] = {}
        self.rows: dict[str, Row] = {}
        self.shipped: dict[str, int] = {}
        self.sealed: set[str] = set()
        self.seq = 0
        self.version = 1  # from the start: 0 is the worker that knows none

    def window(self, place: Place) -> WindowRow:
        return self.windows.setdefault(place, WindowRow(None))

    def owners_places(self, intent: Intent) -> list[Place]:
        ids = [1, IDS[KEY, ACCOUNT_ID, intent.key_id]] + ([4] if intent.tag else [])
        return [(b, window_of(self.budgets[b].kind, intent.window)) for b in ids]

    # --- transactions ---------------------------------------------------------------------------------------------------------

    def grant(
        self, journal_id: str, number: int, wants: tuple[Want, ...], *, month: str, journals: int, is_scarce: bool
    ) -> Granted | Short | Over:
        known = self.grants.get((journal_id, number))
        if known is not None:
            return known
        places = [(want.budget_id, window_of(self.budgets[want.budget_id].kind, month)) for want in wants]
        rows = [self.window(place) for place in places]
        for (budget_id, _), row in zip(places, rows, strict=True):
            row.limit = self.budgets[budget_id].limit
        outcome = grant(wants, rows, journals=journals, is_scarce=is_scarce)
        if not isinstance(outcome, Given):
            return outcome
        leases = self.leases.setdefault(journal_id, {})
        for place, row, amount, want in zip(places, rows, outcome.amounts, wants, strict=True):
            row.leased += amount
            leases[place] = leases.get(place, 0) + amount
            if want.need and row.limit is not None:
                assert row.spent + row.reserved + row.leased <= row.limit, "a grant went past the limit"
        self.seq += 1
        given = tuple((*place, amount) for place, amount in zip(places, outcome.amounts, strict=True))
        answer = self.grants[journal_id, number] = Granted(number, self.seq, given, outcome.tight)
        return answer

    def ship(self, journal_id: str, records: Records, *, start: int, end: int, is_seal: bool = False) -> bool:
        """Records up to `end` are in the tables; False where somebody has shipped from `start` before."""
        if journal_id in self.sealed or self.shipped.get(journal_id, 0) != start:
            return False
        changes = Changes()
        open_intents: dict[str, Intent] = {}
        for at, (kind, body) in enumerate(records[:end]):
            if kind == INTENT:
                intent = decode_intent(body)
                open_intents[intent.attempt_id] = intent
            elif kind == SETTLED:
                settled = decode_settled(body)
                intent = open_intents.pop(settled.attempt_id)
                if at >= start:
                    self._add_row(Row(intent, settled.cost_nanousd))
                    for place in self.owners_places(intent):
                        changes.spend(place, settled.cost_nanousd)
                    changes.end_leases(settled.charges)
            elif at >= start:
                tell = {RETURNED: changes.end_leases, ADOPTED: changes.adopt, RESTATED: changes.restate}[kind]
                tell(decode_leases(body).leases)
        if is_seal:
            for intent in open_intents.values():
                self._add_row(Row(intent, None))
                for place in self.owners_places(intent):
                    changes.reserve(place, intent.hold_nanousd)
            changes.seal()
            self.sealed.add(journal_id)
        self._apply(journal_id, changes)
        self.shipped[journal_id] = end
        return True

    def resolve(self, attempt_id: str, cost: int | None) -> None:
        row = self.rows[attempt_id]
        assert row.cost is None and not row.is_resolved
        self.rows[attempt_id] = Row(row.intent, cost, is_resolved=True)
        for place in self.owners_places(row.intent):
            self._add(place, resolve(row.intent.hold_nanousd, cost))

    def set_limit(self, budget_id: int, limit: int | None) -> None:
        self.version += 1
        self.budgets[budget_id].limit = limit
        self.budgets[budget_id].version = self.version

    # --- parts of them --------------------------------------------------------------------------------------------------------

    def _add_row(self, row: Row) -> None:
        assert row.intent.attempt_id not in self.rows, "a second row of one attempt"
        self.rows[row.intent.attempt_id] = row

    def _apply(self, journal_id: str, changes: Changes) -> None:
        leases = self.leases.setdefault(journal_id, {})
        before = leases if changes.is_whole else {place: leases.get(place, 0) for place in changes.places}
        windows, after = changes.result(before)
        for place, change in windows.items():
            self._add(place, change)
        leases.update(after)
        for place in [place for place, amount in leases.items() if not amount]:
            del leases[place]

    def _add(self, place: Place, change: Change) -> None:
        row = self.window(place)
        row.spent += change.spent
        row.reserved += change.reserved
        row.leased += change.leased

    def check(self) -> None:
        for place, row in self.windows.items():
            assert min(row.spent, row.reserved, row.leased) >= 0, (place, row)
            assert row.leased == sum(leases.get(place, 0) for leases in self.leases.values()), place


def month_of(sent_ms: int) -> str:
    """The model's time is a count of months."""
    return f"2026-{sent_ms:02d}"
