"""The keeper's store of responses on a real database: whose they are, chains of turns, late arrivals, age."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Coroutine
from typing import Any

import pytest
from msgspec import Raw

from aigate.core.account import SubAccount
from aigate.core.call import Call
from aigate.dialects.openai_responses_background import begun
from aigate.keeper import responses as module
from aigate.keeper.db.engine import Database
from aigate.keeper.db.responses import read_turns
from aigate.keeper.db.sub_accounts import add_sub_account, delete_sub_account
from aigate.keeper.responses import ResponseStore
from aigate.messages import CancelResponse, FindResponse, FoundResponse, KeepResponse, KeptResponse

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


# --- in the background ----------------------------------------------------------------------------------------------------------


def begun_body(run_by: str = "jrn_1") -> bytes:
    pairs = {"input": Raw(b'"think"'), "store": Raw(b"true")}
    return begun(Call("openai-responses", "responses", pairs, 9, ("m",)), "r1", run_by)


def end_of(text: str) -> KeepResponse:
    return KeepResponse(8, *ANNA, None, b"", json.dumps({"id": "r1", "status": "completed", "output": [{"text": text}]}).encode(), is_end=True)


def test_one_that_runs_is_shown_without_its_note_and_ends_once(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        await store.answer(KeepResponse(7, *ANNA, None, b'"think"', begun_body()))
        found = await store.get(*ANNA, "r1")
        assert found is not None and json.loads(found.body)["status"] == "in_progress" and b"jrn_1" not in found.body
        assert await conversation(store, "r1") == FoundResponse(3, None, is_running=True)
        assert await store.answer(end_of("first")) == KeptResponse(8)
        await store.answer(end_of("second"))
        found = await store.get(*ANNA, "r1")
        assert found is not None and json.loads(found.body)["output"] == [{"text": "first"}] and found.input == b'"think"'

    run(work())


def test_one_that_is_cancelled_or_gone_takes_no_end(database: Database) -> None:
    async def work() -> None:
        told: list[Any] = []
        store = ResponseStore(database)
        store.tell_workers = told.append
        assert await store.cancel(*BERT, "r1") is None
        await store.answer(KeepResponse(7, *ANNA, None, b'"think"', begun_body()))
        cancelled = await store.cancel(*ANNA, "r1")
        assert cancelled is not None and json.loads(cancelled.body)["status"] == "cancelled"
        assert told == [CancelResponse(*ANNA, "r1")]
        await store.answer(end_of("late"))
        assert await store.cancel(*ANNA, "r1") == await store.get(*ANNA, "r1") == cancelled
        assert len(told) == 1
        await store.delete(*ANNA, "r1")
        await store.answer(end_of("late"))
        assert await store.get(*ANNA, "r1") is None

    run(work())


def test_one_whose_worker_is_no_more_has_failed(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        store.is_living = lambda journal_id: journal_id == "jrn_2"
        await store.answer(KeepResponse(7, *ANNA, None, b'"think"', begun_body("jrn_2")))
        assert (await conversation(store, "r1")).is_running
        store.is_living = lambda journal_id: False
        found = await store.get(*ANNA, "r1")
        assert found is not None
        body = json.loads(found.body)
        assert (body["status"], body["error"]["code"]) == ("failed", "server_error")
        assert texts(await conversation(store, "r1")) == ["think"]  # one may go on from what was asked

    run(work())


def test_a_note_in_a_providers_response_means_nothing(database: Database) -> None:
    async def work() -> None:
        store = ResponseStore(database)
        store.is_living = lambda journal_id: False
        await store.answer(KeepResponse(7, *ANNA, None, b'"hi"', b'{"aig_run_by":"../../etc","id":"r1","output":[]}'))
        found = await store.get(*ANNA, "r1")
        assert found is not None and json.loads(found.body) == {"id": "r1", "output": []}

    run(work())
