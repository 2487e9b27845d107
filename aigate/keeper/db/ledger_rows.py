"""Journal records as ledger rows: owns how a batch of them is written, once. The transaction and the journal's offset are the shipper's.

Rows are tuples in column order, inserted in bulk. A row that is there already is left as it is, so a replay changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import NamedTuple

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Connection, Table, select

from aigate.core.budget import Lease, Place
from aigate.journal.records import RETURNED, CallEnd, Intent, Settled
from aigate.keeper.db.tables import attempts, calls, usage_days, usage_totals

UNSETTLED = "unsettled"
RESOLVED = "resolved"  # was unsettled, until an operator said what it cost
_NOTHING_SETTLED = (UNSETTLED, "", 0, 0, 0, 0, 0, 0, 0, 0, "", 0, "", 0, -1, b"")
_MAX_INTEGER = 2**63 - 1
_LEASES = list(Intent.__struct_fields__).index("leases")

Row = tuple[object, ...]
Move = tuple[int, dict[Place, int]]  # kind of journal record, and its leases; RETURNED also stands for the charges of settled ones


class Share(NamedTuple):
    """Whom and what an amount belongs to; "" = none."""

    month: str  # of its window
    day: str
    account_id: str
    key_id: str
    sub_account_id: str
    tag: str
    model: str


class AlreadyThere(Exception):
    """Some rows of the batch exist: write it again with `is_careful`."""


class Batch:
    """The rows of some journal records, what they add to the sums, and what they do to the journal's leases, in its order."""

    __slots__ = ("attempts", "calls", "totals", "moves", "overruns", "_ended")

    def __init__(self) -> None:
        self.attempts: list[Row] = []
        self.calls: list[Row] = []
        self.totals: dict[Share, list[int]] = {}  # requests, attempts, nano-dollars, input and output tokens, nano-dollars reserved
        self.moves: list[Move] = []
        self._ended: dict[Place, int] | None = None  # of the last move, while it is RETURNED: falls add up, whatever their order
        self.overruns: list[tuple[Intent, Settled]] = []  # of attempts on leases

    def add_attempt(self, intent: Intent, settled: Settled) -> None:
        self.attempts.append(_intent_columns(intent) + astuple(settled)[1:17] + (0,))
        total = self._attempt_total(intent)
        total[1] += 1
        total[2] += settled.cost_nanousd
        total[3] += settled.input_tokens
        total[4] += settled.output_tokens
        if settled.charges:
            self._end_leases(settled.charges)
            if settled.cost_nanousd > intent.hold_nanousd:
                self.overruns.append((intent, settled))

    def add_unsettled(self, intent: Intent) -> None:
        """Sent, and never heard of again: nothing billed, the hold kept."""
        self.attempts.append(_intent_columns(intent) + _NOTHING_SETTLED + (intent.hold_nanousd,))
        total = self._attempt_total(intent)
        total[1] += 1
        total[5] += intent.hold_nanousd

    def end_reserved(self, intent: Intent, settled: Settled, reserved_nanousd: int) -> None:
        """Of an attempt that is in the table, unsettled: its row is its owner's to change, here is what its end adds to the sums."""
        total = self._attempt_total(intent)
        total[2] += settled.cost_nanousd
        total[3] += settled.input_tokens
        total[4] += settled.output_tokens
        total[5] -= reserved_nanousd
        if settled.cost_nanousd > intent.hold_nanousd:
            self.overruns.append((intent, settled))

    def add_call(self, call: CallEnd) -> None:
        self.calls.append(astuple(call))
        month, day = calendar_of(call.started_ms)
        self._total((month, day, call.account_id, call.key_id, call.sub_account_id or "", call.tag or "", call.served_by))[0] += 1

    def add_leases(self, kind: int, leases: tuple[Lease, ...]) -> None:
        if kind == RETURNED:
            self._end_leases(leases)
            return
        moved: dict[Place, int] = {}
        _add_leases(moved, leases)
        self.moves.append((kind, moved))
        self._ended = None

    def _end_leases(self, leases: tuple[Lease, ...]) -> None:
        if self._ended is None:
            self._ended = {}
            self.moves.append((RETURNED, self._ended))
        _add_leases(self._ended, leases)

    def _attempt_total(self, intent: Intent) -> list[int]:
        month, day = calendar_of(intent.sent_ms)
        owner = (intent.account_id, intent.key_id, intent.sub_account_id or "", intent.tag or "")
        return self._total((intent.window or month, day, *owner, intent.model))

    def _total(self, share: tuple[str, ...]) -> list[int]:
        try:
            return self.totals[share]  # type: ignore[index]
        except KeyError:
            total = self.totals[Share(*share)] = [0] * 6
            return total


def _add_leases(sums: dict[Place, int], leases: tuple[Lease, ...]) -> None:
    for budget_id, window, amount in leases:
        place = (budget_id, window)
        sums[place] = sums.get(place, 0) + amount


def write_batch(connection: Connection, batch: Batch, *, is_careful: bool = False) -> Batch:
    """Inserts the rows, adds their sums to the usage, and returns what was written. Raises AlreadyThere where a row exists; with
    `is_careful` looks for such rows first and mends values that the database cannot hold (a NUL in a text, an integer beyond 64 bits)."""
    if is_careful:
        batch = _only_new(connection, batch)
    for table, rows in ((attempts, batch.attempts), (calls, batch.calls)):
        if rows and connection.exec_driver_sql(insert_rows(connection, table), rows).rowcount != len(rows):
            raise AlreadyThere
    write_usage(connection, batch.totals)
    return batch


