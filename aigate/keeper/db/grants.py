"""Grants: lease of budgets given to journals. The arithmetic is core/budget.py's; here are the rows.

Rows of `windows` are locked in the order of their ids, so that two keepers on one database agree who comes first.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from sqlalchemy import Connection, Row, bindparam, delete, select, text, tuple_

from aigate.core.account import HARD, Standing
from aigate.core.budget import ALL_TIME, Given, Lease, Over, Place, Short, WindowRow, grant, window_of
from aigate.keeper.db.ledger_rows import insert_rows, write_sums
from aigate.keeper.db.limits import FindMonth
from aigate.keeper.db.outbox import Event, add_events, refusal_events
from aigate.keeper.db.tables import budgets, grants, journals, leases, meta, windows
from aigate.messages import Grant, Granted, Refused

OVER, LEASED, UNAVAILABLE = "over", "leased", "unavailable"  # Refused.reason
CHANGING, QUEUED = "changing", "queued"  # never sent: the limit changes at this moment; somebody earlier falls short of the same budget
RETRY_S = 1.0  # running calls settle within seconds

_b, _w, _g = budgets.c, windows.c, grants.c
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Granted).decode


class Asked(msgspec.Struct, frozen=True):
    """`has_waited`: it was found short before."""

    journal_id: str
    grant: Grant
    has_waited: bool = False


def month_now(connection: Connection) -> str:
    """By the database's clock, which all keepers share."""
    is_sqlite = connection.dialect.name == "sqlite"
    return connection.execute(_SQLITE_MONTH if is_sqlite else _POSTGRESQL_MONTH).scalar_one()


def grant_seq(connection: Connection) -> int:
    return int(connection.execute(_SEQ).scalar_one())


def answer_grants(
    connection: Connection, asked: Sequence[Asked], *, journals_living: int, limits_version: int, find_month: FindMonth
) -> list[Granted | Refused]:
    """One transaction for all, in their order: what an ask falls short of is not given to a later one. Where the reason is LEASED, the
    answer changes once leases come back; where CHANGING (limits newer than `limits_version`), once the workers know the limit; where
    QUEUED, once those ahead have gone."""
    round_ = _Round(connection, asked, find_month(connection))
    answers = [round_.answer(ask, journals_living, limits_version) for ask in asked]
    round_.write()
    return answers


