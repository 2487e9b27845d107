"""The secrets that sign webhooks: of each key (for URLs given with requests) and of each endpoint. Sealed at rest, made when first needed."""

from __future__ import annotations

import base64
import os
import time

from sqlalchemy import Connection

from aigate.core.webhook import SECRET_PREFIX
from aigate.keeper.db.engine import Database
from aigate.keeper.db.webhooks import get_secret, put_secret
from aigate.keeper.vault import Vault

SECRET_BYTES = 32


class WebhookSecrets:
    def __init__(self, database: Database, vault: Vault):
        self._database = database
        self._vault = vault

    async def valid(self, owner_id: str, account_id: str) -> list[str]:
        """Newest first; the first is in force, a second one still is for a while. Made where there was none."""
        found = await self._database.read(self.read_valid, owner_id)
        return found or [await self._database.write(self.make, owner_id, account_id, 0)]

    async def rotate(self, owner_id: str, account_id: str, overlap_s: int) -> str:
        """The new one. The old one signs beside it for `overlap_s`."""
        return await self._database.write(self.make, owner_id, account_id, overlap_s)

    # --- in a transaction ---

    def read_valid(self, connection: Connection, owner_id: str) -> list[str]:
        row = get_secret(connection, owner_id)
        if row is None:
            return []
        sealed = [row.sealed]
        if row.previous is not None and row.previous_until_ms > _now_ms():
            sealed.append(row.previous)
        return [self._vault.open(each, context(owner_id)).decode() for each in sealed]

    def make(self, connection: Connection, owner_id: str, account_id: str, overlap_s: int) -> str:
        secret = SECRET_PREFIX + base64.urlsafe_b64encode(os.urandom(SECRET_BYTES)).decode().rstrip("=")
        old = get_secret(connection, owner_id)
        now_ms = _now_ms()
        overlaps = old is not None and overlap_s > 0
        put_secret(
            connection,
            {
                "owner_id": owner_id,
                "account_id": account_id,
                "sealed": self._vault.seal(secret.encode(), context(owner_id)),
                "created_ms": now_ms,
                "previous": old.sealed if overlaps else None,
                "previous_until_ms": now_ms + overlap_s * 1000 if overlaps else None,
            },
        )
        return secret


def context(owner_id: str) -> bytes:
    """What it opens together with, and with nothing else."""
    return f"webhook\0{owner_id}".encode()


def _now_ms() -> int:
    return int(time.time() * 1000)
