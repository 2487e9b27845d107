"""Queries over client keys. Only digests are stored; a revoked key's row stays, as its usage speaks of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from aigate.core.client_key import ClientKey
from aigate.keeper.db.outbox import KEY_ROTATED, Event, add_events
from aigate.keeper.db.tables import keys


def add_keys(connection: Connection, new: Sequence[ClientKey]) -> None:
    connection.execute(insert(keys), [_to_row(key) for key in new])


def revoke_key(connection: Connection, key_id: str, now_ms: int) -> ClientKey | None:
    connection.execute(update(keys).where(keys.c.id == key_id, keys.c.revoked_ms.is_(None)).values(revoked_ms=now_ms))
    return get_key(connection, key_id)


def get_key(connection: Connection, key_id: str) -> ClientKey | None:
    row = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    return None if row is None else key_of(row)


def change_key(connection: Connection, account_id: str, key_id: str, changes: Mapping[str, object]) -> ClientKey | None:
    """None: no such key in the account, or revoked."""
    found = get_key(connection, key_id)
    if found is None or found.account_id != account_id or found.revoked_ms is not None:
        return None
    changed = msgspec.structs.replace(found, **changes)  # type: ignore[arg-type]
    if changed != found:
        connection.execute(update(keys).where(keys.c.id == key_id).values(_to_row(changed)))
    return changed


def rotate_key(connection: Connection, key_id: str, *, next_digest: bytes, next_hint: str, now_ms: int) -> ClientKey | None:
    """The key gets a second digest beside its own (in place of an earlier one that was never used). None: no such key, or revoked."""
    mine = (keys.c.id == key_id, keys.c.revoked_ms.is_(None))
    if not connection.execute(update(keys).where(*mine).values(next_digest=next_digest, next_hint=next_hint)).rowcount:
        return None
    key = get_key(connection, key_id)
    assert key is not None
    payload: dict[str, object] = {"key_id": key_id, "name": key.name, "hint": key.hint, "next_hint": next_hint}
    cause = f"{KEY_ROTATED} {key_id} {next_hint} {now_ms}"
    add_events(connection, [Event(KEY_ROTATED, key.account_id, cause, payload, sub_account_id=key.sub_account_id, key_id=key_id, subject=key_id)], now_ms)
    return key


def list_keys(connection: Connection, limit: int, before_id: str | None) -> list[ClientKey]:
    """Newest first (ids rise with time), from the one before `before_id` on."""
    query = select(keys).order_by(keys.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(keys.c.id < before_id)
    return [key_of(row) for row in connection.execute(query)]


def _to_row(key: ClientKey) -> dict[str, object]:
    return msgspec.structs.asdict(key) | {"allowed_models": msgspec.json.encode(key.allowed_models).decode()}


def key_of(row: Row) -> ClientKey:
    """`row` may have other columns beside a key's."""
    fields = {name: row._mapping[name] for name in ClientKey.__struct_fields__}
    fields["allowed_models"] = msgspec.json.decode(fields["allowed_models"], type=tuple[str, ...])
    return ClientKey(**fields)
