"""What the control plane's routes are given to work with, and how a route asks for it.

Shapes only: the keeper fills them with its stores (keeper/app.py), tests with whatever they like. Routes reach nothing else.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Protocol

import msgspec
from fastapi import Depends, Request

from aigate.core.call import Principal
from aigate.core.client_key import ClientKey
from aigate.journal.records import CallEnd


class KeyStore(Protocol):
    async def add(self, key: ClientKey) -> None: ...
    async def revoke(self, key_id: str, now_ms: int) -> ClientKey | None:
        """The key, revoked now or before; None where there is none of this id."""

    async def get(self, key_id: str) -> ClientKey | None: ...
    async def list(self, limit: int, before_id: str | None) -> list[ClientKey]:
        """Newest first, from the one before `before_id` on."""

    async def find(self, digests: Sequence[bytes]) -> dict[bytes, Principal]: ...


class Totals(Protocol):
    """Sums over attempts; `requests` counts calls. `tag` "" = untagged, where the sums are of one tag."""

    requests: int
    attempts: int
    cost_nanousd: int
    input_tokens: int
    output_tokens: int
    tag: str


class UsageStore(Protocol):
    """Every row of what has settled by now. `key_id` None: everybody's."""

    async def recent(self, *, limit: int, cursor: str | None, key_id: str | None) -> tuple[list[CallEnd], str | None]: ...
    async def by_tag(self, month: str, *, key_id: str | None) -> list[Totals]: ...
    async def of_month(self, month: str, *, key_id: str | None) -> Totals: ...


class Workers(Protocol):
    async def push(self, keys: Sequence[tuple[bytes, Principal | None]]) -> bool: ...
    def targets(self) -> list[dict[str, dict[str, object]]]: ...


class Services(msgspec.Struct, frozen=True, kw_only=True):
    keys: KeyStore
    usage: UsageStore
    workers: Workers
    catalog: Any  # catalog.Catalog
    key_secret: bytes
    root_key: str
    checks: Callable[[], Awaitable[dict[str, str]]]  # part of the gateway → "ok" or what is wrong with it
    metrics: Callable[[], Awaitable[bytes]]  # the Prometheus text
    log: Callable[[str], None]  # one line about a failure of ours


def get_services(request: Request) -> Services:
    return request.app.state.services


Wired = Annotated[Services, Depends(get_services)]
