"""The laws of crossing, over every pair of the four formats, on recorded traffic: nothing that both sides can say is lost, and what is lost
is said. AIGATE_LAWS_ALL=1 takes every recording instead of a sample. Nothing here is keyed to a recording."""

from __future__ import annotations

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from aigate.core.call import Call, Warning
from aigate.core.neutral import Choice, Reply, Request, leave_home
from aigate.core.target import Target
from aigate.core.usage import NOTHING, Usage
from aigate.dialects.dialect import Settlement
from aigate.errors import ProviderError
from tests.dialects.formats import (
    ASKED,
    CROSSINGS,
    FORMATS,
    PAIRS,
    Format,
    call_of,
    crossed,
    name_of,
    records,
    requests,
    streamed,
    where,
    where_recorded,
)  # fmt: skip
from tests.dialects.generated import events_of
from tests.dialects.generated import requests as generated_requests
from tests.dialects.generated import said as generated_answers
from tests.dialects.meaning import conversation, finish_told, folded, told
from tests.dialects.recorded import ALL, needs_recordings
from tests.dialects.sdk_readers import check_stream
from tests.dialects.streaming import MAX_BYTES_ONE_BY_ONE
from tests.dialects.wire_meaning import MODEL_KEYS, REPLIES, REQUESTS, USAGE_KEYS
from tools.losses import loss_of

pytestmark = needs_recordings

each_format = pytest.mark.parametrize("form", FORMATS.values(), ids=name_of)
each_pair = pytest.mark.parametrize(("form", "other"), PAIRS, ids=name_of)
each_crossing = pytest.mark.parametrize(("form", "other"), CROSSINGS, ids=name_of)


# --- (a) reading and writing are one identity -----------------------------------------------------------------------------------------


@each_format
def test_a_request_read_and_written_means_the_same(form: Format) -> None:
    meaning = REQUESTS[form.name]
    for record, call in requests(form):
        wanted, goal = meaning(record["request"]), where(form)
        assert form.dialect.lost(form.dialect.read_request(call), goal) == [], record["id"]
        written = json.loads(form.dialect.write_request(form.dialect.read_request(call), goal))
        edited = json.loads(form.dialect.edit_pairs(call, (), goal))
        assert meaning(written) == wanted, record["id"]
        assert meaning(edited) == wanted, record["id"]


@each_format
def test_a_reply_read_and_written_means_the_same(form: Format) -> None:
    meaning = REPLIES[form.name]
    for record, reply in replies(form):
        body, goal = record["response"].encode(), where_recorded(form, record)
        opened = form.dialect.open_reply(body, goal)
        settlement = Settlement(opened.usage or NOTHING, 1_000, opened.raw_usage, is_usage_whole=opened.is_usage_whole)
        written = json.loads(form.dialect.write_reply(reply, ASKED, settlement))
        lanes = [written]
        spliced = form.dialect.splice_reply(opened, goal, ASKED, settlement)
        if spliced is not None:
            lanes.append(json.loads(spliced))
        for lane in lanes:
            assert lane[MODEL_KEYS.get(form.name, "model")] == ASKED
            if goal.quirks.reasoning_field not in ("think_tags", "parts"):  # what a provider puts into its text is told apart
                assert meaning(lane) == meaning(json.loads(body)), record["id"]
        usages = [lane.get(USAGE_KEYS.get(form.name, "usage")) for lane in lanes]
        assert usages[0] == usages[-1], record["id"]


def replies(form: Format) -> list[tuple[dict[str, Any], Reply]]:
    """Recorded plain replies, read; not what is an error under status 200."""
    found = []
    for record in records(form, is_stream=False):
        try:
            found.append((record, form.dialect.read_reply(record["response"].encode(), where_recorded(form, record))))
        except ProviderError as error:
            assert error.kind != "bad_reply", record["id"]
    return found


# --- (b) crossing and coming back -------------------------------------------------------------------------------------------------------


