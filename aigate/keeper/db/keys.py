"""Queries over client keys. Only digests are stored; a revoked key's row stays, as its usage speaks of it."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, Row, insert, select, update

from aigate.core.call import Principal
from aigate.core.client_key import ClientKey
from aigate.keeper.db.engine import Database
from aigate.keeper.db.tables import accounts, keys


class KeyStore:
    """The keys of one database."""

    def __init__(self, database: Database):
        self._database = database

    async def add(self, key: ClientKey) -> None:
        await self._database.write(add_keys, [key])

    async def revoke(self, key_id: str, now_ms: int) -> ClientKey | None:
        """The key, revoked now or before; None where there is none of this id."""
        return await self._database.write(revoke_key, key_id, now_ms)

    async def get(self, key_id: str) -> ClientKey | None:
        return await self._database.read(get_key, key_id)

    async def list(self, limit: int, before_id: str | None) -> list[ClientKey]:
        return await self._database.read(list_keys, limit, before_id)

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Principal]:
        return await self._database.read(find_principals, digests)


def add_keys(connection: Connection, new: Sequence[ClientKey]) -> None:
    connection.execute(insert(keys), [_to_row(key) for key in new])


def revoke_key(connection: Connection, key_id: str, now_ms: int) -> ClientKey | None:
    connection.execute(update(keys).where(keys.c.id == key_id, keys.c.revoked_ms.is_(None)).values(revoked_ms=now_ms))
    return get_key(connection, key_id)


def get_key(connection: Connection, key_id: str) -> ClientKey | None:
    row = connection.execute(select(keys).where(keys.c.id == key_id)).one_or_none()
    return None if row is None else _from_row(row)


def list_keys(connection: Connection, limit: int, before_id: str | None) -> list[ClientKey]:
    """Newest first (ids rise with time), from the one before `before_id` on."""
    query = select(keys).order_by(keys.c.id.desc()).limit(limit)
    if before_id is not None:
        query = query.where(keys.c.id < before_id)
    return [_from_row(row) for row in connection.execute(query)]


def find_principals(connection: Connection, digests: Sequence[bytes]) -> dict[bytes, Principal]:
    """Those of the digests that are keys in force."""
    rows = connection.execute(select(keys).where(keys.c.digest.in_(digests), keys.c.revoked_ms.is_(None)))
    found = (_from_row(row) for row in rows)
    return {key.digest: principal for key in found if (principal := key.principal())}


def add_account_if_missing(connection: Connection, account_id: str, now_ms: int) -> None:
    if connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).one_or_none() is None:
        connection.execute(insert(accounts).values(id=account_id, name="default", created_ms=now_ms))


def _to_row(key: ClientKey) -> dict[str, object]:
    return msgspec.structs.asdict(key) | {"allowed_models": msgspec.json.encode(key.allowed_models).decode()}


def _from_row(row: Row[tuple[object, ...]]) -> ClientKey:
    fields = dict(row._mapping)
    fields["allowed_models"] = msgspec.json.decode(fields["allowed_models"], type=tuple[str, ...])
    return ClientKey(**fields)
