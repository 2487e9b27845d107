"""Finished responses: kept for their owner so many days, found by calls that go on from them.

A response reaches the keeper a moment after its caller, perhaps from another worker than the next call comes from: what is not there
yet is waited for. What it says is not looked at.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from aigate.core.account import StoredResponse
from aigate.dialects.openai_responses_background import run_by, shown, stopped
from aigate.dialects.openai_responses_kept import join_items, list_items, read_finished, turn_items
from aigate.keeper.db.engine import Database
from aigate.keeper.db.responses import delete_old_responses, delete_response, end_response, get_response, put_response, read_turns
from aigate.messages import MAX_KEPT_BYTES, CancelResponse, FindResponse, FoundResponse, KeepResponse, KeptResponse, Message

log = logging.getLogger("aigate.keeper")

ARRIVES_S = 0.3  # so late may a response come that somebody asks for
LOOK_S = 3600.0
PAUSE_S = 0.1
DAY_MS = 86_400_000
_LOST = {"code": "server_error", "message": "the worker that made the response has ended; send it again"}

_Which = tuple[str, str, str]  # account, owner, response id


class ResponseStore:
    def __init__(self, database: Database):
        self._database = database
        self._awaited: dict[_Which, asyncio.Event] = {}
        self.is_living: Callable[[str], bool] = lambda journal_id: True  # whether the worker that writes this journal still does
        self.tell_workers: Callable[[Message], None] = lambda message: None

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
        if asked.is_end:
            await self._end(asked)
            return
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
        last = await self._get(asked.account_id, asked.owner_id, asked.response_id)
        if last is None:
            return FoundResponse(asked.number, None, asked.response_id)
        if run_by(last.body):
            return FoundResponse(asked.number, None, is_running=True)
        items, missing_id = await self._database.read(_conversation, last)
        return FoundResponse(asked.number, items, missing_id)

    # --- for callers ---

    async def get(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None:
        found = await self._get(account_id, owner_id, response_id)
        return None if found is None else replace(found, body=shown(found.body))

    async def cancel(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None:
        """The response, of which no more is made. One that has ended is as it was."""
        found = await self._get(account_id, owner_id, response_id)
        if found is not None and run_by(found.body):
            await self._database.write(end_response, *_which(found), stopped(found.body, "cancelled"))
            self.tell_workers(CancelResponse(*_which(found)))
        return await self.get(account_id, owner_id, response_id)

    async def input_items(self, account_id: str, owner_id: str, response_id: str) -> list[dict[str, Any]] | None:
        last = await self._get(account_id, owner_id, response_id)
        return None if last is None else await self._database.read(_list_input, last)

    async def delete(self, account_id: str, owner_id: str, response_id: str) -> bool:
        found = await self._get(account_id, owner_id, response_id)
        if found is not None and run_by(found.body):
            self.tell_workers(CancelResponse(*_which(found)))
        return found is not None and await self._database.write(delete_response, account_id, owner_id, response_id)

    # --- own ---

    async def _get(self, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None:
        """As it is kept, once it has arrived. One whose worker is no more has failed."""
        which = account_id, owner_id, response_id
        found = await self._database.read(get_response, *which)
        if found is None:
            await self._wait_for(which)
            found = await self._database.read(get_response, *which)
        if found is not None and (journal_id := run_by(found.body)) and not self.is_living(journal_id):
            await self._database.write(end_response, *which, stopped(found.body, "failed", _LOST))
            found = await self._database.read(get_response, *which)
        return found

    async def _end(self, asked: KeepResponse) -> None:
        response_id, body = read_finished(asked.sent)
        await self._database.write(end_response, asked.account_id, asked.owner_id, response_id, body)

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
                while await self._database.write(delete_old_responses, int(time.time() * 1000) + 1 - days * DAY_MS):
                    await asyncio.sleep(PAUSE_S)  # so that nothing else waits
            except SQLAlchemyError as error:
                log.error("old responses could not be removed: %s", type(error).__name__)
            await asyncio.sleep(LOOK_S)


def _which(response: StoredResponse) -> _Which:
    return response.account_id, response.owner_id, response.id


def _conversation(connection: Connection, last: StoredResponse) -> tuple[bytes | None, str]:
    """(items, "") | (None, id of a turn that is gone) | (None, "") of one that is too long."""
    turns, missing_id = read_turns(connection, last, MAX_KEPT_BYTES)
    if missing_id or not turns:
        return None, missing_id
    return join_items(item for turn in turns for item in turn_items(turn.input, turn.body)), ""


def _list_input(connection: Connection, last: StoredResponse) -> list[dict[str, Any]]:
    turns, _ = read_turns(connection, last, MAX_KEPT_BYTES)
    return list_items([item for turn in turns[:-1] for item in turn_items(turn.input, turn.body)], last.input, last.id)
