"""The guard: which addresses a host that a caller named may be connected to. The resolved address is judged, and it is the one connected to.

For every URL that a caller gives, and no other: an operator's own may lead to private hosts. Each redirect passes here again, as it is a
connection of its own. Used by worker and keeper; the connections are theirs.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence

from aigate.core.public_address import is_public
from aigate.errors import ClientError

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system resolves it."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Guard:
    """`permits` judges an address; all addresses of a name must pass, so that no resolver's order decides."""

    def __init__(self, *, resolve: Resolve = resolve, permits: Callable[[str], bool] = is_public):
        self._resolve = resolve
        self._permits = permits

    async def addresses(self, host: str, port: int) -> Sequence[str]:
        found = await self._resolve(host, port)
        if not found or not all(self._permits(address) for address in found):
            # Which address it was is not said: callers are not to map the operator's network.
            raise ClientError(f"{host[:200]} is not a host on the public internet", code="url_refused")
        return found
