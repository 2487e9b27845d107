"""Queries over webhook secrets and endpoints. What is sealed is only ever seen by the vault."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, Row, delete, func, insert, select, update

from aigate.core.account import Whose
from aigate.core.caller_url import read_caller_url
from aigate.core.webhook import FAILED, PENDING, Endpoint
from aigate.keeper.db.webhook_tables import webhook_deliveries, webhook_endpoints, webhook_secrets

MAX_URL_CHARS = 2048

_endpoint, _secret, _delivery = webhook_endpoints.c, webhook_secrets.c, webhook_deliveries.c


def mine(columns: Mapping[str, Column], whose: Whose) -> tuple[ColumnElement[bool], ...]:
    """What a caller may see (api/access.py own_rows) of rows that name their owner."""
    named = [(columns["sub_account_id"], whose.sub_account_id), (columns["key_id"], whose.key_id)]
    return (columns["account_id"] == whose.account_id, *(column == value for column, value in named if value is not None))


# --- secrets ---


def get_secret(connection: Connection, owner_id: str) -> Row | None:
    return connection.execute(select(webhook_secrets).where(_secret.owner_id == owner_id)).one_or_none()


def put_secret(connection: Connection, values: Mapping[str, object]) -> None:
    """In place of the owner's earlier one."""
    connection.execute(delete(webhook_secrets).where(_secret.owner_id == values["owner_id"]))
    connection.execute(insert(webhook_secrets).values(values))


def rewrap_secrets(connection: Connection, rewrap: Callable[[bytes, str], bytes]) -> int:
    """How many there are. `rewrap`: given what is sealed, and its owner's id."""
    rows = connection.execute(select(webhook_secrets)).all()
    for row in rows:
        values = {name: sealed and rewrap(sealed, row.owner_id) for name, sealed in (("sealed", row.sealed), ("previous", row.previous))}
        connection.execute(update(webhook_secrets).where(_secret.owner_id == row.owner_id).values(values))
    return len(rows)


# --- endpoints ---


def add_endpoint(connection: Connection, new: Endpoint) -> None:
    connection.execute(insert(webhook_endpoints).values(_to_row(new)))


def count_endpoints(connection: Connection, account_id: str) -> int:
    return connection.execute(select(func.count()).where(_endpoint.account_id == account_id)).scalar_one()


def list_endpoints(connection: Connection, whose: Whose) -> list[Endpoint]:
    """Newest first."""
    query = select(webhook_endpoints).where(*mine(_endpoint, whose)).order_by(_endpoint.id.desc())
    return [endpoint_of(row) for row in connection.execute(query)]


def get_endpoint(connection: Connection, whose: Whose, endpoint_id: str) -> Endpoint | None:
    row = connection.execute(select(webhook_endpoints).where(*mine(_endpoint, whose), _endpoint.id == endpoint_id)).one_or_none()
    return None if row is None else endpoint_of(row)


def change_endpoint(connection: Connection, whose: Whose, endpoint_id: str, changes: Mapping[str, object]) -> Endpoint | None:
    """What is on its way goes to the new URL; of an endpoint that is disabled, it ends."""
    found = get_endpoint(connection, whose, endpoint_id)
    if found is None:
        return None
    changed = msgspec.structs.replace(found, **changes)  # type: ignore[arg-type]
    connection.execute(update(webhook_endpoints).where(_endpoint.id == endpoint_id).values(_to_row(changed)))
    if changed.url != found.url:
        moved = update(webhook_deliveries).where(*_on_its_way(endpoint_id))
        connection.execute(moved.values(url=changed.url, host=host_of(changed.url)))
    if changed.disabled_ms is not None:
        _end_deliveries(connection, endpoint_id, changed.disabled_ms)
    return changed


def remove_endpoint(connection: Connection, whose: Whose, endpoint_id: str, now_ms: int) -> bool:
    if get_endpoint(connection, whose, endpoint_id) is None:
        return False
    connection.execute(delete(webhook_endpoints).where(_endpoint.id == endpoint_id))
    connection.execute(delete(webhook_secrets).where(_secret.owner_id == endpoint_id))
    _end_deliveries(connection, endpoint_id, now_ms)
    return True


def host_of(url: str) -> str:
    try:
        return read_caller_url(url, MAX_URL_CHARS).authority
    except ValueError:
        return ""  # it was checked at intake; if its rules have changed since, the delivery will say so


def endpoint_of(row: Row) -> Endpoint:
    return Endpoint(**{**row._mapping, "events": msgspec.json.decode(row.events, type=tuple[str, ...])})


def _to_row(endpoint: Endpoint) -> dict[str, object]:
    return {**msgspec.structs.asdict(endpoint), "events": msgspec.json.encode(endpoint.events).decode()}


def _on_its_way(endpoint_id: str) -> tuple[ColumnElement[bool], ...]:
    return _delivery.endpoint_id == endpoint_id, _delivery.status == PENDING


def _end_deliveries(connection: Connection, endpoint_id: str, now_ms: int) -> None:
    connection.execute(update(webhook_deliveries).where(*_on_its_way(endpoint_id)).values(status=FAILED, due_ms=None, ended_ms=now_ms))
