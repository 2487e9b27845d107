"""One eval, from wherever it was left to its end: every candidate is asked every item, answers are scored, the winner is found.

Each call's id is made from the eval's id and its place, so after a crash none is sent twice: what was sent is looked up, the rest is
asked. Money set aside for an answer is given back just before it is asked, as the call then takes its own hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from aigate.core.call import Principal
from aigate.core.evals import COMPLETED, FAILED, Eval, Item, Result, confidence_of, find_winner, stand
from aigate.core.price import format_cents
from aigate.core.scoring import EMBEDDING, JUDGE, cosine, embedding_request, judge_request, read_verdict, score
from aigate.errors import GateError
from aigate.keeper.db.engine import Database
from aigate.keeper.db.evals import end_eval, give_back, put_result, read_results, read_running
from aigate.keeper.eval_bounds import Bounds
from aigate.keeper.once import error_words, until_free

MAX_OUTPUT_CHARS = 64_000  # of an answer, as it is kept
_ASK, _JUDGE, _EMBED = "a", "b", "c"  # what a call is for, in its id


class Answered(Protocol):
    """What became of an inner call: the HTTP reply, its cost and how long it took."""

    status: int
    body: bytes
    cost_nanousd: int
    latency_ms: int
    retry_after_s: float | None


class Lane(Protocol):
    async def ask_once(self, principal: Principal, path: str, body: bytes, *, call_id: str, tag: str | None) -> Answered:
        """Sends the call unless one of this id was sent before: then what came of that. Raises GateError where nobody can say."""

    async def principal(self, key_id: str) -> Principal | None:
        """Whom the key stands for now; None: nobody any more."""


class EvalRun:
    """`answered`: how many answers are known so far."""

    def __init__(self, eval_id: str, database: Database, *, lane: Lane, bounds: Bounds, concurrency: int):
        self.answered = 0
        self._id = eval_id
        self._database = database
        self._lane = lane
        self._bounds = bounds
        self._room = asyncio.Semaphore(concurrency)

    async def run(self) -> None:
        found = await self._database.read(read_running, self._id)
        if found is None:
            return
        which, items, known = found
        self.answered = len(known)
        done = {(result.item, result.candidate) for result in known}
        # Item by item, so that what a cap ends early has been asked of all candidates alike.
        missing = [(i, c) for i in range(len(items)) for c in range(len(which.candidates)) if (i, c) not in done]
        async with asyncio.TaskGroup() as group:
            for item, candidate in missing:
                await self._room.acquire()
                group.create_task(self._answer(which, items[item], item, candidate))
        results = (await self._database.read(read_results, self._id)) if missing else known
        ended = await asyncio.to_thread(conclude, which, results)  # sums over many answers would hold up everything else
        await self._give_back(None)
        await self._database.write(end_eval, self._id, {**ended, "ended_ms": int(time.time() * 1000)})

    async def _give_back(self, amount_nanousd: int | None) -> None:
        await self._database.write(give_back, self._id, amount_nanousd, int(time.time() * 1000))

    async def _answer(self, which: Eval, item: Item, place: int, candidate: int) -> None:
        try:
            result = await self._ask_and_score(which, item, place, candidate)
            await self._database.write(put_result, self._id, result)
            self.answered += 1
        finally:
            self._room.release()

    async def _ask_and_score(self, which: Eval, item: Item, place: int, candidate: int) -> Result:
        call_id = _call_id(which.id, place, candidate, _ASK)
        result = Result(item=place, candidate=candidate, call_id=call_id)
        try:
            await self._give_back(self._bounds.of_answer(which, item, candidate))
            request = {**item.request, "model": which.candidates[candidate], "fallbacks": False}
            result.call_id, answer = await self._call(which, "/v1/chat/completions", request, call_id)
            result.cost_nanousd, result.latency_ms = answer.cost_nanousd, answer.latency_ms
            result.output = _text_of(answer.body)[:MAX_OUTPUT_CHARS]
        except GateError as error:
            result.error = error.message[:1000]
            return result
        try:
            await self._score(which, item, result, place, candidate)
        except GateError as error:
            result.reason = f"not scored: {error.message}"[:1000]
        return result

    async def _score(self, which: Eval, item: Item, result: Result, place: int, candidate: int) -> None:
        result.score = score(item.rule, result.output)
        if item.rule.method == JUDGE:
            request = {**judge_request(item.rule, item.request, result.output), "model": which.judge_model}
            _, judged = await self._call(which, "/v1/chat/completions", request, _call_id(which.id, place, candidate, _JUDGE))
            result.scoring_nanousd = judged.cost_nanousd
            verdict = read_verdict(_text_of(judged.body))
            if verdict is None:
                result.reason = "not scored: the judge gave no score"
            else:
                result.score, result.reason = verdict
        elif item.rule.method == EMBEDDING:
            request = {**embedding_request(item.rule, result.output), "model": which.embedding_model}
            _, embedded = await self._call(which, "/v1/embeddings", request, _call_id(which.id, place, candidate, _EMBED))
            result.scoring_nanousd = embedded.cost_nanousd
            result.score = _likeness(embedded.body)

    async def _call(self, which: Eval, path: str, request: Mapping[str, Any], call_id: str) -> tuple[str, Answered]:
        """(id it was answered under, answer). Raises GateError for anything but an answer. What a rate limit or a busy provider puts off is asked again, under another id."""
        principal = await self._lane.principal(which.key_id)
        if principal is None:
            raise GateError("the key of this eval was revoked", status=401)
        body = msgspec.json.encode(request)
        number, answer = await until_free(
            lambda number: self._lane.ask_once(principal, path, body, call_id=f"{call_id}{number}", tag=which.tag)
        )
        if answer.status != 200:
            raise GateError(f"{answer.status}: {error_words(answer.body)}", status=answer.status)
        return f"{call_id}{number}", answer


def _call_id(eval_id: str, item: int, candidate: int, purpose: str) -> str:
    """With the number of the try behind it: an id that the ledger keeps beside those of its time."""
    return f"req_{eval_id.removeprefix('eval_')}{item:06x}{candidate:02x}{purpose}"


def conclude(which: Eval, results: Sequence[Result]) -> dict[str, Any]:
    """What changes of an eval that has all its answers: its status, winner and summary."""
    by_candidate = [[result for result in results if result.candidate == number] for number in range(len(which.candidates))]
    standings = [stand(model, each) for model, each in zip(which.candidates, by_candidate, strict=True)]
    winner = find_winner(standings, which.metric)
    summary: dict[str, Any] = {
        "answers": len(results),
        "answered": len(results),
        "candidates": [_standing_fields(each) for each in standings],
        "cost_cents": _cents(sum(result.cost_nanousd for result in results)),
        "scoring_cost_cents": _cents(sum(result.scoring_nanousd for result in results)),
    }
    if winner is None:
        first = next((result.error or result.reason for result in results if result.error or result.reason), "no answer was scored")
        return {"status": FAILED, "error": f"no candidate can be judged by {which.metric}: {first}"[:1000], "summary": summary}
    place = standings.index(winner)
    others = [each for each in standings if each is not winner]
    runner_up = find_winner(others, which.metric)
    if runner_up is not None:
        sure = confidence_of(by_candidate[place], by_candidate[standings.index(runner_up)], which.metric)
        summary["winner_over"] = {"model": runner_up.model, **(sure or {})}
    return {"status": COMPLETED, "winner_model": winner.model, "summary": summary}


def _standing_fields(each: Any) -> dict[str, Any]:
    fields = msgspec.structs.asdict(each)
    fields["cost_cents"] = _cents(fields.pop("cost_nanousd"))
    fields["mean_cost_cents"] = _cents(fields.pop("mean_cost_nanousd"))
    return fields


def _text_of(body: bytes) -> str:
    """The answer of a chat reply: its text, else what it calls. Raises GateError for what is none."""
    try:
        message = msgspec.json.decode(body)["choices"][0]["message"]
        if message.get("content"):
            return str(message["content"])
        calls = [each["function"] for each in message.get("tool_calls") or ()]
        return msgspec.json.encode([{"name": call["name"], "arguments": call["arguments"]} for call in calls]).decode() if calls else ""
    except (msgspec.DecodeError, LookupError, TypeError, AttributeError):
        raise GateError("the answer cannot be read", status=502) from None


def _likeness(body: bytes) -> float | None:
    try:
        vectors = [each["embedding"] for each in msgspec.json.decode(body)["data"]]
        return cosine(*vectors)
    except (msgspec.DecodeError, LookupError, TypeError):
        raise GateError("the embeddings cannot be read", status=502) from None


def _cents(nanousd: int) -> float:
    return float(format_cents(nanousd))
