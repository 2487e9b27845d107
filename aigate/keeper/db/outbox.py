"""Events for others, written in the transaction of their cause. Owns which there are and when; keeper/webhooks/ delivers them.

    add_events(connection, [Event("job.completed", account_id, f"job.completed {job_id}", record,
                                  sub_account_id=…, key_id=…, url=webhook_url, subject=job_id)], now_ms)

The `url` (checked at intake, guarded.py check_url) gets the payload itself, signed with the secret of `key_id`; registered endpoints of the
account, the sub-account or the key get {id, type, created, data: payload}. New types are named in core/webhook.py EVENT_TYPES.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable

import msgspec
from sqlalchemy import Connection

from aigate.core.account import Standing
from aigate.core.budget import ACCOUNT, KEY, SUB_ACCOUNT
from aigate.core.price import format_cents
from aigate.journal.records import Intent, Settled
from aigate.keeper.db.ledger_rows import insert_rows
from aigate.keeper.db.tables import outbox

USAGE_THRESHOLD = "usage.threshold"
SUB_ACCOUNT_EXHAUSTED = "sub_account.budget.exhausted"
BALANCE_LOW = "balance.low"
BUDGET_OVERRUN = "budget.overrun"
KEY_ROTATED = "key.rotated"

THRESHOLDS_PERCENT = (50, 80, 100)
LOW_PERCENT = 90  # of the credit is spent
EXHAUSTED_PERCENT = 5  # a refusal with no more than this left is the end, not one call too large


class Event(msgspec.Struct, frozen=True):
    """`cause`: what makes it this event; the same cause again adds nothing. Whose it is: always the account's, and the key's and sub-account's."""

    type: str
    account_id: str
    cause: str
    payload: dict[str, object]
    sub_account_id: str | None = None
    key_id: str | None = None
    url: str | None = None
    subject: str = ""  # a receiver gets events of one subject in their order


def add_events(connection: Connection, events: Iterable[Event], now_ms: int) -> None:
    rows = [
        (f"evt_{now_ms:011x}{place:04x}{secrets.token_hex(4)}", event.type, event.account_id, _json(event.payload), event.cause, now_ms, None,
         event.sub_account_id, event.key_id, event.url, event.subject)
        for place, event in enumerate(events)
    ]  # fmt: skip
    if rows:
        connection.exec_driver_sql(insert_rows(connection, outbox), rows)


def threshold_events(before: Standing, after: Standing) -> list[Event]:
    """Of one budget whose spending rose or whose limit changed. Compared with what it was, so that a limit raised arms them again."""
    if after.limit_nanousd is None:
        return []
    events = [
        _event(USAGE_THRESHOLD, after, threshold_percent=percent)
        for percent in THRESHOLDS_PERCENT
        if _is_past(after, percent) and not _is_past(before, percent)
    ]
    if after.owner[0] == ACCOUNT and _is_past(after, LOW_PERCENT) and not _is_past(before, LOW_PERCENT):
        events.append(_event(BALANCE_LOW, after))
    if after.owner[0] == SUB_ACCOUNT and _is_past(after, 100) and not _is_past(before, 100):
        events.append(_event(SUB_ACCOUNT_EXHAUSTED, after))
    return events


def refusal_events(standing: Standing, available: int) -> list[Event]:
    """Of a hold that was refused because `available` is all that is left."""
    limit = standing.limit_nanousd
    if standing.owner[0] == SUB_ACCOUNT and limit is not None and available * 100 <= limit * EXHAUSTED_PERCENT:
        return [_event(SUB_ACCOUNT_EXHAUSTED, standing)]
    return []


def overrun_event(intent: Intent, settled: Settled) -> Event:
    payload: dict[str, object] = {
        "attempt_id": intent.attempt_id,
        "model": intent.model,
        "held_cents": _cents(intent.hold_nanousd),
        "cost_cents": _cents(settled.cost_nanousd),
        "key_id": intent.key_id,
        "sub_account_id": intent.sub_account_id,
    }
    cause = f"{BUDGET_OVERRUN} {intent.attempt_id}"
    return Event(BUDGET_OVERRUN, intent.account_id, cause, payload, sub_account_id=intent.sub_account_id, key_id=intent.key_id)


def _is_past(standing: Standing, percent: int) -> bool:
    limit = standing.limit_nanousd
    return limit is not None and standing.spent * 100 >= limit * percent


def _event(type_: str, standing: Standing, **more: int) -> Event:
    scope, account_id, owner_id = standing.owner
    limit = standing.limit_nanousd or 0
    payload: dict[str, object] = {
        "scope": scope,
        "id": owner_id,
        "window": standing.window,
        "limit_cents": _cents(limit),
        "spent_cents": _cents(standing.spent),
        **more,
    }
    which = " ".join(map(str, more.values()))
    return Event(
        type_,
        account_id,
        f"{type_} {standing.budget_id} {standing.window} {limit} {which}".rstrip(),
        payload,
        sub_account_id=owner_id if scope == SUB_ACCOUNT else None,
        key_id=owner_id if scope == KEY else None,
        subject=f"budget {standing.budget_id}",
    )


def _cents(nanousd: int) -> float:
    return float(format_cents(nanousd))


def _json(payload: dict[str, object]) -> str:
    return msgspec.json.encode(payload).decode()