class _Round:
    """One transaction's rows, and what was decided on them so far."""

    def __init__(self, connection: Connection, asked: Sequence[Asked], month: str):
        self._connection = connection
        self._asked = asked
        self._month = month
        ids = sorted({want.budget_id for ask in asked for want in ask.grant.wants})
        self._budgets = self._read_budgets(ids)
        places = [(budget_id, window_of(row.window_kind, month)) for budget_id, row in sorted(self._budgets.items())]
        self._windows = lock_windows(connection, places)
        if connection.dialect.name != "sqlite":
            self._budgets = self._read_budgets(ids)  # another keeper may have changed a limit while this one waited for the rows
        for (budget_id, _), window in self._windows.items():
            window.limit = self._budgets[budget_id].limit_nanousd
        self._living = set(
            connection.execute(_LIVING, {"ids": list({ask.journal_id for ask in asked})}).scalars()
        )
        self._first_answers = first_answers(connection, [(ask.journal_id, ask.grant.number) for ask in asked])
        self._seq = self._first_seq = int(connection.execute(_SEQ.with_for_update()).scalar_one())
        self._waiting = Counter(want.budget_id for ask in asked if ask.has_waited for want in ask.grant.wants)
        self._blocked: set[int] = set()  # somebody earlier falls short of it
        self._leased: dict[tuple[str, int, str], int] = {}
        self._new: list[tuple[str, Granted]] = []
        self._refused: list[Refused] = []

    def answer(self, ask: Asked, journals_living: int, limits_version: int) -> Granted | Refused:
        wants, number = ask.grant.wants, ask.grant.number
        known = self._first_answers.get((ask.journal_id, number))
        if known is not None:
            return known
        if ask.has_waited:
            self._waiting.subtract(want.budget_id for want in wants)
        rows = [self._budgets.get(want.budget_id) for want in wants]
        if ask.journal_id not in self._living or None in rows:
            return Refused(number, UNAVAILABLE, retry_after_s=RETRY_S)
        if any(row.version > limits_version for row in rows if row is not None):
            self._blocked.update(want.budget_id for want in wants)
            return Refused(number, CHANGING)
        places = [(want.budget_id, window_of(row.window_kind, self._month)) for want, row in zip(wants, rows, strict=True) if row]
        is_scarce = any(self._waiting[want.budget_id] > 0 or want.budget_id in self._blocked for want in wants)
        outcome = grant(wants, [self._windows[place] for place in places], journals=journals_living, is_scarce=is_scarce)
        if not isinstance(outcome, Over) and any(want.need and want.budget_id in self._blocked for want in wants):
            self._blocked.update(want.budget_id for want in wants)
            return Refused(number, QUEUED)
        if isinstance(outcome, Given):
            return self._give(ask, places, outcome)
        if isinstance(outcome, Short):
            self._blocked.update(want.budget_id for want in wants)
        refused = self._refusal(number, outcome)
        self._refused.append(refused)
        return refused

    def _give(self, ask: Asked, places: Sequence[Place], given: Given) -> Granted:
        granted: list[Lease] = []
        for place, amount in zip(places, given.amounts, strict=True):
            self._windows[place].leased += amount
            key = (ask.journal_id, *place)
            self._leased[key] = self._leased.get(key, 0) + amount
            granted.append((*place, amount))
        self._seq += 1
        answer = Granted(ask.grant.number, self._seq, tuple(granted), given.tight)
        self._first_answers[ask.journal_id, answer.number] = answer
        self._new.append((ask.journal_id, answer))
        return answer

    def _refusal(self, number: int, outcome: Over | Short) -> Refused:
        row = self._budgets[outcome.budget_id]
        return refusal_of(outcome, row, self._windows[row.id, window_of(row.window_kind, self._month)], self._month, number=number)

    def write(self) -> None:
        connection = self._connection
        if self._new:
            by_place: dict[Place, list[int]] = {}
            for (_, budget_id, window), amount in self._leased.items():
                known = by_place.setdefault((budget_id, window), [0] * 7)
                known[2] += amount
            write_sums(connection, windows, by_place)  # type: ignore[arg-type]
            write_sums(connection, leases, {key: [amount] for key, amount in self._leased.items()})
            rows = [(journal_id, answer.number, _encode(answer)) for journal_id, answer in self._new]
            connection.exec_driver_sql(insert_rows(connection, grants), rows)
            connection.execute(_RAISE_SEQ, {"by": self._seq - self._first_seq})
        answered = {ask.journal_id: ask.grant.answered for ask in self._asked if ask.grant.answered}
        if answered:
            connection.execute(_FORGET, [{"journal": journal_id, "up_to": number} for journal_id, number in answered.items()])
        self._tell_exhausted()

    def _tell_exhausted(self) -> None:
        events = [event for refused in self._refused for event in exhausted_events(refused, self._budgets[refused.budget_id], self._month)]
        if events:
            add_events(self._connection, events, int(time.time() * 1000))

    def _read_budgets(self, ids: Sequence[int]) -> dict[int, Row]:
        return {row.id: row for row in self._connection.execute(_BUDGETS, {"ids": ids})}


def refusal_of(outcome: Over | Short, row: Row, state: WindowRow, month: str, *, number: int = 0) -> Refused:
    """What is said of a budget (its `row`, and where it stands) that an ask does not fit."""
    window = window_of(row.window_kind, month)
    is_over = isinstance(outcome, Over)
    return Refused(
        number,
        OVER if is_over else LEASED,
        outcome.budget_id,
        scope=row.scope,
        limit=state.limit or 0,
        spent=state.spent,
        reserved=state.reserved,
        leased=state.leased,
        available=0 if row.mode == HARD else outcome.available,
        resets_at=None if window == ALL_TIME else end_of_month(window),
        retry_after_s=None if is_over else RETRY_S,
    )


