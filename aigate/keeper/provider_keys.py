"""Callers' own keys for providers, kept sealed. A key opens only together with its id, its owner and the origin that it is for."""

from __future__ import annotations

from sqlalchemy import Connection

from aigate.core.account import ProviderKey
from aigate.keeper.db.engine import Database
from aigate.keeper.db.provider_keys import (
    add_provider_key,
    find_sealed,
    get_provider_key,
    list_provider_keys,
    revoke_provider_key,
    rewrap_all,
)
from aigate.keeper.db.webhooks import rewrap_secrets
from aigate.keeper.vault import Vault
from aigate.keeper.webhooks.secrets import context as secret_context


class ProviderKeyStore:
    def __init__(self, database: Database, vault: Vault):
        self._database = database
        self._vault = vault

    async def add(self, new: ProviderKey, key: str) -> None:
        await self._database.write(self._add, new, key)

    async def revoke(self, account_id: str, key_id: str, now_ms: int) -> ProviderKey | None:
        return await self._database.write(revoke_provider_key, account_id, key_id, now_ms)

    async def get(self, account_id: str, key_id: str) -> ProviderKey | None:
        return await self._database.read(get_provider_key, account_id, key_id)

    async def list(self, account_id: str) -> list[ProviderKey]:
        return await self._database.read(list_provider_keys, account_id)

    async def reveal(self, account_id: str, sub_account_id: str | None, key_id: str) -> tuple[ProviderKey, str] | None:
        """The key in the clear, for the worker that is about to use it; None where it is not in force or not this caller's."""
        return await self._database.read(self._reveal, account_id, sub_account_id, key_id)

    async def rotate(self) -> int:
        """Seals all of them, and what else the vault sealed, under a new key (the newest given one, where keys are a setting). How many there are."""
        return await self._database.write(self._rotate)

    def _add(self, connection: Connection, new: ProviderKey, key: str) -> None:
        add_provider_key(connection, new, self._vault.seal(key.encode(), _context(new)))

    def _reveal(self, connection: Connection, account_id: str, sub_account_id: str | None, key_id: str) -> tuple[ProviderKey, str] | None:
        found = find_sealed(connection, account_id, sub_account_id, key_id)
        return None if found is None else (found[0], self._vault.open(found[1], _context(found[0])).decode())

    def _rotate(self, connection: Connection) -> int:
        if self._vault.has_file:
            self._vault.add_key()  # on disk before anything is sealed with it
        rewrap_secrets(connection, lambda sealed, owner_id: self._vault.rewrap(sealed, secret_context(owner_id)))
        return rewrap_all(connection, lambda row, sealed: self._vault.rewrap(sealed, _context(row)))


def _context(row: ProviderKey) -> bytes:
    return "\0".join((row.id, row.account_id, row.sub_account_id or "", row.provider, row.origin)).encode()
