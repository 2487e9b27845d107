"""Links to results that need no key: HMAC over job, file, expiry and the signing key's id, checked in constant time.

Signing keys are in the database, sealed; the newest signs, an older one is good until it is retired, so a rotation breaks no link at once.
"""

from __future__ import annotations

import secrets
import time

from sqlalchemy import Connection, insert, or_, select, update

from aigate.core.job_links import LinkKey
from aigate.keeper.db.engine import Database
from aigate.keeper.db.job_tables import signing_keys
from aigate.keeper.vault import Vault

KNOWN_S = 60.0  # so late may a rotation by another keeper be seen
_s = signing_keys.c


class LinkKeys:
    """Remembers the keys in force for a minute."""

    def __init__(self, database: Database, vault: Vault):
        self._database = database
        self._vault = vault
        self._keys: dict[str, bytes] = {}  # newest first
        self._read_at = -KNOWN_S

    async def key(self) -> LinkKey:
        """That signs now; made when it is first needed."""
        await self._refresh()
        if not self._keys:
            await self.rotate(0)
        key_id = next(iter(self._keys))
        return LinkKey(key_id, self._keys[key_id])

    async def find(self, key_id: str) -> LinkKey | None:
        await self._refresh()
        if key_id not in self._keys:
            self._read_at = min(self._read_at, time.monotonic() - KNOWN_S + 1)  # another keeper may just have made it
        secret = self._keys.get(key_id)
        return None if secret is None else LinkKey(key_id, secret)

    async def rotate(self, overlap_s: int) -> str:
        """A new key; links of those before are refused `overlap_s` from now. The id of the new one."""
        now_ms = int(time.time() * 1000)
        key_id, secret = f"fk_{now_ms:011x}{secrets.token_hex(4)}", secrets.token_bytes(32)
        sealed = self._vault.seal(secret, _context(key_id))
        await self._database.write(_rotate, {"id": key_id, "sealed": sealed, "created_ms": now_ms}, now_ms + overlap_s * 1000)
        self._read_at = -KNOWN_S
        await self._refresh()
        return key_id

    async def _refresh(self) -> None:
        if time.monotonic() - self._read_at < KNOWN_S:
            return
        rows = await self._database.read(_in_force, int(time.time() * 1000))
        self._keys = {key_id: self._vault.open(sealed, _context(key_id)) for key_id, sealed in rows}
        self._read_at = time.monotonic()


def _rotate(connection: Connection, row: dict[str, object], retired_ms: int) -> None:
    connection.execute(update(signing_keys).where(or_(_s.retired_ms.is_(None), _s.retired_ms > retired_ms)).values(retired_ms=retired_ms))
    connection.execute(insert(signing_keys).values(row))


def _in_force(connection: Connection, now_ms: int) -> list[tuple[str, bytes]]:
    query = select(_s.id, _s.sealed).where(or_(_s.retired_ms.is_(None), _s.retired_ms > now_ms)).order_by(_s.created_ms.desc(), _s.id.desc())
    return [(row[0], row[1]) for row in connection.execute(query)]


def _context(key_id: str) -> bytes:
    return b"signing key\0" + key_id.encode()