def exhausted_events(refused: Refused, row: Row, month: str) -> list[Event]:
    if refused.reason != OVER:
        return []
    standing = Standing(
        owner=(row.scope, row.account_id, row.owner_id),
        budget_id=row.id,
        limit_nanousd=refused.limit,
        window=window_of(row.window_kind, month),
        spent=refused.spent,
    )
    return refusal_events(standing, refused.limit - refused.spent - refused.reserved)


def first_answers(connection: Connection, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Granted]:
    """What was granted before, by journal and number."""
    journal_ids, numbers = {journal_id for journal_id, _ in keys}, {number for _, number in keys}
    rows = connection.execute(_FIRST_ANSWERS, {"keys": list(keys), "journals": list(journal_ids), "numbers": list(numbers)})
    return {(row.journal_id, row.number): _decode(row.answer) for row in rows}


def forget_grants(connection: Connection) -> None:
    """Answers to journals that have ended, and leases that came to nothing."""
    ended = select(journals.c.id).where(journals.c.sealed_ms.is_not(None))
    connection.execute(delete(grants).where(_g.journal_id.in_(ended)))
    connection.execute(delete(leases).where(leases.c.amount_nanousd == 0))


def end_of_month(month: str) -> float:
    year, number = int(month[:4]), int(month[5:])
    return datetime(year + number // 12, number % 12 + 1, 1, tzinfo=UTC).timestamp()


def lock_windows(connection: Connection, places: Sequence[Place]) -> dict[Place, WindowRow]:
    """The rows, made where they are missing: what is not there cannot be locked."""
    found = _read_windows(connection, places)
    missing = [place for place in places if place not in found]
    if missing:
        write_sums(connection, windows, {place: [0] * 7 for place in missing})
        found = _read_windows(connection, places)
    return found


def _read_windows(connection: Connection, places: Iterable[Place]) -> dict[Place, WindowRow]:
    places = list(places)
    rows = connection.execute(_WINDOWS, {"places": places, "ids": [budget_id for budget_id, _ in places]})
    return {(row[0], row[1]): WindowRow(None, row[2], row[3], row[4]) for row in rows}


_SQLITE_MONTH = text("SELECT strftime('%Y-%m', 'now')")
_POSTGRESQL_MONTH = text("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM')")
_SEQ = select(meta.c.value).where(meta.c.name == "grant_seq")
_RAISE_SEQ = text("UPDATE meta SET value = CAST(CAST(value AS BIGINT) + :by AS TEXT) WHERE name = 'grant_seq'")
_BUDGETS = select(budgets).where(_b.id.in_(bindparam("ids", expanding=True)))
# What is a list of rows is also said by column: SQLite would scan the table for the rows alone.
_WINDOWS = (
    select(_w.budget_id, _w.window, _w.spent_nanousd, _w.reserved_nanousd, _w.leased_nanousd)
    .where(tuple_(_w.budget_id, _w.window).in_(bindparam("places", expanding=True)), _w.budget_id.in_(bindparam("ids", expanding=True)))
    .order_by(_w.budget_id, _w.window)
    .with_for_update()
)
_LIVING = select(journals.c.id).where(journals.c.id.in_(bindparam("ids", expanding=True)), journals.c.sealed_ms.is_(None))
_FIRST_ANSWERS = select(grants).where(
    tuple_(_g.journal_id, _g.number).in_(bindparam("keys", expanding=True)),
    _g.journal_id.in_(bindparam("journals", expanding=True)),
    _g.number.in_(bindparam("numbers", expanding=True)),
)
_FORGET = delete(grants).where(_g.journal_id == bindparam("journal"), _g.number <= bindparam("up_to"))
