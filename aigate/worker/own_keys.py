"""Callers' own provider keys: given per call in `x-byok-<provider>`, or stored and named by the body's `provider_key_id`.

A key takes the place of the operator's credential for that call, on that provider's origin and nowhere else. Such calls are metered; they
cost nothing here but the operator's fee, where there is one. Keys are never logged; stored ones are kept in memory for a minute at most, and
forgotten when the keeper says so.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Sequence

import msgspec
from msgspec.structs import replace

from aigate.catalog.load import Catalog
from aigate.core.call import Call, Principal
from aigate.core.target import Target
from aigate.errors import ClientError
from aigate.messages import OpenedKey, OpenKey
from aigate.worker.link import KeeperLink
from aigate.worker.questions import Questions
from aigate.worker.run import Run

KEPT_S = 60.0  # so long one that was revoked may still be used where the keeper cannot be heard
MAX_KEPT = 1_000

_FIELD = "provider_key_id"
_KEY = re.compile(rb"[!-~]{1,4096}")
_KEY_ID = re.compile(r"pk_[0-9A-Za-z]{1,60}")

_Whose = tuple[str, str | None, str]  # account, sub-account, key id


class OwnKeys:
    """Takes over the keeper's OpenedKey on `link`, and what its pushes say of stored keys."""

    def __init__(self, catalog: Catalog, link: KeeperLink, loop: asyncio.AbstractEventLoop):
        self._catalog = catalog
        self._loop = loop
        self._headers = {name: b"x-byok-" + name.encode() for name in catalog.providers}
        self._kept: dict[_Whose, tuple[float, OpenedKey]] = {}
        self._questions = Questions(link, loop)
        link.handlers[OpenedKey] = self._opened
        link.on_provider_keys = self._forget

    def are_given(self, run: Run, targets: Sequence[Target]) -> bool:
        assert run.call is not None
        if _FIELD in run.call.pairs:
            return True
        headers = run.exchange.headers
        for target in targets:
            if self._headers[target.provider.name] in headers:
                return True
        return False

    async def put_in(self, run: Run, principal: Principal, targets: Sequence[Target]) -> list[Target]:
        """The targets with the caller's keys where they have some. Raises ClientError for a key that is none."""
        assert run.call is not None
        stored = await self._stored(run.call, principal)
        if stored is not None and all(target.provider.name != stored.provider for target in targets):
            raise ClientError(f"`{_FIELD}` is a key for {stored.provider}; name a model of {stored.provider}", param=_FIELD)
        return [self._with_own(target, run.exchange.headers, stored) for target in targets]

    def _with_own(self, target: Target, headers: dict[bytes, bytes], stored: OpenedKey | None) -> Target:
        name = target.provider.name
        key = headers.get(self._headers[name])
        if key is not None:
            if not _KEY.fullmatch(key):
                raise ClientError(f"the x-byok-{name} header is no key: it is empty, too long or holds spaces", param=f"x-byok-{name}")
            return self._with_key(target, key)
        if stored is not None and stored.provider == name:
            if stored.origin != self._catalog.origin_of(name)[1]:
                raise ClientError(f"this key was stored for {stored.origin}, where {name} no longer is; store it anew", param=_FIELD)
            return self._with_key(target, stored.key.encode())
        return target

    def _with_key(self, target: Target, key: bytes) -> Target:
        provider = replace(target.provider, credential=key.decode(), credential_id=hashlib.sha256(key).hexdigest()[:32])
        return replace(target, provider=provider, model=replace(target.model, price=self._catalog.own_key_price))

    async def _stored(self, call: Call, principal: Principal) -> OpenedKey | None:
        raw = call.pairs.get(_FIELD)
        if raw is None:
            return None
        key_id = msgspec.json.decode(raw)
        if not isinstance(key_id, str) or not _KEY_ID.fullmatch(key_id):
            raise ClientError(f"`{_FIELD}` is the id of a stored key, such as pk_…; GET /v1/provider-keys lists them", param=_FIELD)
        whose = (principal.account_id, principal.sub_account_id, key_id)
        until, opened = self._kept.get(whose, (0.0, None))
        if opened is None or until <= self._loop.time():
            opened = await self._ask(whose)
        if not opened.key:
            raise ClientError(f"there is no provider key {key_id!r} in force; GET /v1/provider-keys lists them", status=404, code="not_found", param=_FIELD)
        return opened

    async def _ask(self, whose: _Whose) -> OpenedKey:
        return await self._questions.ask(OpenKey(self._questions.next_number(), *whose), "The stored key cannot be opened")

    def _opened(self, message: OpenedKey) -> None:
        """Kept here and now: a revocation that is heard next must find it."""
        asked = self._questions.answer(message)
        if asked is not None and message.key:
            if len(self._kept) >= MAX_KEPT:
                self._kept.clear()
            self._kept[asked.account_id, asked.sub_account_id, asked.key_id] = (self._loop.time() + KEPT_S, message)

    def _forget(self, key_ids: tuple[str, ...], is_reset: bool) -> None:
        if is_reset or key_ids:
            self._kept = {whose: kept for whose, kept in self._kept.items() if not is_reset and whose[2] not in key_ids}

    def forget_old(self, now: float) -> None:
        """Each second: no key stays in memory past its time."""
        self._kept = {whose: kept for whose, kept in self._kept.items() if kept[0] > now}
