"""Damaged requests, replies and streams of Gemini: a clear error of ours or a reading, never another exception."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.edits import apply_to_request, plan_request
from aigate.core.neutral import leave_home
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ClientError, ProviderError
from tests.dialects.gemini_traffic import GEMINI, call_of, gemini_target, plain_replies, records, stream_through, streams
from tests.dialects.mutation import damage
from tests.dialects.recorded import HEAD, chat_records, needs_recordings, target

pytestmark = needs_recordings
TIMES = int(os.environ.get("AIGATE_FUZZ_TIMES", "4"))
CHAT = DIALECTS["openai-chat"]
WHERES: Any = {"openai-chat": target(), "gemini": gemini_target("gemini-3.5-flash")}


@pytest.mark.parametrize("record", records(), ids=lambda record: record["id"])
def test_a_damaged_request_is_read_or_refused(record: dict[str, Any]) -> None:
    chance = random.Random(record["id"])
    for _ in range(TIMES):
        request = damage(record["request"], chance)
        for dialect in (CHAT, GEMINI):
            try:
                _cross(call_of(request), GEMINI, dialect)
            except ClientError as error:
                assert error.status == 400, request


def _cross(call: Call, source: Any, dialect: Any) -> None:
    request = source.read_request(call)
    where = WHERES[dialect.name]
    apply_to_request(request, plan_request(call, request, where, source.params).edits)
    dialect.lost(request, where)
    leave_home(request, dialect.name)
    json.loads(dialect.write_request(request, where))


def test_a_damaged_chat_request_is_written_or_refused() -> None:
    chance = random.Random(7)
    for record in chat_records()[::3]:
        body = json.dumps(damage(record["request"], chance)).encode()
        try:
            _cross(CHAT.read_call(body, "chat", HEAD), CHAT, GEMINI)
        except ClientError as error:
            assert error.status == 400, body


@pytest.mark.parametrize("record", plain_replies(), ids=lambda record: record["id"])
def test_a_damaged_reply_is_read_or_refused(record: dict[str, Any]) -> None:
    chance, where = random.Random(record["id"]), gemini_target()
    for _ in range(TIMES):
        body = json.dumps(damage(json.loads(record["response"]), chance)).encode()
        for dialect in (CHAT, GEMINI):
            try:
                opened = GEMINI.open_reply(body, where)
                reply = GEMINI.read_reply(body, where)
                leave_home(reply, dialect.name)
                settlement = Settlement(opened.usage or NOTHING, 0, opened.raw_usage)
                json.loads(dialect.write_reply(reply, "m", settlement))
                json.loads(GEMINI.splice_reply(opened, where, "m", settlement))
            except ProviderError as error:
                assert error.kind in ("bad_reply", "error", "rejected"), body


def test_a_damaged_stream_is_read_or_fails_in_the_stream() -> None:
    chance = random.Random(11)
    for record in streams() * TIMES:
        blocks = record["response"].replace("\r\n", "\n").split("\n\n")
        chunks = [damage(json.loads(block[6:]), chance) for block in blocks if block.startswith("data: ")]
        data = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in chunks)
        for dialect in (CHAT, GEMINI):
            writer = dialect.stream_writer(Call(dialect.name, "chat", {}, 0, ()), "m", "req_1")
            stream_through(data, GEMINI.stream_reader(gemini_target(), True), writer)


def test_streams_cut_and_garbled_anywhere_raise_nothing() -> None:
    chance = random.Random(13)
    for record in streams() * TIMES:
        data = bytearray(record["response"].encode())
        for _ in range(5):
            data[chance.randrange(len(data))] = chance.randrange(256)
        reader = GEMINI.stream_reader(gemini_target(), True)
        writer = GEMINI.stream_writer(Call("gemini", "chat", {}, 0, ()), "m", "req_1")
        stream_through(bytes(data[: chance.randrange(len(data))]), reader, writer, (997,))
