"""Webhooks as the control plane's routes use them: secrets, endpoints, the log of deliveries. Sending is deliver.py's."""

from __future__ import annotations

import secrets as random
import time
from collections.abc import Mapping

from sqlalchemy import Connection

from aigate.core.account import Whose
from aigate.core.call import Principal
from aigate.core.webhook import Delivery, Endpoint
from aigate.errors import ClientError
from aigate.keeper.db.deliveries import get_delivery, list_deliveries, send_again
from aigate.keeper.db.engine import Database
from aigate.keeper.db.webhooks import add_endpoint, change_endpoint, count_endpoints, get_endpoint, list_endpoints, remove_endpoint
from aigate.keeper.webhooks.secrets import WebhookSecrets

MAX_ENDPOINTS = 100  # of an account


class WebhookStore:
    def __init__(self, database: Database, secrets: WebhookSecrets):
        self._database = database
        self._secrets = secrets

    async def secret(self, caller: Principal) -> str:
        return (await self._secrets.valid(caller.key_id, caller.account_id))[0]

    async def rotate_secret(self, caller: Principal, overlap_s: int) -> str:
        return await self._secrets.rotate(caller.key_id, caller.account_id, overlap_s)

    # --- endpoints ---

    async def add_endpoint(self, whose: Whose, fields: Mapping[str, object]) -> tuple[Endpoint, str]:
        """With its secret, which is shown now and never again."""
        now_ms = int(time.time() * 1000)
        owner = {"account_id": whose.account_id, "sub_account_id": whose.sub_account_id, "key_id": whose.key_id}
        new = Endpoint(id=f"we_{now_ms:011x}{random.token_hex(6)}", created_ms=now_ms, **owner, **fields)  # type: ignore[arg-type]
        return new, await self._database.write(self._add_endpoint, new)

    def _add_endpoint(self, connection: Connection, new: Endpoint) -> str:
        if count_endpoints(connection, new.account_id) >= MAX_ENDPOINTS:
            words = f"The account has {MAX_ENDPOINTS} webhook endpoints, the most there can be; delete one first."
            raise ClientError(words, status=409, code="too_many_endpoints")
        add_endpoint(connection, new)
        return self._secrets.make(connection, new.id, new.account_id, 0)

    async def endpoints(self, whose: Whose) -> list[Endpoint]:
        return await self._database.read(list_endpoints, whose)

    async def endpoint(self, whose: Whose, endpoint_id: str) -> Endpoint | None:
        return await self._database.read(get_endpoint, whose, endpoint_id)

    async def change_endpoint(self, whose: Whose, endpoint_id: str, changes: Mapping[str, object]) -> Endpoint | None:
        return await self._database.write(change_endpoint, whose, endpoint_id, changes)

    async def remove_endpoint(self, whose: Whose, endpoint_id: str) -> bool:
        return await self._database.write(remove_endpoint, whose, endpoint_id, int(time.time() * 1000))

    async def rotate_endpoint_secret(self, whose: Whose, endpoint_id: str, overlap_s: int) -> str | None:
        found = await self.endpoint(whose, endpoint_id)
        return None if found is None else await self._secrets.rotate(found.id, found.account_id, overlap_s)

    # --- deliveries ---

    async def deliveries(self, whose: Whose, filters: Mapping[str, str], limit: int, before: int | None) -> list[Delivery]:
        return await self._database.read(list_deliveries, whose, filters, limit, before)

    async def delivery(self, whose: Whose, delivery_id: str) -> Delivery | None:
        return await self._database.read(get_delivery, whose, delivery_id)

    async def send_again(self, whose: Whose, delivery_id: str) -> Delivery | None:
        """The delivery as it was, where its endpoint is gone."""
        return await self._database.write(send_again, whose, delivery_id, int(time.time() * 1000))
