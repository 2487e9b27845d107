"""`verify`: recomputes the whole ledger from its own rows. Reads only, in pages, within one snapshot of the database.

*Wrong* findings mean that a bill cannot be trusted; *notes* are true things an operator should see (unsettled attempts, overruns,
calls still running or cut off by a crash, journals with bytes still to ship).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
from sqlalchemy import Connection, Row, Table, distinct, exists, func, select, text, tuple_

from aigate.core.budget import Owner, Place
from aigate.core.price import price_units, price_usage, units_of
from aigate.core.target import Price
from aigate.core.usage import Usage
from aigate.journal.reader import JournalReader, Position
from aigate.journal.segment import BadSegment
from aigate.keeper.db.balances import owners_of
from aigate.keeper.db.evals import reserved_by_evals
from aigate.keeper.db.ledger_rows import RESOLVED, UNSETTLED, Share, month_of
from aigate.keeper.db.prices import prices_by_id
from aigate.keeper.db.tables import attempts, budgets, calls, journals, leases, meta, usage_days, usage_totals, windows

PAGE_ROWS = 5000
_SUMS = ("requests", "attempts", "cost_nanousd", "input_tokens", "output_tokens")
_Key = TypeVar("_Key")
_USAGE = Usage.__struct_fields__

# kind of finding → what is wrong, for people
WRONG = {
    "cost": "the cost is not what its usage costs at its price",
    "price": "its price is not in the table of prices",
    "call_cost": "the call's cost is not the sum of its attempts",
    "attempts": "attempts of the call are missing or numbered twice",
    "totals": "the month's totals are not the sum of its rows",
    "days": "the sums by day are not the month's totals",
    "balance": "what a budget has spent or reserved is not the sum of its owner's rows",
    "lease": "what is leased of a budget is not the sum of the journals' leases, or a journal that has ended still holds some",
    "journal": "a journal is damaged, missing or unreadable",
}
NOTES = {
    UNSETTLED: "sent, and never settled: the process died; nothing billed, the hold is kept",
    RESOLVED: "was unsettled, until an operator said what it cost",
    "overrun": "cost more than was held for it",
    "over_limit": "spent, reserved and leased are more than the limit: an overrun, or the limit was lowered",
    "no_call": "an attempt whose call has no end: still running, or cut off by a crash",
    "unshipped": "bytes of a journal that are not in the tables yet",
}


class Finding(msgspec.Struct, frozen=True):
    kind: str  # a key of WRONG or NOTES
    subject: str  # id of the attempt, call or journal
    detail: str


class Report(msgspec.Struct):
    """`counts` by kind is complete; `findings` has the first few of each kind."""

    attempts: int = 0
    calls: int = 0
    cost_nanousd: int = 0
    reserved_nanousd: int = 0
    unshipped_bytes: int = 0
    counts: dict[str, int] = msgspec.field(default_factory=Counter)
    findings: list[Finding] = []

    @property
    def is_sound(self) -> bool:
        return not any(self.counts.get(kind) for kind in WRONG)


def verify(connection: Connection, journals_folder: str | os.PathLike[str] | None = None, *, findings_a_kind: int = 10) -> Report:
    """Without `journals_folder` the journals' bytes are not looked at (the database of another machine)."""
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ"))
    check = _Check(connection, findings_a_kind)
    check.check_attempts()
    check.check_calls()
    check.check_totals()
    check.check_balances()
    check.check_leases()
    check.check_journals(None if journals_folder is None else Path(journals_folder))
    return check.report


