"""Recorded traffic of real providers through a real gateway: what a provider gets, what a client gets, what the ledger says.

On both lanes, and again after changes of every recording that mean nothing. No test knows a recording.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple

import openai
import pytest
from openai import Stream
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from aigate.core.price import format_cents
from tests.dialects.recorded import needs_recordings
from tests.e2e.meaning import client_reply, client_usage, fold, ledger_tokens, stream_usage, with_minted_ids
from tests.e2e.recorded import Record, Spelling, as_it_is, escaped, records, respell, shuffled
from tests.e2e.replay import Bench, Reply, bench, replay_config

pytestmark = needs_recordings

LANES = {"fast": None, "neutral": {"AIGATE_SERVER_FORCE_NEUTRAL": "true"}}
SPELLINGS = (as_it_is, shuffled, escaped)
Problems = list[tuple[str, Any, Any]]


class Played(NamedTuple):
    """One recording, played through the gateway."""

    record: Record
    sent: dict[str, Any]  # what the provider got
    reply: Reply  # what the client got
    row: dict[str, Any]  # its attempt in the ledger

    @property
    def is_error(self) -> bool:
        """An error, also one under status 200."""
        return self.record.status >= 400 or (not self.record.is_stream and "error" in json.loads(self.record.response))

    @property
    def chunks(self) -> list[Any]:
        blocks = self.reply.body.decode().split("\n\n")
        assert blocks[-2:] == ["data: [DONE]", ""]
        return [json.loads(block.removeprefix("data: ")) for block in blocks[:-2] if not block.startswith(":")]

    @property
    def error_of_stream(self) -> Any:
        return next((event["error"] for event in self.record.events if event.get("error")), None)


BenchOf = Callable[[str], Bench]
Play = Callable[[str, Spelling], list[Played]]


@pytest.fixture(scope="module")
def bench_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BenchOf]:
    """lane → a gateway that works so, started when first asked for."""
    providers = {record.provider for record in records()}
    with ExitStack() as stack:
        yield cache(lambda lane: stack.enter_context(bench(tmp_path_factory.mktemp(lane), replay_config(providers), LANES[lane])))


@pytest.fixture(scope="module")
def play(bench_of: BenchOf) -> Play:
    """(lane, spelling) → every recording played that way; once for all tests."""
    return cache(lambda lane, spell: play_all(bench_of(lane), spell))


def play_all(bench: Bench, spell: Spelling) -> list[Played]:
    replies = []
    for record in records():
        bench.replay.answer(record.status, record.content_type, respell(record, spell))
        reply = bench.post("/v1" + record.endpoint, spell({**record.request, "model": record.slug}).encode())
        replies.append((record, json.loads(bench.replay.request), reply))
        assert bench.replay.path == "/v1" + record.endpoint
    rows = bench.attempts()
    none_of([(record.id, reply, "a ledger row") for record, _, reply in replies if reply.headers["x-request-id"] not in rows])
    return [Played(record, sent, reply, rows[reply.headers["x-request-id"]]) for record, sent, reply in replies]


every_way = pytest.mark.parametrize(
    ("lane", "spell"), [(lane, spell) for lane in LANES for spell in SPELLINGS], ids=lambda value: getattr(value, "__name__", value)
)


def none_of(problems: Problems) -> None:
    told = "\n".join(f"{name}\n  came: {came!s:.1500}\n  due:  {due!s:.1500}" for name, came, due in problems[:5])
    assert not problems, f"{len(problems)} recordings\n{told}"


@every_way
def test_requests_reach_the_provider_as_they_were_sent(play: Play, lane: str, spell: Spelling) -> None:
    """Usage is asked for in streams; nothing else is changed in what a real provider accepted from a real client."""
    problems: Problems = []
    for record, sent, reply, _ in play(lane, spell):
        own, options = record.request.get("stream_options"), sent.get("stream_options")
        if {**sent, "stream_options": 0} != {**record.request, "model": record.upstream_model, "stream_options": 0}:
            problems.append((record.id, sent, record.request))
        if options not in (own, {**(own or {}), "include_usage": True}):
            problems.append((record.id, options, own))
        if record.status == 200 and "x-aig-warning" in reply.headers:
            problems.append((record.id, reply.headers["x-aig-warning"], "no warning"))
    none_of(problems)


@every_way
def test_plain_replies_reach_the_client(play: Play, lane: str, spell: Spelling) -> None:
    problems: Problems = []
    for played in play(lane, spell):
        record, _, reply, row = played
        if played.is_error or record.is_stream:
            continue
        recorded, came = json.loads(record.response), reply.json
        usage = came.pop("usage")
        due = with_minted_ids(came, client_reply(recorded, record.slug))
        due_usage = client_usage(recorded["usage"], row["cost_nanousd"] / 1e9)
        if (reply.status, came) != (200, due):
            problems.append((record.id, came, due))
        if usage != due_usage:
            problems.append((record.id, usage, due_usage))
        if reply.headers["x-cost-cents"] != format_cents(row["cost_nanousd"]):
            problems.append((record.id, reply.headers["x-cost-cents"], row["cost_nanousd"]))
    none_of(problems)


@every_way
def test_streams_reach_the_client(play: Play, lane: str, spell: Spelling) -> None:
    problems: Problems = []
    for played in play(lane, spell):
        record, _, reply, row = played
        if record.status != 200 or not record.is_stream:
            continue
        chunks, events = played.chunks, record.events
        last = chunks.pop()
        if played.error_of_stream is not None:
            if last["error"]["origin"] != "provider":
                problems.append((record.id, last, played.error_of_stream))
        else:
            asked = (record.request.get("stream_options") or {}).get("include_usage")
            due_choices = [] if asked else [{"index": 0, "delta": {}, "finish_reason": None}]
            reported = stream_usage(events)
            due_usage = last["usage"] if reported is None else client_usage(reported, row["cost_nanousd"] / 1e9)
            if (last["choices"], last["usage"]) != (due_choices, due_usage):
                problems.append((record.id, last, due_usage))
        if fold(chunks) != fold(events):
            problems.append((record.id, fold(chunks), fold(events)))
        if any(chunk["model"] != record.slug or chunk.get("usage") for chunk in chunks):
            problems.append((record.id, "model or usage", record.slug))
    none_of(problems)


@every_way
def test_the_ledger_says_what_the_provider_said(play: Play, lane: str, spell: Spelling) -> None:
    problems: Problems = []
    for played in play(lane, spell):
        record, _, _, row = played
        if played.is_error:
            due: dict[str, Any] = {"end": "failed", "cost_nanousd": 0}
        else:
            reported = stream_usage(record.events) if record.is_stream else json.loads(record.response)["usage"]
            due = {"end": "complete" if played.error_of_stream is None else "failed"}
            due |= {} if reported is None else {"usage_source": "reported", **ledger_tokens(reported)}
            if reported is not None and json.loads(row["raw_usage"]) != reported:
                problems.append((record.id, row["raw_usage"], reported))
            if reported is None and row["usage_source"] not in ("counted", "estimated"):
                problems.append((record.id, row["usage_source"], "counted or estimated"))
        due |= {"provider": record.provider, "model": record.slug}
        due |= {} if played.is_error and record.status == 200 else {"provider_status": record.status}
        came = {key: row[key] for key in due}
        if came != due:
            problems.append((record.id, came, due))
    none_of(problems)


@every_way
def test_a_providers_error_keeps_its_status_and_its_words(play: Play, lane: str, spell: Spelling) -> None:
    problems: Problems = []
    for played in play(lane, spell):
        record, _, reply, _ = played
        if not played.is_error:
            continue
        body = json.loads(record.response)["error"]
        due = 502 if record.status in (401, 402, 403) else record.status
        error = reply.json["error"]
        facts = (error["origin"], error["provider"], error["status"], error["request_id"], error["retryable"])
        if record.status == 200:
            due = error["status"]  # the body alone tells it; a test of the dialect looks at that
        if reply.status != due or due < 400 or facts != ("provider", record.provider, due, reply.headers["x-request-id"], False):
            problems.append((record.id, (reply.status, error), due))
        if body["message"][:100] not in error["message"]:
            problems.append((record.id, error["message"], body["message"]))
    none_of(problems)


def test_both_lanes_and_every_spelling_come_to_the_same(play: Play) -> None:
    """The clients' bytes as JSON, warnings, and rows but for ids and times."""
    problems: Problems = []
    plain = play("fast", as_it_is)
    for lane in LANES:
        for spell in SPELLINGS:
            for one, other in zip(plain, play(lane, spell), strict=True):
                if essence(one) != essence(other):
                    problems.append((f"{one.record.id} {lane} {spell.__name__}", essence(other), essence(one)))
    none_of(problems)