@each_pair
def test_a_conversation_is_the_same_there_and_back(form: Format, other: Format) -> None:
    for record, call in requests(form):
        before = conversation(form.dialect.read_request(call))
        if not before["turns"]:
            continue  # nothing but an empty text, which not every format takes
        there, warnings, body = crossed(form, call, other, where(other))
        assert_same(before, conversation(there), warnings, record["id"])
        back, more, _ = crossed(other, call_of(other, json.loads(body), is_stream=call.is_stream), form, where(form))
        assert_same(before, conversation(back), [*warnings, *more], record["id"])


def assert_same(before: Any, after: Any, warnings: list[Warning], record: str) -> None:
    """Texts, calls, results and tools are the same without excuse; media are, but for those that were warned of."""
    said = " ".join(warning.reason for warning in warnings if warning.kind == "emulated")
    assert after["instructions"] == before["instructions"] or ("instructions" in said and after["instructions"].startswith(before["instructions"])), record
    assert after["tools"] == before["tools"], record
    assert [side for side, _ in after["turns"]] == [side for side, _ in before["turns"]], record
    missing: Counter[Any] = Counter()
    for (_, one), (_, two) in zip(before["turns"], after["turns"], strict=True):
        assert (two["text"], two["calls"], two["results"]) == (one["text"], one["calls"], one["results"]), record
        missing += Counter(one["media"]) - Counter(two["media"])
        assert not Counter(two["media"]) - Counter(one["media"]), record
    assert missing.total() <= sum(warning.param.startswith("messages[") for warning in warnings), record


@each_pair
@settings(max_examples=200 if ALL else 8, deadline=None, suppress_health_check=list(HealthCheck))
@given(generated=generated_requests())
def test_a_made_up_conversation_is_the_same_there_and_back(form: Format, other: Format, generated: Request) -> None:
    """Of any parts whatever: first as `form` can say it, then as a call of that format."""
    before = conversation(generated)
    warnings = form.dialect.lost(generated, where(form))
    leave_home(generated, form.name)
    call = call_of(form, json.loads(form.dialect.write_request(generated, where(form))))
    read = conversation(form.dialect.read_request(call))
    assert_same(before, read, warnings, "generated")
    there, lost, body = crossed(form, call, other, where(other))
    assert_same(read, conversation(there), lost, "generated")
    back, more, _ = crossed(other, call_of(other, json.loads(body)), form, where(form))
    assert_same(read, conversation(back), [*lost, *more], "generated")


