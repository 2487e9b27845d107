"""Finished responses: kept for their owner so many days, found by calls that go on from them.

A response reaches the keeper a moment after its caller, perhaps from another worker than the next call comes from: what is not there
yet is waited for. What it says is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from aigate.core.account import StoredResponse
from aigate.dialects.openai_responses_kept import join_items, list_items, read_finished, turn_items
from aigate.keeper.db.engine import Database
from aigate.keeper.db.responses import delete_old_responses, delete_response, get_response, put_response, read_turns
from aigate.messages import MAX_KEPT_BYTES, FindResponse, FoundResponse, KeepResponse, KeptResponse

log = logging.getLogger("aigate.keeper")

ARRIVES_S = 0.3  # so late may a response come that somebody asks for
LOOK_S = 3600.0
PAUSE_S = 0.1
DAY_MS = 86_400_000

_Which = tuple[str, str, str]  # account, owner, response id


class ResponseStore:
    def __init__(self, database: Database):
        self._database = database
        self._awaited: dict[_Which, asyncio.Event] = {}

    # --- for workers ---

    async def answer(self, asked: KeepResponse | FindResponse) -> KeptResponse | FoundResponse | None:
        try:
            if isinstance(asked, KeepResponse):
                await self._keep(asked)
                return KeptResponse(asked.number)
            return await self._find(asked)
        except SQLAlchemyError as error:
            log.error("a response cannot be kept or found: %s", type(error).__name__)
            return None

    async def _keep(self, asked: KeepResponse) -> None:
        try:
            response_id, body = read_finished(asked.sent)
        except ValueError:  # also msgspec's: the provider's reply went through as it came, and nobody can go on from it
            log.warning("a response is not kept: it cannot be read")
            return
        which = asked.account_id, asked.owner_id, response_id
        await self._database.write(put_response, StoredResponse(*which, asked.previous_id, int(time.time() * 1000), asked.input, body))
        awaited = self._awaited.pop(which, None)
        if awaited is not None:
            awaited.set()

    async def _find(self, asked: FindResponse) -> FoundResponse:
        last = await self.get(asked.account_id, asked.owner_id, asked.response_id)
        if last is None:
            return FoundResponse(asked.number, None, asked.response_id)
        items, missing_id = await self._database.read(_conversation, last)
        return FoundResponse(asked.number, items, missing_id)

    # --- for callers ---

    async def get(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None:
        which = account_id, owner_id, response_id
        found = await self._database.read(get_response, *which)
        if found is None:
            await self._wait_for(which)
            found = await self._database.read(get_response, *which)
        return found

    async def input_items(self, account_id: str, owner_id: str, response_id: str) -> list[dict[str, Any]] | None:
        last = await self.get(account_id, owner_id, response_id)
        return None if last is None else await self._database.read(_list_input, last)

    async def delete(self, account_id: str, owner_id: str, response_id: str) -> bool:
        found = await self.get(account_id, owner_id, response_id)
        return found is not None and await self._database.write(delete_response, account_id, owner_id, response_id)

    # --- own ---

    async def _wait_for(self, which: _Which) -> None:
        awaited = self._awaited.setdefault(which, asyncio.Event())
        try:
            async with asyncio.timeout(ARRIVES_S):
                await awaited.wait()
        except TimeoutError:
            self._awaited.pop(which, None)

    async def expire(self, days: int) -> None:
        """Until cancelled: what is older is deleted, within the hour. 0 days: all of it, at once."""
        while True:
            try:
                while await self._database.write(delete_old_responses, int(time.time() * 1000) - days * DAY_MS):
                    await asyncio.sleep(PAUSE_S)  # so that nothing else waits
            except SQLAlchemyError as error:
                log.error("old responses could not be removed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)


def _conversation(connection: Connection, last: StoredResponse) -> tuple[bytes | None, str]:
    """(items, "") | (None, id of a turn that is gone) | (None, "") of one that is too long."""
    turns, missing_id = read_turns(connection, last, MAX_KEPT_BYTES)
    if missing_id or not turns:
        return None, missing_id
    return join_items(item for turn in turns for item in turn_items(turn.input, turn.body)), ""


def _list_input(connection: Connection, last: StoredResponse) -> list[dict[str, Any]]:
    turns, _ = read_turns(connection, last, MAX_KEPT_BYTES)
    return list_items([item for turn in turns[:-1] for item in turn_items(turn.input, turn.body)], last.input, last.id)
