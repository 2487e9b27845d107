"""Damaged requests, replies and streams of all four formats, read and crossed into any of them: a clear error of ours or a reading, never
another exception. AIGATE_FUZZ_TIMES says how often each recording is damaged; CONTRIBUTING.md has the command for a million cases."""

from __future__ import annotations

import json
import os
import random
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.neutral import leave_home
from aigate.core.target import Quirks
from aigate.core.usage import NOTHING
from aigate.dialects.dialect import Settlement
from aigate.errors import ClientError, ProviderError
from tests.dialects.formats import ASKED, FORMATS, Format, call_of, crossed, name_of, records, where
from tests.dialects.mutation import damage
from tests.dialects.recorded import needs_recordings
from tests.dialects.streaming import slices

pytestmark = needs_recordings

TIMES = int(os.environ.get("AIGATE_FUZZ_TIMES", "1"))
SEED = os.environ.get("AIGATE_FUZZ_SEED", "")
ERROR_KINDS = ("bad_reply", "error", "rejected", "overloaded", "rate_limited", "cut", "unauthorized", "not_found", "timeout")
each_format = pytest.mark.parametrize("form", FORMATS.values(), ids=name_of)
QUIRKS = (
    Quirks(), Quirks(thinking="budget"), Quirks(thinking="adaptive", effort=("low", "high"), forces_tools=False), Quirks(takes_schema=False, needs_signatures=True),
    Quirks(effort=(), unsupported=frozenset({"stop", "tools"}), clamps={"temperature": (0, 1)}),
)  # fmt: skip


def campaign(form: Format, found: list[dict[str, Any]], case: Callable[[dict[str, Any], random.Random, Format], None]) -> None:
    """Runs `case` on every record so often, and tells all that fell out at once: what was raised, where, and how often."""
    failures: Counter[str] = Counter()
    chance = random.Random(f"{SEED}{form.name}{case.__name__}")
    others = list(FORMATS.values())
    for record in found:
        for _ in range(TIMES):
            try:
                case(record, chance, chance.choice(others))
            except Exception as error:  # noqa: BLE001 - what is looked for
                frame = next((frame for frame in reversed(traceback.extract_tb(error.__traceback__)) if "/aigate/" in frame.filename), None)
                failures[f"{type(error).__name__} at {frame and frame.filename}:{frame and frame.lineno}"] += 1
    assert not failures, "\n".join(f"{count} × {what}" for what, count in failures.most_common())


def garbled(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, and perhaps the end gone."""
    damaged = bytearray(data)
    for _ in range(chance.randint(1, 5)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged[: chance.randrange(len(damaged))] if chance.random() < 0.3 else damaged)


@each_format
def test_a_damaged_request_is_crossed_or_refused(form: Format) -> None:
    def request(record: dict[str, Any], chance: random.Random, other: Format) -> None:
        goal = where(other, chance.choice(QUIRKS))
        try:
            call = _damaged_call(form, record, chance)
            form.dialect.edit_pairs(call, (), goal)
            _cross(form, call, other, goal)
        except ClientError as error:
            assert error.status == 400
            assert error.param or "body" in error.message, error.message

    campaign(form, records(form, is_answered=False), request)


def _damaged_call(form: Format, record: dict[str, Any], chance: random.Random) -> Call:
    if chance.random() < 0.8:
        return call_of(form, damage(record["request"], chance))
    body = garbled(json.dumps({"max_tokens": 9, **record["request"]}, ensure_ascii=chance.random() < 0.5).encode(), chance)
    return form.dialect.read_call(body, form.endpoint, _Head())


class _Head:
    path, query = "/v1beta/models/mock/asked:generateContent", ""
    headers: dict[bytes, bytes] = {b"anthropic-version": b"2026-10-21"}


def _cross(form: Format, call: Call, other: Format, goal: Any) -> None:
    try:
        crossed(form, call, other, goal)
    except ClientError as error:
        assert "messages must be an array" in error.message or error.param, error.message


@each_format
def test_a_damaged_reply_is_crossed_or_refused(form: Format) -> None:
    def reply(record: dict[str, Any], chance: random.Random, other: Format) -> None:
        goal = where(form, Quirks(reasoning_field=chance.choice(("reasoning_content", "think_tags", "parts"))))
        data = record["response"].encode()
        body = json.dumps(damage(json.loads(data), chance)).encode() if chance.random() < 0.8 else garbled(data, chance)
        try:
            opened = form.dialect.open_reply(body, goal)
            settlement = Settlement(opened.usage or NOTHING, 0, opened.raw_usage, is_usage_whole=opened.is_usage_whole)
            if opened.pairs is not None:
                form.dialect.splice_reply(opened, goal, ASKED, settlement)
            read = form.dialect.read_reply(body, goal)
        except ProviderError as error:
            assert error.kind in ERROR_KINDS, error.kind
            return
        leave_home(read, other.name)
        json.loads(other.dialect.write_reply(read, ASKED, settlement))

    campaign(form, records(form, is_stream=False), reply)


@each_format
def test_a_damaged_stream_is_read_or_fails_in_the_stream(form: Format) -> None:
    def stream(record: dict[str, Any], chance: random.Random, other: Format) -> None:
        data = _damaged_stream(record["response"], chance)
        reader = form.dialect.stream_reader(where(form, Quirks(reasoning_field=chance.choice(("reasoning_content", "think_tags")))), chance.random() < 0.5)
        writer = other.dialect.stream_writer(Call(other.name, other.endpoint, {}, 0, (), is_array=chance.random() < 0.2), ASKED, "req_1")
        settlement = Settlement(NOTHING, 0)
        for events in [*(reader.feed(piece) for piece in slices(data, [chance.randint(1, 3000) for _ in range(5)])), reader.close()]:
            for event in events:
                settlement = settlement if event.usage is None else Settlement(event.usage, 0, event.raw_usage)
            writer.write([event for event in events if event.error is None])
        writer.finish(settlement)
        reader.text_so_far()

    campaign(form, records(form, is_stream=True) * 4, stream)


def _damaged_stream(text: str, chance: random.Random) -> bytes:
    if chance.random() < 0.3:
        return garbled(text.encode(), chance)
    lines = text.replace("\r\n", "\n").split("\n")
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(lines))
        if lines[at].startswith("data: {") and lines[at].endswith("}"):
            lines[at] = "data: " + json.dumps(damage(json.loads(lines[at][6:]), chance))
        elif chance.random() < 0.3:
            lines[at] = chance.choice(["", "data:", "data: {", ": x", "data: [DONE]", "event: error", "event: x", "data: []", 'data: "x"'])
    return "\n".join(lines).encode()
