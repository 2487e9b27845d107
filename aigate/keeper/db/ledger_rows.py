"""Journal records as ledger rows: owns how a batch of them is written, once. The transaction and the journal's offset are the shipper's.

Rows are tuples in column order, inserted in bulk. A row that is there already is left as it is, so a replay changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime

import msgspec
from msgspec.structs import astuple
from sqlalchemy import Connection, Table, select, tuple_

from aigate.journal.records import CallEnd, Intent, Settled
from aigate.keeper.db.tables import attempts, calls, usage_totals

UNSETTLED = "unsettled"
_NOTHING_SETTLED = (UNSETTLED, "", 0, 0, 0, 0, 0, 0, 0, 0, "", 0, "", 0, -1, b"")
_MAX_INTEGER = 2**63 - 1
_LEASES = list(Intent.__struct_fields__).index("leases")

Row = tuple[object, ...]
TotalsKey = tuple[str, str, str, str, str]  # month, account, key, sub-account, tag


class AlreadyThere(Exception):
    """Some rows of the batch exist: write it again with `is_careful`."""


class Batch:
    """The rows of some journal records, and what they add to the usage totals."""

    __slots__ = ("attempts", "calls", "totals")

    def __init__(self) -> None:
        self.attempts: list[Row] = []
        self.calls: list[Row] = []
        self.totals: dict[TotalsKey, list[int]] = {}  # requests, attempts, nano-dollars, input and output tokens

    def add_attempt(self, intent: Intent, settled: Settled) -> None:
        self.attempts.append(_intent_columns(intent) + astuple(settled)[1:17] + (0,))
        total = self._total(intent.window or month_of(intent.sent_ms), intent)
        total[1] += 1
        total[2] += settled.cost_nanousd
        total[3] += settled.input_tokens
        total[4] += settled.output_tokens

    def add_unsettled(self, intent: Intent) -> None:
        """Sent, and never heard of again: nothing billed, the hold kept."""
        self.attempts.append(_intent_columns(intent) + _NOTHING_SETTLED + (intent.hold_nanousd,))
        self._total(intent.window or month_of(intent.sent_ms), intent)[1] += 1

    def add_call(self, call: CallEnd) -> None:
        self.calls.append(astuple(call))
        self._total(month_of(call.started_ms), call)[0] += 1

    def _total(self, month: str, owner: Intent | CallEnd) -> list[int]:
        key = (month, owner.account_id, owner.key_id, owner.sub_account_id or "", owner.tag or "")
        try:
            return self.totals[key]
        except KeyError:
            total = self.totals[key] = [0, 0, 0, 0, 0]
            return total


def write_batch(connection: Connection, batch: Batch, *, is_careful: bool = False) -> None:
    """Inserts the batch and adds its totals. Raises AlreadyThere where a row exists; with `is_careful` looks for such rows first and
    mends values that the database cannot hold (a NUL in a text, an integer beyond 64 bits)."""
    if is_careful:
        batch = _only_new(connection, batch)
    for table, rows in ((attempts, batch.attempts), (calls, batch.calls)):
        if rows and connection.exec_driver_sql(_insert(connection, table), rows).rowcount != len(rows):
            raise AlreadyThere
    if batch.totals:
        totals = [(*map(_storable, key), *map(_storable, total)) for key, total in batch.totals.items()]
        connection.exec_driver_sql(_insert(connection, usage_totals, adds=True), totals)


def month_of(unix_ms: int) -> str:
    """UTC calendar month, "YYYY-MM"."""
    day = unix_ms // 86_400_000
    try:
        return _month_of_day[day]
    except KeyError:
        if len(_month_of_day) > 1000:
            _month_of_day.clear()
        moment = datetime.fromtimestamp(max(0, min(day, _LAST_DAY)) * 86_400, UTC)
        month = _month_of_day[day] = f"{moment.year:04d}-{moment.month:02d}"
        return month


_month_of_day: dict[int, str] = {}
_LAST_DAY = 2_932_896  # of year 9999


def _intent_columns(intent: Intent) -> Row:
    row = astuple(intent)
    leases = msgspec.json.encode(intent.leases).decode() if intent.leases else ""
    return row[:_LEASES] + (leases,) + row[_LEASES + 1 :]


def _only_new(connection: Connection, batch: Batch) -> Batch:
    """The batch without the rows that exist or are twice in it, and the totals of what is left."""
    new = Batch()
    attempt_keys = _existing(connection, attempts, ("call_id", "attempt_id"), [(str(row[1]), str(row[0])) for row in batch.attempts])
    call_keys = _existing(connection, calls, ("call_id",), [(str(row[0]),) for row in batch.calls])
    at = {column.name: index for index, column in enumerate(attempts.columns)}
    for row in batch.attempts:
        row = tuple(map(_storable, row))
        key = (row[1], row[0])
        if key not in attempt_keys:
            attempt_keys.add(key)
            new.attempts.append(row)
            owner = Intent(*row[: _LEASES])  # type: ignore[arg-type]
            total = new._total(owner.window or month_of(owner.sent_ms), owner)
            for place, name in ((2, "cost_nanousd"), (3, "input_tokens"), (4, "output_tokens")):
                total[place] += row[at[name]]  # type: ignore[operator]
            total[1] += 1
    for row in batch.calls:
        row = tuple(map(_storable, row))
        if (row[0],) not in call_keys:
            call_keys.add((row[0],))
            new.add_call(CallEnd(*row))  # type: ignore[arg-type]
    return new


def _existing(connection: Connection, table: Table, names: tuple[str, ...], wanted: list[tuple[str, ...]]) -> set[Row]:
    columns = [table.c[name] for name in names]
    found: set[Row] = set()
    for start in range(0, len(wanted), 500):  # databases limit how many values a statement may bind
        chunk = [tuple(map(_storable, key)) for key in wanted[start : start + 500]]
        found.update(tuple(row) for row in connection.execute(select(*columns).where(tuple_(*columns).in_(chunk))))
    return found


def _storable(value: object) -> object:
    if isinstance(value, str):
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    return min(value, _MAX_INTEGER) if isinstance(value, int) and not isinstance(value, bool) else value


def _insert(connection: Connection, table: Table, *, adds: bool = False) -> str:
    """INSERT of every column, with the driver's own placeholders. `adds`: a row that exists grows by the new one's numbers."""
    names = [f'"{column.name}"' for column in table.columns]
    place = "?" if connection.dialect.paramstyle == "qmark" else "%s"
    key = [f'"{column.name}"' for column in table.primary_key.columns]
    action = "NOTHING"
    if adds:
        action = "UPDATE SET " + ", ".join(f"{name} = {table.name}.{name} + excluded.{name}" for name in names if name not in key)
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({', '.join([place] * len(names))}) ON CONFLICT {_target(key, adds)}DO {action}"


def _target(key: Iterable[str], adds: bool) -> str:
    return f"({', '.join(key)}) " if adds else ""
