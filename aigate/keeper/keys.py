"""Client keys as the workers and the control plane ask for them. Only digests are stored; a revoked key's row stays.

Owns the first use of a rotated key: its old digest is dead in the database before the new one is answered for, and on the workers
as soon as they have heard of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from aigate.core.call import Principal
from aigate.core.client_key import ClientKey
from aigate.keeper.db.engine import Database
from aigate.keeper.db.keys import get_key, list_keys, revoke_key
from aigate.keeper.db.principals import KeyPrincipals, find_principals, take_over

Push = Callable[[KeyPrincipals], Awaitable[bool]]


class KeyStore:
    """`push` tells the workers; it is set once there is something to tell them through."""

    def __init__(self, database: Database):
        self.push: Push | None = None
        self._database = database
        self._pushing: set[asyncio.Task[bool]] = set()

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Principal]:
        principals, is_first_use = await self._database.read(find_principals, digests)
        if is_first_use:
            dead = await self._database.write(take_over, digests)
            if dead and self.push is not None:
                # Not awaited: the worker that asks is one of those that are to answer.
                task = asyncio.get_running_loop().create_task(self.push([(digest, None) for digest in dead]))
                self._pushing.add(task)
                task.add_done_callback(self._pushing.discard)
        return principals

    async def revoke(self, key_id: str, now_ms: int) -> ClientKey | None:
        """The key, revoked now or before; None where there is none of this id."""
        return await self._database.write(revoke_key, key_id, now_ms)

    async def get(self, key_id: str) -> ClientKey | None:
        return await self._database.read(get_key, key_id)

    async def list(self, limit: int, before_id: str | None) -> list[ClientKey]:
        return await self._database.read(list_keys, limit, before_id)
