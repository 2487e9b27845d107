"""`verify`: recomputes the whole ledger from its own rows. Reads only, in pages, within one snapshot of the database.

*Wrong* findings mean that a bill cannot be trusted; *notes* are true things an operator should see (unsettled attempts, overruns,
calls still running or cut off by a crash, journals with bytes still to ship).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Row, Table, distinct, exists, func, select, text, tuple_

from aigate.core.price import price_usage
from aigate.core.target import Price
from aigate.core.usage import Usage
from aigate.journal.reader import JournalReader, Position
from aigate.journal.segment import BadSegment
from aigate.keeper.db.ledger_rows import UNSETTLED, TotalsKey, month_of
from aigate.keeper.db.prices import prices_by_id
from aigate.keeper.db.tables import attempts, calls, journals, usage_totals

PAGE_ROWS = 5000
_USAGE = Usage.__struct_fields__

# kind of finding → what is wrong, for people
WRONG = {
    "cost": "the cost is not what its usage costs at its price",
    "price": "its price is not in the table of prices",
    "call_cost": "the call's cost is not the sum of its attempts",
    "attempts": "attempts of the call are missing or numbered twice",
    "totals": "the month's totals are not the sum of its rows",
    "journal": "a journal is damaged, missing or unreadable",
}
NOTES = {
    UNSETTLED: "sent, and never settled: the process died; nothing billed, the hold is kept",
    "overrun": "cost more than was held for it",
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
    check.check_journals(None if journals_folder is None else Path(journals_folder))
    return check.report


class _Check:
    """One run: the report so far, and the totals as the rows give them."""

    def __init__(self, connection: Connection, findings_a_kind: int):
        self.report = Report()
        self._connection = connection
        self._findings_a_kind = findings_a_kind
        self._totals: dict[TotalsKey, list[int]] = {}
        self._prices: dict[str, Price] = {}

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
        usage = Usage(*[getattr(row, name) for name in _USAGE])
        if row.price_id and row.price_id not in self._prices:
            self._find("price", row.attempt_id, row.price_id)
        else:
            expected = price_usage(self._prices.get(row.price_id), usage)
            if row.cost_nanousd != expected:
                self._find("cost", row.attempt_id, f"row says {row.cost_nanousd} nano-dollars, recomputed {expected}")
        if row.end == UNSETTLED:
            self._find(UNSETTLED, row.attempt_id, f"{row.reserved_nanousd} nano-dollars held")
        elif row.cost_nanousd > row.hold_nanousd:
            self._find("overrun", row.attempt_id, f"cost {row.cost_nanousd}, held {row.hold_nanousd} nano-dollars")
        self._add(row.window or month_of(row.sent_ms), row, (0, 1, row.cost_nanousd, row.input_tokens, row.output_tokens))

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
        names = ("requests", "attempts", "cost_nanousd", "input_tokens", "output_tokens")
        for row in self._connection.execute(select(usage_totals)):
            key = (row.month, row.account_id, row.key_id, row.sub_account_id, row.tag)
            kept, summed = [getattr(row, name) for name in names], self._totals.pop(key, [0] * 5)
            if kept != summed:
                self._find("totals", " ".join(key), f"kept {kept}, rows give {summed}")
        for key, summed in self._totals.items():
            self._find("totals", " ".join(key), f"nothing kept, rows give {summed}")

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


def _pages(connection: Connection, table: Table) -> Iterator[list[Row]]:
    """All rows in key order, never more than a page in memory."""
    key = list(table.primary_key.columns)
    query = select(table).order_by(*key).limit(PAGE_ROWS)
    page = connection.execute(query).all()
    while page:
        yield list(page)
        last = [getattr(page[-1], column.name) for column in key]
        page = connection.execute(query.where(tuple_(*key) > tuple_(*last))).all()
