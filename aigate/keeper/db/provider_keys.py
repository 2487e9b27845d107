"""Queries over stored provider keys. What is sealed is only ever seen by the vault; a revoked key's row stays without it."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from aigate.core.account import ProviderKey
from aigate.keeper.db.sub_accounts import require_sub_account
from aigate.keeper.db.tables import provider_keys

_column = provider_keys.c


def add_provider_key(connection: Connection, new: ProviderKey, sealed: bytes) -> None:
    if new.sub_account_id is not None:
        require_sub_account(connection, new.account_id, new.sub_account_id)
    connection.execute(insert(provider_keys).values({**msgspec.structs.asdict(new), "sealed": sealed}))


def revoke_provider_key(connection: Connection, account_id: str, key_id: str, now_ms: int) -> ProviderKey | None:
    """As it is, revoked now or before; what was sealed is gone."""
    living = (*_which(account_id, key_id), _column.revoked_ms.is_(None))
    connection.execute(update(provider_keys).where(*living).values(revoked_ms=now_ms, sealed=b""))
    return get_provider_key(connection, account_id, key_id)


def get_provider_key(connection: Connection, account_id: str, key_id: str) -> ProviderKey | None:
    row = connection.execute(select(provider_keys).where(*_which(account_id, key_id))).one_or_none()
    return None if row is None else _from_row(row)


def list_provider_keys(connection: Connection, account_id: str) -> list[ProviderKey]:
    """Newest first."""
    return [_from_row(row) for row in connection.execute(select(provider_keys).where(_column.account_id == account_id).order_by(_column.id.desc()))]


def find_sealed(connection: Connection, account_id: str, sub_account_id: str | None, key_id: str) -> tuple[ProviderKey, bytes] | None:
    """If it is in force and the caller's: the account's, or of its own sub-account."""
    row = connection.execute(select(provider_keys).where(*_which(account_id, key_id), _column.revoked_ms.is_(None))).one_or_none()
    if row is None or row.sub_account_id not in (None, sub_account_id):
        return None
    return _from_row(row), row.sealed


def rewrap_all(connection: Connection, rewrap: Callable[[ProviderKey, bytes], bytes]) -> int:
    """How many there are."""
    rows = connection.execute(select(provider_keys).where(_column.revoked_ms.is_(None))).all()
    for row in rows:
        connection.execute(update(provider_keys).where(_column.id == row.id).values(sealed=rewrap(_from_row(row), row.sealed)))
    return len(rows)


def _which(account_id: str, key_id: str) -> tuple[ColumnElement[bool], ...]:
    return _column.id == key_id, _column.account_id == account_id


def _from_row(row: Row) -> ProviderKey:
    return ProviderKey(**{name: row._mapping[name] for name in ProviderKey.__struct_fields__})
