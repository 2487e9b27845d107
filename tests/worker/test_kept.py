"""A worker and what the keeper keeps for it, over a real socket: confirmed, said again, given up, fetched, missing."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from aigate.core.call import Call, Principal
from aigate.errors import ClientError, GatewayError
from aigate.messages import MAX_KEPT_BYTES, FindResponse, FoundResponse, KeepResponse, KeptResponse
from aigate.worker import kept as module
from aigate.worker.kept import KeptResponses
from tests.worker.test_link import Keeper, linked


def new_run(**options: Any) -> Any:
    call = Call("openai-responses", "responses", {"input": Raw(b'"hi"')}, 20, ("m",), **{"is_kept": True, **options})
    return SimpleNamespace(call=call, principal=Principal("key_1", sub_account_id="sa_1"), keep=None)


def with_keeper(path: Any, test: Any) -> None:
    async def work() -> None:
        async with Keeper(path) as keeper, linked(path) as (link, _):
            await test(keeper, KeptResponses(link, asyncio.get_running_loop(), is_on=True))

    asyncio.run(asyncio.wait_for(work(), 20))


def test_what_is_not_confirmed_is_said_again_to_the_next_keeper(tmp_path):
    async def test(keeper, kept):
        first = await keeper.connections.get()
        run = new_run()
        run.call = await kept.enter(run)
        assert bytes(run.call.pairs["store"]) == b"true"
        run.keep(b'{"one"}')
        run.keep(b'{"two"}')
        asked = await first.next(KeepResponse)
        assert (asked.account_id, asked.owner_id, asked.previous_id, asked.input, asked.sent) == ("acc_default", "sa_1", None, b'"hi"', b'{"one"}')
        first.say(KeptResponse(asked.number))
        while len(kept._held) == 2:
            await asyncio.sleep(0)
        first.writer.close()
        second = await keeper.connections.get()
        again = await second.next(KeepResponse)
        assert again.sent == b'{"two"}'
        second.say(KeptResponse(again.number))
        while kept._held:
            await asyncio.sleep(0)
        assert (kept._held_bytes, kept.lost) == (0, 0)

    with_keeper(tmp_path / "k", test)


def test_what_cannot_be_handed_over_is_given_up_and_counted(tmp_path):
    async def test(keeper, kept):
        run = new_run()
        await kept.enter(run)
        run.keep(b"x" * MAX_KEPT_BYTES)
        assert kept.lost == 1
        for _ in range(5):
            run.keep(b"x" * (MAX_KEPT_BYTES - 10))
        assert kept.lost == 2 and kept._held_bytes <= module.MAX_HELD_BYTES
        kept.tick(asyncio.get_running_loop().time() + module.CONFIRMED_S + 1)
        assert (kept.lost, kept._held_bytes) == (6, 0)

    with_keeper(tmp_path / "k", test)


@pytest.mark.parametrize(("is_wanted", "is_on"), [(False, True), (True, False)])
def test_what_is_not_to_be_kept_is_not_and_says_so(tmp_path, is_wanted, is_on):
    async def test(keeper, kept):
        run = new_run(is_kept=is_wanted)
        call = await KeptResponses(kept._link, asyncio.get_running_loop(), is_on=is_on).enter(run)
        assert run.keep is None and bytes(call.pairs["store"]) == b"false"

    with_keeper(tmp_path / "k", test)


def test_an_earlier_response_is_fetched_also_by_way_of_the_next_keeper(tmp_path):
    async def test(keeper, kept):
        first = await keeper.connections.get()
        fetching = asyncio.create_task(kept.enter(new_run(previous_response="resp_1")))
        await first.next(FindResponse)
        first.writer.close()
        second = await keeper.connections.get()
        asked = await second.next(FindResponse)
        assert (asked.owner_id, asked.response_id) == ("sa_1", "resp_1")
        second.say(FoundResponse(asked.number, b'[{"role":"user","content":"before"}]'))
        assert b"before" in bytes((await fetching).pairs["input"])

    with_keeper(tmp_path / "k", test)


@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [(FoundResponse(1, None, "resp_0"), 404, "previous_response_not_found"), (FoundResponse(1, None), 400, "context_length_exceeded")],
)
def test_what_is_missing_or_too_long_is_said(tmp_path, answer, status, code):
    async def test(keeper, kept):
        connection = await keeper.connections.get()
        fetching = asyncio.create_task(kept.enter(new_run(previous_response="resp_1")))
        await connection.next(FindResponse)
        connection.say(answer)
        with pytest.raises(ClientError) as caught:
            await fetching
        assert (caught.value.status, caught.value.code, caught.value.param) == (status, code, "previous_response_id")

    with_keeper(tmp_path / "k", test)


def test_a_keeper_that_does_not_answer_is_a_503(tmp_path):
    async def test(keeper, kept):
        await keeper.connections.get()
        with pytest.raises(GatewayError) as caught:
            await kept.enter(new_run(previous_response="resp_1"))
        assert caught.value.status == 503 and not kept._questions._open

    with_keeper(tmp_path / "k", test)


def test_the_end_of_a_background_response_is_never_given_up(tmp_path):
    async def test(keeper, kept):
        first = await keeper.connections.get()
        run = new_run()
        beginning = asyncio.create_task(kept.begin(run, b'{"begun"}', "resp_1"))
        asked = await first.next(KeepResponse)
        assert (asked.sent, asked.is_end, asked.input) == (b'{"begun"}', False, b'"hi"')
        assert not beginning.done()
        first.say(KeptResponse(asked.number))
        key = await beginning
        assert key == ("acc_default", "sa_1", "resp_1")
        assert not kept.end(key, b"x" * (MAX_KEPT_BYTES + 1))  # too large: its maker says so instead
        assert kept.end(key, b'{"ended"}')
        kept.tick(asyncio.get_running_loop().time() + 10 * module.CONFIRMED_S)
        assert (len(kept._held), kept.lost) == (1, 0)
        ended = await first.next(KeepResponse)
        assert (ended.sent, ended.is_end) == (b'{"ended"}', True)

    with_keeper(tmp_path / "k", test)


def test_nothing_begins_in_the_background_that_is_not_kept(tmp_path):
    async def test(keeper, kept):
        with pytest.raises(GatewayError) as caught:  # this keeper does not answer
            await kept.begin(new_run(), b"{}", "resp_1")
        assert caught.value.status == 503
        with pytest.raises(ClientError, match="background"):
            await KeptResponses(kept._link, asyncio.get_running_loop(), is_on=False).begin(new_run(), b"{}", "resp_1")

    with_keeper(tmp_path / "k", test)
