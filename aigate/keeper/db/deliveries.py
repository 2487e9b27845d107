"""Queries over deliveries: made from the outbox, found when they are due, and what each try came to. Each runs in one transaction."""

from __future__ import annotations

import hashlib
import secrets
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Row, delete, exists, insert, select, update

from aigate.core.account import Whose
from aigate.core.webhook import DELIVERED, FAILED, MAX_TRIES_KEPT, PENDING, Delivery, Endpoint, Try, envelope
from aigate.keeper.db.tables import outbox
from aigate.keeper.db.webhook_tables import webhook_deliveries, webhook_endpoints
from aigate.keeper.db.webhooks import endpoint_of, host_of, mine

EVENTS_A_STEP = 200
ROWS_A_STEP = 500

_column, _event = webhook_deliveries.c, outbox.c
_read_tries = msgspec.json.Decoder(tuple[Try, ...]).decode


def has_waiting_events(connection: Connection) -> bool:
    return connection.execute(select(_event.id).where(_event.delivered_ms.is_(None)).limit(1)).first() is not None


def hand_over_events(connection: Connection, now_ms: int) -> int:
    """Makes the deliveries of events that wait, in the transaction that marks these: each once. How many events there were."""
    waiting = select(outbox).where(_event.delivered_ms.is_(None)).order_by(_event.created_ms, _event.id).limit(EVENTS_A_STEP)
    events = connection.execute(waiting).all()
    if not events:
        return 0
    endpoints = _endpoints_of(connection, {event.account_id for event in events})
    rows = [row for event in events for row in _deliveries_of(event, endpoints[event.account_id], now_ms)]
    if rows:
        connection.execute(insert(webhook_deliveries), rows)
    connection.execute(update(outbox).where(_event.id.in_([event.id for event in events])).values(delivered_ms=now_ms))
    return len(events)


def due_deliveries(connection: Connection, now_ms: int, limit: int, *, but_hosts: Collection[str], but_ids: Collection[str]) -> list[Delivery]:
    """What has been due longest first; of a lane only the one that stands in front."""
    before = webhook_deliveries.alias()
    is_behind = exists().where(before.c.lane == _column.lane, before.c.status == PENDING, before.c.number < _column.number)
    query = select(webhook_deliveries).where(
        _column.status == PENDING, _column.due_ms <= now_ms, _column.host.not_in(but_hosts), _column.id.not_in(but_ids), ~is_behind
    )
    return [_delivery_of(row) for row in connection.execute(query.order_by(_column.due_ms, _column.number).limit(limit))]


def record_try(connection: Connection, delivery_id: str, done: Try, due_ms: int | None) -> None:
    """`due_ms`: of the next one, where this one failed; None = it was the last. Nothing where the delivery has ended meanwhile."""
    which = (_column.id == delivery_id, _column.status == PENDING)
    row = connection.execute(select(webhook_deliveries).where(*which)).one_or_none()
    if row is None:
        return
    tries = (*_read_tries(row.tries), done)[-MAX_TRIES_KEPT:]
    values = {"attempts": row.attempts + 1, "round": row.round + 1, "tries": msgspec.json.encode(tries).decode(), "due_ms": due_ms}
    if done.is_success or due_ms is None:
        values |= {"status": DELIVERED if done.is_success else FAILED, "ended_ms": done.at_ms + done.took_ms, "due_ms": None}
    connection.execute(update(webhook_deliveries).where(*which).values(values))


def list_deliveries(
    connection: Connection, whose: Whose, filters: Mapping[str, str], limit: int, before: int | None = None
) -> list[Delivery]:
    """Newest first, from the one before `before` on. `filters`: columns and what they must be."""
    query = select(webhook_deliveries).where(*mine(_column, whose), *(_column[name] == value for name, value in filters.items()))
    if before is not None:
        query = query.where(_column.number < before)
    return [_delivery_of(row) for row in connection.execute(query.order_by(_column.number.desc()).limit(limit))]