@pytest.mark.parametrize("lane", LANES)
def test_the_sdk_reads_every_reply_and_streams_in_the_quickstarts_loop(bench_of: BenchOf, lane: str) -> None:
    bench, problems = bench_of(lane), []
    with openai.OpenAI(base_url=bench.gateway.url + "/v1", api_key=bench.gateway.key, max_retries=0) as client:
        for record in records():
            bench.replay.answer(record.status, record.content_type, record.response.encode())
            try:
                came = read_by_sdk(client, record)
            except openai.APIError as error:
                came = error.body["origin"]  # type: ignore[index]
            if came != (due := due_by_sdk(record)):
                problems.append((record.id, came, due))
    none_of(problems)


def read_by_sdk(client: openai.OpenAI, record: Record) -> Any:
    request: dict[str, Any] = {**record.request, "model": record.slug}
    if record.endpoint == "/embeddings":
        return client.post(record.endpoint, body=request, cast_to=CreateEmbeddingResponse).data[0].embedding
    if not record.is_stream:
        reply = client.post(record.endpoint, body=request, cast_to=ChatCompletion)
        return [(choice.finish_reason, choice.message.content, len(choice.message.tool_calls or [])) for choice in reply.choices]
    request.pop("stream_options", None)  # who sends it reads chunks without choices, which the quickstart does not
    text = ""
    for chunk in client.post(record.endpoint, body=request, cast_to=ChatCompletion, stream=True, stream_cls=Stream[ChatCompletionChunk]):
        if chunk.choices[0].index == 0:
            text += chunk.choices[0].delta.content or ""
    return text, chunk.usage is not None


def due_by_sdk(record: Record) -> Any:
    if record.is_stream:
        if record.status != 200 or any(event.get("error") for event in record.events):
            return "provider"
        return (fold(record.events)[0]["text"] or "", True)
    reply = json.loads(record.response)
    if record.status != 200 or "error" in reply:
        return "provider"
    if record.endpoint == "/embeddings":
        return reply["data"][0]["embedding"]
    choices = client_reply(reply, record.slug)["choices"]
    return [
        (choice["finish_reason"], choice["message"].get("content"), len(choice["message"].get("tool_calls") or [])) for choice in choices
    ]


def essence(played: Played) -> tuple[object, ...]:
    record, sent, reply, row = played
    is_stream = record.is_stream and record.status == 200
    body = json.dumps(played.chunks if is_stream else reply.json, sort_keys=True)
    passing = ("x-request-id", "date", "content-length")
    headers = {name: value for name, value in reply.headers.items() if name not in passing}
    changing = ("attempt_id", "call_id", "sent_ms", "latency_ms", "ttft_ms", "raw_usage", "hold_nanousd")
    row = {name: value for name, value in row.items() if name not in changing}
    return sent, reply.status, headers, body.replace(reply.headers["x-request-id"], "req_"), row
