"""Mutated traffic of OpenAI Responses: whatever comes, readers raise nothing but their own clear errors, and writers nothing at all.

AIGATE_FUZZ_ROUNDS sets how many mutations of each kind are tried.
"""

from __future__ import annotations

import json
import os
import random
from typing import Any

from aigate.core.call import Call
from aigate.core.neutral import leave_home
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ClientError, ProviderError
from tests.dialects.recorded import HEAD, needs_recordings, target
from tests.dialects.test_openai_responses_laws import calls, plain, streams

RESPONSES, CHAT = DIALECTS["openai-responses"], DIALECTS["openai-chat"]
ROUNDS = int(os.environ.get("AIGATE_FUZZ_ROUNDS", "600"))
ODD: list[Any] = [None, True, 0, -1, 1.5, 10**30, "", "x", "message", "reasoning", [], [None], ["x"], {}, {"type": []}, {"type": "function"}]

pytestmark = needs_recordings


def mutated(value: Any, chance: random.Random) -> Any:
    """`value` with one to three places changed."""
    value = json.loads(json.dumps(value))
    for _ in range(chance.randint(1, 3)):
        place: Any = value
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], dict | list) and place[key] and chance.random() < 0.8:
                place = place[key]
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = json.loads(json.dumps(chance.choice(ODD)))
            break
    return value


def test_requests() -> None:
    chance, seen = random.Random(1), [record["request"] for record, _ in calls()]
    refused = 0
    for _ in range(ROUNDS):
        body = json.dumps(mutated(chance.choice(seen), chance)).encode()
        try:
            call = RESPONSES.read_call(body, "responses", HEAD)
            RESPONSES.edit_pairs(call, (), target())
            request = RESPONSES.read_request(call)
        except ClientError as error:
            assert error.param
            refused += 1
            continue
        RESPONSES.write_request(request, target())
        request = RESPONSES.read_request(call)
        CHAT.lost(request, target())
        leave_home(request, CHAT.name)
        CHAT.write_request(request, target())
    assert 0 < refused < ROUNDS


def test_replies() -> None:
    chance, seen = random.Random(2), [json.loads(record["response"]) for record in plain()]
    for _ in range(ROUNDS):
        body = json.dumps(mutated(chance.choice(seen), chance)).encode()
        try:
            opened = RESPONSES.open_reply(body, target())
            reply = RESPONSES.read_reply(body, target())
        except ProviderError:
            continue
        settlement = Settlement(opened.usage or NOTHING, 1, opened.raw_usage)
        RESPONSES.splice_reply(opened, target(), "a/b", settlement)
        RESPONSES.write_reply(reply, "a/b", settlement)
        leave_home(reply, CHAT.name)
        CHAT.write_reply(reply, "a/b", settlement)


def test_streams() -> None:
    chance, seen = random.Random(3), [record["response"] for record in streams()]
    for _ in range(ROUNDS // 4):
        lines = chance.choice(seen).split("\n")
        for _ in range(chance.randint(1, 4)):
            at = chance.randrange(len(lines))
            if lines[at].startswith("data: {") and lines[at].endswith("}"):
                lines[at] = "data: " + json.dumps(mutated(json.loads(lines[at][6:]), chance))
            elif chance.random() < 0.3:
                lines[at] = chance.choice(["", "data:", "data: {", ": x", "data: [DONE]"])
        for surface in (RESPONSES, CHAT):
            reader = RESPONSES.stream_reader(target(), True)
            writer = surface.stream_writer(Call(surface.name, "chat", {}, 0, ()), "a/b", "req_1")
            events = reader.feed("\n".join(lines).encode()) + reader.close()
            writer.write([event for event in events if event.error is None])
            writer.finish(Settlement(NOTHING, 0))
            reader.text_so_far()
