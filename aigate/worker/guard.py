"""Connections of the worker to hosts that a caller named: each is dialled by the address that the guard has judged."""

from __future__ import annotations

import asyncio
import ssl

from aigate.guard import Guard
from aigate.worker.client import Origin, Pool
from aigate.worker.upstream_connection import Connection


class GuardedPool(Pool):
    """A pool for a few fetches, closed after them: origins that callers choose must not pile up."""

    def __init__(self, guard: Guard, *, connect_timeout_s: float, tls: ssl.SSLContext, loop: asyncio.AbstractEventLoop):
        super().__init__(connect_timeout_s=connect_timeout_s, tls=tls, loop=loop)
        self._guard = guard

    async def _dial(self, origin: Origin, connection: Connection) -> None:
        addresses = await self._guard.addresses(origin.host, origin.port)
        for address in addresses[:-1]:
            try:
                return await self._dial_tcp(address, origin, connection)
            except OSError:
                continue  # another address of it may answer; the last one's error counts
        await self._dial_tcp(addresses[-1], origin, connection)
