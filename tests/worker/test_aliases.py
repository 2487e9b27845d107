"""`eval:<id>` as a model name in a worker, over a real socket to the keeper: looked up once, refused in true words."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aigate.core.call import Call, Principal
from aigate.errors import ClientError, GatewayError
from aigate.messages import FindEval, FoundEval
from aigate.worker.aliases import Aliases
from tests.worker.test_link import Keeper, linked

WHO = Principal("key_1", sub_account_id="sa_1")


def new_call(*models: str) -> Call:
    return Call("openai-chat", "chat", {}, 20, models)


def with_keeper(path: Any, test: Any, **options: float) -> None:
    async def work() -> None:
        async with Keeper(path) as keeper, linked(path) as (link, _):
            connection = await keeper.connections.get()
            await test(connection, Aliases(lambda slug, endpoint: None, link, asyncio.get_running_loop(), **options))

    asyncio.run(asyncio.wait_for(work(), 20))


async def answered(connection: Any, aliases: Aliases, call: Call, **found: Any) -> FindEval:
    """Puts the winner in while the keeper says `found`; what it was asked."""
    asking = asyncio.ensure_future(aliases.put_in(call, WHO))
    asked = await connection.next(FindEval)
    connection.say(FoundEval(asked.number, **found))
    await asking
    return asked


def test_the_winner_takes_the_place_of_the_eval_and_is_asked_for_once(tmp_path):
    async def test(connection, aliases):
        call = new_call("eval:eval_1", "sim/echo")
        asked = await answered(connection, aliases, call, status="completed", winner="sim/slow")
        assert (asked.account_id, asked.owner_id, asked.eval_id) == ("acc_default", "sa_1", "eval_1")
        assert call.models == ("sim/slow", "sim/echo")
        again = new_call("eval:eval_1")
        await aliases.put_in(again, WHO)  # the keeper says nothing more
        assert again.models == ("sim/slow",)

    with_keeper(tmp_path / "k", test)


@pytest.mark.parametrize(
    ("found", "status", "code"),
    [({}, 404, "unknown_model"), ({"status": "running"}, 409, "eval_running"), ({"status": "failed", "error": "no answers"}, 409, "eval_failed")],
)
def test_an_eval_without_a_winner_is_refused_in_true_words_and_asked_anew(tmp_path, found, status, code):
    async def test(connection, aliases):
        for _ in range(2):
            with pytest.raises(ClientError) as refused:
                await answered(connection, aliases, new_call("eval:eval_1"), **found)
            assert (refused.value.status, refused.value.code, refused.value.param) == (status, code, "model")
        await answered(connection, aliases, new_call("eval:eval_1"), status="completed", winner="sim/echo")

    with_keeper(tmp_path / "k", test)


def test_without_the_keepers_word_it_is_a_503(tmp_path):
    async def test(connection, aliases):
        with pytest.raises(GatewayError) as refused:
            await aliases.put_in(new_call("eval:eval_1"), WHO)
        assert (refused.value.status, refused.value.retryable) == (503, True)

    with_keeper(tmp_path / "k", test, wait_s=0.05)