def get_delivery(connection: Connection, whose: Whose, delivery_id: str) -> Delivery | None:
    found = list_deliveries(connection, whose, {"id": delivery_id}, 1)
    return found[0] if found else None


def send_again(connection: Connection, whose: Whose, delivery_id: str, now_ms: int) -> Delivery | None:
    """Due now, with all its tries before it. One that is on its way only becomes due."""
    found = get_delivery(connection, whose, delivery_id)
    if found is None:
        return None
    values: dict[str, object] = {"status": PENDING, "due_ms": now_ms, "round": 0, "ended_ms": None}
    if found.endpoint_id is not None:  # its URL may have changed since
        url = connection.execute(select(webhook_endpoints.c.url).where(webhook_endpoints.c.id == found.endpoint_id)).scalar_one_or_none()
        if url is None:
            return found
        values |= {"url": url, "host": host_of(url)}
    connection.execute(update(webhook_deliveries).where(_column.id == delivery_id).values(values))
    return get_delivery(connection, whose, delivery_id)


def remove_old_deliveries(connection: Connection, before_ms: int, events_before_ms: int) -> bool:
    """Some that have ended, and some events that were handed over; whether there may be more."""
    old = select(_column.number).where(_column.created_ms < before_ms, _column.status != PENDING).limit(ROWS_A_STEP)
    removed = connection.execute(delete(webhook_deliveries).where(_column.number.in_(old))).rowcount
    old_events = select(_event.id).where(_event.created_ms < events_before_ms, _event.delivered_ms.is_not(None)).limit(ROWS_A_STEP)
    removed += connection.execute(delete(outbox).where(_event.id.in_(old_events))).rowcount
    return removed >= ROWS_A_STEP


def _endpoints_of(connection: Connection, account_ids: Collection[str]) -> dict[str, list[Endpoint]]:
    found: dict[str, list[Endpoint]] = defaultdict(list)
    query = select(webhook_endpoints).where(webhook_endpoints.c.account_id.in_(account_ids)).order_by(webhook_endpoints.c.id)
    for row in connection.execute(query):
        found[row.account_id].append(endpoint_of(row))
    return found


def _deliveries_of(event: Row, endpoints: Sequence[Endpoint], now_ms: int) -> list[dict[str, object]]:
    """An endpoint hears of nothing that was before it."""
    rows = []
    if event.url:
        request = Endpoint(
            id="", account_id=event.account_id, sub_account_id=event.sub_account_id, key_id=event.key_id, url=event.url, created_ms=now_ms
        )
        rows.append(_new_delivery(event, request, event.payload, now_ms))
    body = envelope(event.id, event.type, event.created_ms, event.payload)
    for endpoint in endpoints:
        if endpoint.created_ms <= event.created_ms and endpoint.hears_of(event.type, event.sub_account_id, event.key_id):
            rows.append(_new_delivery(event, endpoint, body, now_ms))
    return rows


def _new_delivery(event: Row, receiver: Endpoint, body: str, now_ms: int) -> dict[str, object]:
    delivery_id = f"dlv_{now_ms:011x}{secrets.token_hex(6)}"
    lane = f"{receiver.id or receiver.url} {event.subject}" if event.subject else delivery_id
    return {
        "id": delivery_id,
        "event_id": event.id,
        "event_type": event.type,
        "account_id": receiver.account_id,
        "sub_account_id": receiver.sub_account_id,
        "key_id": receiver.key_id,
        "endpoint_id": receiver.id or None,
        "url": receiver.url,
        "host": host_of(receiver.url),
        "lane": hashlib.sha256(lane.encode()).hexdigest()[:32],  # short enough for an index, whatever the URL
        "subject": event.subject,
        "body": body,
        "status": PENDING,
        "attempts": 0,
        "round": 0,
        "tries": "[]",
        "due_ms": now_ms,
        "created_ms": now_ms,
        "ended_ms": None,
    }


def _delivery_of(row: Row) -> Delivery:
    return Delivery(**{name: row._mapping[name] for name in Delivery.__struct_fields__ if name != "tries"}, tries=_read_tries(row.tries))
