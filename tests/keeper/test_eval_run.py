"""One eval run against a scripted lane: what is asked, how it is scored, what an end in the middle leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from aigate.core.call import Principal
from aigate.core.evals import Eval, Item
from aigate.core.scoring import Rule
from aigate.errors import GatewayError
from aigate.keeper import once
from aigate.keeper.db.engine import Database
from aigate.keeper.db.evals import get_eval, place_eval, read_results
from aigate.keeper.eval_run import EvalRun
from aigate.keeper.leases import InForce


class Reply(msgspec.Struct):
    status: int = 200
    body: bytes = b""
    cost_nanousd: int = 5
    latency_ms: int = 7
    retry_after_s: float | None = None


def says(text: str) -> Reply:
    return Reply(body=json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode())


class Lane:
    """`answer`: (path, request, call id) → a reply, or an exception to raise. `sent`: what it was asked, by id."""

    def __init__(self, answer: Callable[[str, dict[str, Any], str], Reply]):
        self.sent: dict[str, dict[str, Any]] = {}
        self.holder: Principal | None = Principal(key_id="key_a", account_id="acc_a")
        self._answer = answer

    async def principal(self, key_id: str) -> Principal | None:
        return self.holder

    async def ask_once(self, principal: Principal, path: str, body: bytes, *, call_id: str, tag: str | None) -> Reply:
        assert call_id not in self.sent
        self.sent[call_id] = json.loads(body)
        return self._answer(path, self.sent[call_id], call_id)


class Bounds:
    def of_answer(self, which: Eval, item: Item, candidate: int) -> int:
        return 10


def ask(text: str, rule: Rule) -> Item:
    return Item({"messages": [{"role": "user", "content": text}], "max_tokens": 9}, rule)


def run_eval(database: Database, lane: Lane, items: list[Item], **fields: Any) -> Eval:
    new = Eval(
        id="eval_0001", account_id="acc_a", owner_id="key_a", key_id="key_a", sub_account_id=None, tag="t", name="n",
        metric=fields.pop("metric", "quality"), candidates=("a/one", "a/two"), judge_model=fields.get("judge"),
        embedding_model=fields.get("embedder"), dataset_size=len(items), reserved_nanousd=1_000, created_ms=1,
    )  # fmt: skip
    if database.read_now(get_eval, "acc_a", None, new.id) is None:
        database.write_now(place_eval, InForce(9, frozenset()), new, items, [("key", "acc_a", "key_a")])
    asyncio.run(EvalRun(new.id, database, lane=lane, bounds=Bounds(), concurrency=2).run())
    found = database.read_now(get_eval, "acc_a", None, new.id)
    assert found is not None and found.reserved_nanousd == 0
    return found


def test_every_candidate_is_asked_every_item_and_the_better_one_wins(database: Database) -> None:
    lane = Lane(lambda path, request, call_id: says("four" if request["model"] == "a/two" else "five"))
    ended = run_eval(database, lane, [ask("2+2?", Rule("exact", "four")), ask("3+1?", Rule("exact", "four"))])
    assert (ended.status, ended.winner_model) == ("completed", "a/two")
    assert sorted(request["model"] for request in lane.sent.values()) == ["a/one", "a/one", "a/two", "a/two"]
    assert all(request["fallbacks"] is False and request["max_tokens"] == 9 for request in lane.sent.values())
    assert ended.summary["cost_cents"] == 2e-06


def test_what_is_put_off_is_asked_again_under_another_id(database: Database) -> None:
    lane = Lane(lambda path, request, call_id: says("x") if call_id.endswith("a1") else Reply(429, b"{}", retry_after_s=0.001))
    ended = run_eval(database, lane, [ask("?", Rule("exact", "x"))])
    assert ended.summary["candidates"][0]["score"] == 1.0
    assert sorted(call_id[-2:] for call_id in lane.sent) == ["a0", "a0", "a1", "a1"]


def test_a_refusal_is_an_error_of_that_answer_in_the_providers_words(database: Database) -> None:
    refused = Reply(402, b'{"error":{"message":"cap reached"}}')
    lane = Lane(lambda path, request, call_id: refused if request["model"] == "a/one" else says("x"))
    ended = run_eval(database, lane, [ask("?", Rule("exact", "x"))])
    assert ended.winner_model == "a/two"
    assert database.read_now(read_results, "eval_0001")[0].error == "402: cap reached"


def test_a_judge_and_an_embedding_model_score_and_their_cost_is_told(database: Database) -> None:
    def answer(path: str, request: dict[str, Any], call_id: str) -> Reply:
        if path == "/v1/embeddings":
            return Reply(body=b'{"data":[{"embedding":[1,0]},{"embedding":[1,1]}]}', cost_nanousd=3)
        return says('{"score": 8, "reason": "fine"}' if request["model"] == "a/judge" else "an answer")

    items = [ask("?", Rule("judge", None, "be fine")), ask("?", Rule("embedding", "the answer"))]
    ended = run_eval(database, Lane(answer), items, judge="a/judge", embedder="a/embedder")
    judged, *_, embedded = database.read_now(read_results, "eval_0001")
    assert (judged.score, judged.reason, judged.scoring_nanousd) == (0.8, "fine", 5)
    assert embedded.score == pytest.approx(0.7071, abs=1e-4) and embedded.scoring_nanousd == 3
    assert ended.status == "completed"


def test_an_end_nobody_knows_is_said_and_nothing_is_guessed(database: Database) -> None:
    def answer(path: str, request: dict[str, Any], call_id: str) -> Reply:
        raise GatewayError("nobody can say how this call ended", status=503)

    ended = run_eval(database, Lane(answer), [ask("?", Rule("exact", "x"))])
    assert ended.status == "failed" and "nobody can say" in ended.error and ended.winner_model is None


def test_going_on_asks_only_what_was_not_answered(database: Database) -> None:
    class Died(Exception):
        pass

    def dies_late(path: str, request: dict[str, Any], call_id: str) -> Reply:
        if len(lane.sent) == 4:
            raise Died
        return says("x")

    items = [ask(str(number), Rule("exact", "x")) for number in range(3)]
    lane = Lane(dies_late)
    with pytest.raises(ExceptionGroup):
        run_eval(database, lane, items)
    known = {result.call_id for result in database.read_now(read_results, "eval_0001")}
    again = Lane(lambda path, request, call_id: says("x"))
    assert run_eval(database, again, items).status == "completed"
    assert not {call_id[:-1] for call_id in again.sent} & {call_id for call_id in known}
    assert len(database.read_now(read_results, "eval_0001")) == 6


def test_a_revoked_key_asks_nothing_more(database: Database) -> None:
    lane = Lane(lambda path, request, call_id: says("x"))
    lane.holder = None
    ended = run_eval(database, lane, [ask("?", Rule("exact", "x"))])
    assert ended.status == "failed" and "revoked" in ended.error and not lane.sent


def test_call_ids_are_ids_of_the_ledger(database: Database) -> None:
    lane = Lane(lambda path, request, call_id: says("x"))
    run_eval(database, lane, [ask("?", Rule("exact", "x"))])
    assert all(call_id.startswith("req_") and call_id[4:].isalnum() for call_id in lane.sent)
    assert once.BUSY_TRIES <= 10  # the number of the try is one character