# Values that ask for what happens unasked, and parameters that say nothing of the answer (they name the caller, or a place in a cache).
DEFAULTS: dict[str, tuple[Any, ...]] = {
    "n": (1,), "modalities": (["text"],), "tool_choice": ("auto",), "parallel_tool_calls": (True,), "store": (False,), "logprobs": (False,),
    "presence_penalty": (0,), "frequency_penalty": (0,), "reasoning_effort": ("none",), "thinking": ({"type": "disabled"},),
    "response_format": ({"type": "text"},), "verbosity": ("medium",), "logit_bias": ({},), "metadata": ({},), "functions": ([],),
}  # fmt: skip
QUIET = ("stream_options", "store", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention", "prompt_cache_options")
REASONING = ("reasoning_effort", "thinking")  # one setting under two names


@each_crossing
def test_a_parameter_is_kept_or_warned_of(form: Format, other: Format) -> None:
    for record, call in requests(form):
        request = form.dialect.read_request(call)
        if not conversation(request)["turns"]:
            continue
        there, warnings, _ = crossed(form, call, other, where(other))
        told_of = " ".join(warning.param for warning in warnings)
        for name, raw in request.params.items():
            value = json.loads(bytes(raw))
            if name in QUIET or value is None or value in DEFAULTS.get(name, ()):
                continue
            names = REASONING if name in REASONING else (name,)
            is_kept = any(each in there.params for each in names)
            if name == "tool_choice" and not there.tools:
                continue  # where no tool is left, which is warned of, there is no choice among them
            assert is_kept or name in told_of or own_key(form, name) in told_of, (record["id"], name, value)
            if is_kept and name in ("temperature", "top_p", "top_k", "seed", "max_output_tokens", "response_format", "stop"):
                assert as_value(name, there.params[name]) == as_value(name, raw), (record["id"], name)


@each_crossing
def test_what_is_lost_stands_on_the_page(form: Format, other: Format) -> None:
    for record, call in requests(form):
        if conversation(form.dialect.read_request(call))["turns"]:
            for warning in crossed(form, call, other, where(other))[1]:
                assert loss_of(other.name, warning.reason), (record["id"], warning)


def as_value(name: str, raw: Any) -> Any:
    """One stop sequence is a list of one; a format's name and strictness are not said everywhere."""
    value = json.loads(bytes(raw))
    if name == "stop":
        return [value] if isinstance(value, str) else value
    if name == "response_format":
        return value["type"]
    return value


def own_key(form: Format, name: str) -> str:
    return next((key for key, neutral in form.dialect.params.items() if neutral == name), name)


@each_crossing
def test_a_reply_is_the_same_there_and_back(form: Format, other: Format) -> None:
    for record, reply in replies(form):
        if not reply.choices:
            continue
        first = reply.choices[0]
        before, usage = (told(first.parts), finish_told(first.finish_reason, told(first.parts))), reply.usage
        there = passed_on(reply, form, other, usage)
        assert reply_told(there) == before, record["id"]
        assert same_usage(there.usage, usage), record["id"]
        back = passed_on(there, other, form, usage)
        assert reply_told(back) == before, record["id"]
        assert same_usage(back.usage, usage), record["id"]


def passed_on(reply: Reply, form: Format, other: Format, usage: Usage | None) -> Reply:
    """The reply as a client of `other` would read it."""
    leave_home(reply, other.name)
    body = other.dialect.write_reply(reply, ASKED, Settlement(usage or NOTHING, 0))
    return other.dialect.read_reply(body, where(other))


def reply_told(reply: Reply) -> tuple[Any, str]:
    said = told(reply.choices[0].parts)
    return said, finish_told(reply.choices[0].finish_reason, said)


def same_usage(one: Usage | None, two: Usage | None) -> bool:
    """Every format tells the two totals; the classes inside them only where it has a place for them."""
    one, two = one or NOTHING, two or NOTHING
    inside = ("cached_tokens", "cache_write_tokens", "reasoning_tokens", "audio_input_tokens", "audio_output_tokens")
    totals = (one.input_tokens, one.output_tokens) == (two.input_tokens, two.output_tokens)
    return totals and all(getattr(one, key) in (0, getattr(two, key)) for key in inside)


@each_pair
@settings(max_examples=200 if ALL else 6, deadline=None, suppress_health_check=list(HealthCheck))
@given(parts=generated_answers())
def test_a_made_up_reply_and_its_stream_say_the_same(form: Format, other: Format, parts: list[Any]) -> None:
    usage = Usage(30, 20, 4, 0, 5)
    before = told(parts)
    wanted = before, finish_told("stop", before)
    reply = Reply("made-up", 1, "m", [Choice(0, parts, "tool_calls" if before["calls"] else "stop")], usage, dialect="generated")
    events = events_of(parts, usage)
    there = passed_on(passed_on(reply, form, form, usage), form, other, usage)
    assert reply_told(there) == wanted
    writer = form.dialect.stream_writer(Call(form.name, form.endpoint, {}, 0, (), include_usage=True), ASKED, "req_1")
    data = writer.write(events) + writer.finish(Settlement(usage, 0))
    sent = streamed(data, form, other, where(form), [7, 300])
    assert not sent.errors
    again = other.dialect.read_reply(json.dumps(other.fold(sent.out)).encode(), where(other))
    assert reply_told(again) == wanted
    assert same_usage(again.usage, usage) and same_usage(there.usage, usage)
    check_stream(other.name, sent.out, before)


# --- (c), (d) streams -------------------------------------------------------------------------------------------------------------------


def streams(form: Format) -> list[tuple[dict[str, Any], Target]]:
    return [(record, where_recorded(form, record)) for record in records(form, is_stream=True)]


@each_pair
def test_a_stream_folds_into_the_reply_that_it_stands_for(form: Format, other: Format) -> None:
    """By a reading of our own, by the other format's reader, and by its official SDK's."""
    for record, goal in streams(form):
        data = record["response"].encode()
        sent = streamed(data, form, other, goal)
        if sent.errors:
            continue
        before = folded(sent.events)
        said = before[0], finish_told(before[1], before[0])
        # A provider of chat may put reasoning and usage anywhere: test_recorded_streams.py has a reading of its own for that.
        plain = form.dialect.read_reply(json.dumps(form.fold(data)).encode(), goal) if form.name != "openai-chat" else None
        if plain is not None:
            assert reply_told(plain) == said, record["id"]
        again = other.dialect.stream_reader(where(other), False)
        events = again.feed(sent.out) + again.close()
        assert not [event.error for event in events if event.error], record["id"]
        read = folded(events)
        assert (read[0], finish_told(read[1], read[0])) == said, record["id"]
        reply = other.dialect.read_reply(json.dumps(other.fold(sent.out)).encode(), where(other))
        assert reply_told(reply) == said, record["id"]
        assert same_usage(reply.usage, sent.usage), record["id"]
        check_stream(other.name, sent.out, said[0])
        if form is other and plain is not None:
            meaning = REPLIES[form.name]
            assert without_empty_texts(meaning(form.fold(sent.out))) == without_empty_texts(meaning(form.fold(data))), record["id"]


@each_format
def test_a_stream_as_one_json_array_says_the_same(form: Format) -> None:
    for record, goal in streams(form)[:10]:
        gemini, data = FORMATS["gemini"], record["response"].encode()
        events, array = (streamed(data, form, gemini, goal, is_array=is_array) for is_array in (False, True))
        if not events.errors:
            sent = b"".join(b"data: %b\n\n" % json.dumps(chunk).encode() for chunk in json.loads(array.out))
            assert gemini.fold(sent) == gemini.fold(events.out), record["id"]


@each_pair
def test_a_stream_is_the_same_however_it_is_cut(form: Format, other: Format) -> None:
    chance = random.Random(f"{form.name} {other.name}")
    chosen = streams(form)
    for record, goal in chosen if ALL else chance.sample(chosen, min(len(chosen), 3)):
        data = record["response"].encode()
        cuts = [[chance.randint(1, 3000) for _ in range(20)], [chance.randint(1, 60) for _ in range(20)]]
        if len(data) <= MAX_BYTES_ONE_BY_ONE:
            cuts.append([1])
        lanes = [streamed(data, form, other, goal, is_spliced=is_spliced) for is_spliced in (True, False)]
        for whole, is_spliced in zip(lanes, (True, False), strict=True):
            for sizes in cuts:
                piecewise = streamed(data, form, other, goal, sizes, is_spliced=is_spliced)
                assert (piecewise.out, piecewise.usage) == (whole.out, whole.usage), record["id"]
        if not lanes[0].errors:  # the lane that does not decode may send an empty delta more
            assert without_empty_texts(other.fold(lanes[0].out)) == without_empty_texts(other.fold(lanes[1].out)), record["id"]


def without_empty_texts(reply: Any) -> Any:
    """Empty texts stand for nothing."""
    if isinstance(reply, dict):
        return {key: without_empty_texts(value) for key, value in reply.items()}
    if isinstance(reply, list):
        return [without_empty_texts(entry) for entry in reply if not (isinstance(entry, dict) and entry.get("text") == "" and "thoughtSignature" not in entry)]
    return reply