class _Check:
    """One run: the report so far, and the totals as the rows give them."""

    def __init__(self, connection: Connection, findings_a_kind: int):
        self.report = Report()
        self._connection = connection
        self._findings_a_kind = findings_a_kind
        self._totals: dict[tuple[str, ...], list[int]] = {}  # month, account, key, sub-account, tag; as the rows give them
        self._kept_totals: list[Row] = []
        self._reserved: dict[tuple[Owner, str], int] = {}
        self._prices: dict[str, Price] = {}
        self._kept_month = connection.execute(select(meta.c.value).where(meta.c.name == "kept_month")).scalar() or ""

    def check_attempts(self) -> None:
        for page in _pages(self._connection, attempts):
            self._prices.update(prices_by_id(self._connection, {row.price_id for row in page} - self._prices.keys()))
            for row in page:
                self._check_attempt(row)
        attempts_of_call = exists().where(calls.c.call_id == attempts.c.call_id)
        open_ones = select(attempts.c.attempt_id).where(~attempts_of_call)
        for row in self._connection.execution_options(yield_per=PAGE_ROWS).execute(open_ones):
            self._find("no_call", row.attempt_id, "")

    def _check_attempt(self, row: Row) -> None:
        report = self.report
        report.attempts += 1
        report.cost_nanousd += row.cost_nanousd
        report.reserved_nanousd += row.reserved_nanousd
        month = row.window or month_of(row.sent_ms)
        usage = Usage(*[getattr(row, name) for name in _USAGE])
        if row.end == RESOLVED:
            self._find(RESOLVED, row.attempt_id, f"{row.cost_nanousd} nano-dollars")
        elif row.price_id and row.price_id not in self._prices:
            self._find("price", row.attempt_id, row.price_id)
        else:
            price = self._prices.get(row.price_id)
            expected = price_usage(price, usage) + price_units(price, units_of(row.raw_usage))
            if row.cost_nanousd != expected:
                self._find("cost", row.attempt_id, f"row says {row.cost_nanousd} nano-dollars, recomputed {expected}")
        if row.end == UNSETTLED:
            self._find(UNSETTLED, row.attempt_id, f"{row.reserved_nanousd} nano-dollars held")
            for owner, window in _owners(row, month):
                self._reserved[owner, window] = self._reserved.get((owner, window), 0) + row.reserved_nanousd
        elif row.cost_nanousd > row.hold_nanousd:
            self._find("overrun", row.attempt_id, f"cost {row.cost_nanousd}, held {row.hold_nanousd} nano-dollars")
        self._add(month, row, (0, 1, row.cost_nanousd, row.input_tokens, row.output_tokens))

    def check_calls(self) -> None:
        for page in _pages(self._connection, calls):
            sums = self._sums_of_attempts(page[0].call_id, page[-1].call_id)
            for row in page:
                count, highest, cost_nanousd = sums.get(row.call_id, (0, 0, 0))
                self.report.calls += 1
                if row.cost_nanousd != cost_nanousd:
                    self._find("call_cost", row.call_id, f"call says {row.cost_nanousd}, its attempts {cost_nanousd} nano-dollars")
                if not row.attempts == count == highest:
                    self._find("attempts", row.call_id, f"call says {row.attempts}, there are {count} numbers up to {highest}")
                self._add(month_of(row.started_ms), row, (1, 0, 0, 0, 0))

    def _sums_of_attempts(self, first: str, last: str) -> dict[str, tuple[int, int, int]]:
        column = attempts.c
        query = (
            select(column.call_id, func.count(distinct(column.number)), func.max(column.number), func.sum(column.cost_nanousd))
            .where(column.call_id >= first, column.call_id <= last)
            .group_by(column.call_id)
        )
        return {row[0]: (row[1], row[2], int(row[3])) for row in self._connection.execute(query)}

    def check_totals(self) -> None:
        self._kept_totals = list(self._connection.execute(select(usage_totals)))
        for row in self._kept_totals:
            key = (row.month, row.account_id, row.key_id, row.sub_account_id, row.tag)
            kept, summed = _sums(row), self._totals.pop(key, [0] * 5)
            if kept != summed and row.month >= self._kept_month:
                self._find("totals", " ".join(key), f"kept {kept}, rows give {summed}")
        for key, summed in self._totals.items():
            if key[0] >= self._kept_month:
                self._find("totals", " ".join(key), f"nothing kept, rows give {summed}")
        self._check_days()

    def _check_days(self) -> None:
        expected: dict[tuple[str, ...], list[int]] = {}
        for row in self._kept_totals:
            for owner_id in {"", row.key_id, row.sub_account_id}:
                _add_to(expected, (row.account_id, owner_id, row.month), _sums(row))
        column = usage_days.c
        place = (column.account_id, column.owner_id, column.month)
        query = select(*place, *[func.sum(column[name]).label(name) for name in _SUMS]).group_by(*place)
        for row in self._connection.execute(query):
            key, summed = (row.account_id, row.owner_id, row.month), _sums(row)
            if expected.pop(key, None) != summed:
                self._find("days", " ".join(key), f"days give {summed}")
        for key in expected:
            self._find("days", " ".join(key), "no days kept")

    def check_balances(self) -> None:
        expected: dict[tuple[Owner, str], list[int]] = {}
        for row in self._kept_totals:
            for owner, window in _owners(row, row.month):
                _add_to(expected, (owner, window), _sums(row))
        for share, reserved in reserved_by_evals(self._connection):
            for place in owners_of(share):
                self._reserved[place] = self._reserved.get(place, 0) + reserved
        for row in self._connection.execute(select(budgets, windows).join(windows, windows.c.budget_id == budgets.c.id)):
            key = ((row.scope, row.account_id, row.owner_id), row.window)
            subject = " ".join((*key[0], row.window))
            kept = [row.requests, row.attempts, row.spent_nanousd, row.input_tokens, row.output_tokens]
            summed, reserved = expected.pop(key, [0] * 5), self._reserved.pop(key, 0)
            if kept != summed or row.reserved_nanousd != reserved:
                self._find("balance", subject, f"kept {kept} and {row.reserved_nanousd} reserved, rows give {summed} and {reserved}")
            total, limit = row.spent_nanousd + row.reserved_nanousd + row.leased_nanousd, row.limit_nanousd
            if limit is not None and total > limit:
                self._find("over_limit", subject, f"{total} of {limit} nano-dollars")
        for owner, window in expected.keys() | self._reserved.keys():
            self._find("balance", " ".join((*owner, window)), "nothing kept")

    def check_leases(self) -> None:
        summed: dict[Place, int] = {}
        query = select(leases, journals.c.sealed_ms, journals.c.damage).outerjoin(journals, journals.c.id == leases.c.journal_id)
        for row in self._connection.execute(query):
            place = (row.budget_id, row.window)
            summed[place] = summed.get(place, 0) + row.amount_nanousd
            if row.amount_nanousd and (row.damage is None or row.sealed_ms is not None and not row.damage):
                self._find("lease", f"{row.journal_id} {row.budget_id} {row.window}", f"{row.amount_nanousd} nano-dollars")
        for row in self._connection.execute(select(windows)):
            given = summed.pop((row.budget_id, row.window), 0)
            if row.leased_nanousd != given:
                self._find("lease", f"{row.budget_id} {row.window}", f"{row.leased_nanousd} leased, journals hold {given} nano-dollars")
        for (budget_id, window), given in summed.items():
            self._find("lease", f"{budget_id} {window}", f"nothing leased, journals hold {given} nano-dollars")

    def check_journals(self, folder: Path | None) -> None:
        rows = {row.id: row for row in self._connection.execute(select(journals))}
        for row in rows.values():
            if row.damage:
                self._find("journal", row.id, row.damage)
            elif folder is not None and row.sealed_ms is None and not (folder / row.id).is_dir():
                self._find("journal", row.id, "its folder is gone before it was shipped to its end")
        if folder is None or not folder.is_dir():
            return
        for name in sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith(".")):
            row = rows.get(name)
            if row is None or row.sealed_ms is None:
                self._check_unshipped(folder / name, row)

    def _check_unshipped(self, folder: Path, row: Row | None) -> None:
        reader = JournalReader(folder) if row is None else JournalReader(folder, Position(row.shipped_segment, row.shipped_offset))
        try:
            size_bytes = 0
            while records := reader.read():
                size_bytes += sum(len(body) for _, body, _, _ in records)
        except (BadSegment, OSError) as error:
            self._find("journal", folder.name, str(error))
            return
        finally:
            reader.close()
        if size_bytes:
            self.report.unshipped_bytes += size_bytes
            self._find("unshipped", folder.name, f"{size_bytes} bytes of records")

    def _add(self, month: str, owner: Row, amounts: tuple[int, ...]) -> None:
        key = (month, owner.account_id, owner.key_id, owner.sub_account_id or "", owner.tag or "")
        total = self._totals.setdefault(key, [0] * 5)
        for place, amount in enumerate(amounts):
            total[place] += amount

    def _find(self, kind: str, subject: str, detail: str) -> None:
        self.report.counts[kind] = count = self.report.counts.get(kind, 0) + 1
        if count <= self._findings_a_kind:
            self.report.findings.append(Finding(kind, subject, detail))


def _sums(row: Row) -> list[int]:
    return [int(getattr(row, name)) for name in _SUMS]


def _owners(row: Row, month: str) -> list[tuple[Owner, str]]:
    return owners_of(Share(month, "", row.account_id, row.key_id, row.sub_account_id or "", row.tag or "", ""))


def _add_to(sums: dict[_Key, list[int]], key: _Key, amounts: list[int]) -> None:
    known = sums.get(key)
    sums[key] = amounts if known is None else [a + b for a, b in zip(known, amounts, strict=True)]


def _pages(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """All rows in key order, never more than a page in memory."""
    key = list(table.primary_key.columns)
    query = select(table).order_by(*key).limit(PAGE_ROWS)
    page = connection.execute(query).all()
    while page:
        yield list(page)
        last = [getattr(page[-1], column.name) for column in key]
        page = connection.execute(query.where(tuple_(*key) > tuple_(*last))).all()
