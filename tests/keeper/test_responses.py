"""The keeper's store of responses on a real database: whose they are, chains of turns, late arrivals, age."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from aigate.core.account import SubAccount
from aigate.keeper import responses as module
from aigate.keeper.db.engine import Database
from aigate.keeper.db.responses import read_turns
from aigate.keeper.db.sub_accounts import add_sub_account, delete_sub_account
from aigate.keeper.responses import ResponseStore
from aigate.messages import FindResponse, FoundResponse, KeepResponse, KeptResponse

ANNA, BERT = ("acc_default", "sa_anna"), ("acc_default", "sa_bert")


def keep(response_id: str, previous_id: str | None = None, *, owner: tuple[str, str] = ANNA, said: str = "") -> KeepResponse:
    output = [{"type": "message", "role": "assistant", "content": f"answer {response_id}"}]
    sent = json.dumps({"id": response_id, "output": output}).encode()
    return KeepResponse(7, *owner, previous_id, json.dumps(said or f"question {response_id}").encode(), sent)


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work, 20))


async def conversation(store: ResponseStore, response_id: str, owner: tuple[str, str] = ANNA) -> FoundResponse:
    found = await store.answer(FindResponse(3, *owner, response_id))
    assert isinstance(found, FoundResponse) and found.number == 3
    return found


def texts(found: FoundResponse) -> list[str]:
    assert found.items is not None
    contents = [item["content"] for item in json.loads(found.items)]
    return [content if isinstance(content, str) else content[0]["text"] for content in contents]


def test_a_conversation_is_all_of_its_turns_and_only_its_owner_finds_it(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        for new in (keep("r1"), keep("r2", "r1"), keep("r2b", "r1"), keep("r3", "r2"), keep("r3", "r2")):  # the last one twice
            assert await store.answer(new) == KeptResponse(7)
        assert texts(await conversation(store, "r3")) == [f"{what} r{n}" for n in (1, 2, 3) for what in ("question", "answer")]
        assert await conversation(store, "r3", BERT) == FoundResponse(3, None, "r3")
        assert not await store.delete(*BERT, "r3")
        assert await store.input_items(*BERT, "r3") is None
        items = await store.input_items(*ANNA, "r3")
        assert items is not None and len(items) == 5

    run(work())


def test_after_a_turn_was_deleted_nothing_goes_on_from_it(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        for new in (keep("r1"), keep("r2", "r1"), keep("r3", "r2")):
            await store.answer(new)
        assert await store.delete(*ANNA, "r1")
        assert await conversation(store, "r3") == FoundResponse(3, None, "r1")
        assert await store.get(*ANNA, "r1") is None and await store.get(*ANNA, "r3") is not None
        assert len(await store.input_items(*ANNA, "r3") or ()) == 3  # what is still there

    run(work())


def test_a_chain_that_leads_to_itself_has_an_end(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        await store.answer(keep("r1", "r2"))
        await store.answer(keep("r2", "r1"))
        assert (await conversation(store, "r1")).items is None

    run(work())


def test_a_conversation_that_is_too_long_is_no_missing_one(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        await store.answer(keep("r1", said="x" * 1000))
        await store.answer(keep("r2", "r1"))
        last = await store.get(*ANNA, "r2")
        assert last is not None
        assert database.read_now(read_turns, last, 1000) == ([], "")
        assert len(database.read_now(read_turns, last, 2000)[0]) == 2

    run(work())


def test_a_response_that_comes_after_the_question_for_it_is_found(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        asked = asyncio.create_task(conversation(store, "r1"))
        while not store._awaited:
            await asyncio.sleep(0)
        await store.answer(keep("r1"))
        assert texts(await asked) == ["question r1", "answer r1"]
        assert not store._awaited

    run(work())


def test_a_deleted_sub_account_leaves_no_responses(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        await store.answer(keep("r1"))
        await store.answer(keep("r1", owner=BERT))
        database.write_now(add_sub_account, SubAccount(id="sa_anna", account_id="acc_default", name="anna", created_ms=1))
        database.write_now(delete_sub_account, "acc_default", "sa_anna", 2)
        assert await store.get(*ANNA, "r1") is None and await store.get(*BERT, "r1") is not None

    run(work())


def test_what_is_no_response_is_not_kept_and_not_asked_for_again(database: Database) -> None:
    assert run(ResponseStore(database).answer(KeepResponse(9, *ANNA, None, b'"x"', b"{nonsense"))) == KeptResponse(9)


@pytest.mark.parametrize(("days", "left"), [(30, {"r1", "r2"}), (1, {"r2"}), (0, set())])
def test_old_responses_go_and_with_no_days_all_do(database: Database, days: int, left: set[str]) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        await store.answer(keep("r1"))
        await store.answer(keep("r2"))
        two_days_ago = int(time.time() * 1000) - 2 * module.DAY_MS
        database.write_now(lambda connection: connection.exec_driver_sql(f"UPDATE responses SET created_ms = {two_days_ago} WHERE id = 'r1'"))

        async def ids() -> set[str]:
            return {row[0] for row in await database.read(lambda connection: connection.exec_driver_sql("SELECT id FROM responses").all())}

        expiring = asyncio.create_task(store.expire(days))
        if days < 30:
            while await ids() != left:
                await asyncio.sleep(0.01)
        else:
            await database.write(lambda connection: None)  # after what it has asked for
            assert await ids() == left
        expiring.cancel()

    run(work())