def write_usage(connection: Connection, totals: dict[Share, list[int]]) -> None:
    by_month: dict[Row, list[int]] = {}
    by_day: dict[Row, list[int]] = {}
    for share, total in totals.items():
        month, day, account_id, key_id, sub_account_id, tag, model = map(storable, share)
        add_up(by_month, (month, account_id, key_id, sub_account_id, tag), total[:5])
        for owner_id in {"", key_id, sub_account_id}:
            add_up(by_day, (account_id, owner_id, month, day, model), total[:5])
    for table, sums in ((usage_totals, by_month), (usage_days, by_day)):
        write_sums(connection, table, sums)


def add_up(sums: dict[Row, list[int]], key: Row, amounts: Sequence[int]) -> None:
    known = sums.get(key)
    sums[key] = list(amounts) if known is None else [a + b for a, b in zip(known, amounts, strict=True)]


def write_sums(connection: Connection, table: Table, sums: dict[Row, list[int]]) -> None:
    """Adds to rows by key. In key order: two keepers on one database must lock rows in the same order."""
    if sums:
        rows = [(*key, *map(storable, sums[key])) for key in sorted(sums)]  # type: ignore[type-var]
        connection.exec_driver_sql(insert_rows(connection, table, adds=True), rows)


def month_of(unix_ms: int) -> str:
    """UTC calendar month, "YYYY-MM"."""
    return calendar_of(unix_ms)[0]


def calendar_of(unix_ms: int) -> tuple[str, str]:
    """UTC calendar month and day, "YYYY-MM" and "YYYY-MM-DD"."""
    number = unix_ms // 86_400_000
    try:
        return _calendar[number]
    except KeyError:
        if len(_calendar) > 1000:
            _calendar.clear()
        moment = datetime.fromtimestamp(max(0, min(number, _LAST_DAY)) * 86_400, UTC)
        month = f"{moment.year:04d}-{moment.month:02d}"
        _calendar[number] = month, f"{month}-{moment.day:02d}"
        return _calendar[number]


_calendar: dict[int, tuple[str, str]] = {}
_LAST_DAY = 2_932_896  # of year 9999


def _intent_columns(intent: Intent) -> Row:
    row = astuple(intent)
    leases = msgspec.json.encode(intent.leases).decode() if intent.leases else ""
    return row[:_LEASES] + (leases,) + row[_LEASES + 1 :]


def _only_new(connection: Connection, batch: Batch) -> Batch:
    """The batch without the rows that exist or are twice in it, and the sums of what is left. Leases that such a row may have ended before
    are not ended again: they stay until the journal is sealed, which is safe."""
    new = Batch()
    attempt_keys = _existing(connection, attempts, ("call_id", "attempt_id"), [(str(row[1]), str(row[0])) for row in batch.attempts])
    call_keys = _existing(connection, calls, ("call_id",), [(str(row[0]),) for row in batch.calls])
    at = {column.name: index for index, column in enumerate(attempts.columns)}
    amounts = [at[name] for name in ("cost_nanousd", "input_tokens", "output_tokens", "reserved_nanousd")]
    added: set[Row] = set()
    for row in batch.attempts:
        row = tuple(map(storable, row))
        key = (row[1], row[0])
        if key not in attempt_keys:
            attempt_keys.add(key)
            added.add(key)
            new.attempts.append(row)
            total = new._attempt_total(Intent(*row[:_LEASES]))  # type: ignore[arg-type]
            total[1] += 1
            for place, index in enumerate(amounts, 2):
                total[place] += row[index]  # type: ignore[operator]
    for row in batch.calls:
        row = tuple(map(storable, row))
        if (row[0],) not in call_keys:
            call_keys.add((row[0],))
            new.add_call(CallEnd(*row))  # type: ignore[arg-type]
    is_all_new = len(new.attempts) == len(batch.attempts)
    new.moves = [move for move in batch.moves if is_all_new or move[0] != RETURNED]
    new.overruns = [(intent, settled) for intent, settled in batch.overruns if (intent.call_id, intent.attempt_id) in added]
    return new


def _existing(connection: Connection, table: Table, names: tuple[str, ...], wanted: list[tuple[str, ...]]) -> set[Row]:
    """All rows of the table that have the first name's value in common with one that is wanted."""
    columns = [table.c[name] for name in names]
    found: set[Row] = set()
    for start in range(0, len(wanted), 500):  # databases limit how many values a statement may bind
        chunk = {storable(key[0]) for key in wanted[start : start + 500]}
        found.update(tuple(row) for row in connection.execute(select(*columns).where(columns[0].in_(chunk))))
    return found


def storable(value: object) -> object:
    """What every database can hold: no NUL in a text, no integer beyond 64 bits."""
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return min(value, _MAX_INTEGER) if isinstance(value, int) and not isinstance(value, bool) else value


def insert_rows(connection: Connection, table: Table, *, adds: bool = False) -> str:
    """INSERT of every column, with the driver's own placeholders. `adds`: a row that exists grows by the new one's numbers."""
    return driver_sql(connection, _insert(table, adds))


@cache
def _insert(table: Table, adds: bool) -> str:
    names = [f'"{column.name}"' for column in table.columns]
    key = [f'"{column.name}"' for column in table.primary_key.columns]
    action = "NOTHING"
    if adds:
        action = "UPDATE SET " + ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in names if name not in key)
    target = f"({', '.join(key)}) " if adds else ""
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))}) ON CONFLICT {target}DO {action}"


def driver_sql(connection: Connection, sql: str) -> str:
    """`sql`, which marks its values with "?", as the driver wants it: what runs with every batch is not composed anew each time."""
    return sql if connection.dialect.paramstyle == "qmark" else sql.replace("?", "%s")
