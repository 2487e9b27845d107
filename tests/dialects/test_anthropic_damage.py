"""Damaged requests and replies: a clear error of ours or a reading, never another exception. The count is small here; the command for
a long run is in CONTRIBUTING.md."""

from __future__ import annotations

import json
import os
import random
from typing import Any

import pytest

from aigate.core.edits import apply_to_request, plan_request
from aigate.core.neutral import leave_home
from aigate.core.usage import NOTHING
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ClientError, ProviderError
from aigate.providers.quirks import ANTHROPIC
from tests.dialects.anthropic_recorded import MESSAGES, Head, message_records, messages_target, plain_messages
from tests.dialects.mutation import damage
from tests.dialects.recorded import HEAD, chat_records, needs_recordings, target

pytestmark = needs_recordings
TIMES = int(os.environ.get("AIGATE_FUZZ_TIMES", "4"))
CHAT = DIALECTS["openai-chat"]
WHERES: Any = {"openai-chat": target(), "anthropic-messages": messages_target()}


@pytest.mark.parametrize("record", message_records(), ids=lambda record: record["id"])
def test_a_damaged_request_is_read_or_refused(record: dict[str, Any]) -> None:
    chance = random.Random(record["id"])
    for _ in range(TIMES):
        body = json.dumps(damage({"max_tokens": 9, **record["request"]}, chance)).encode()
        for dialect in (CHAT, MESSAGES):
            try:
                call = MESSAGES.read_call(body, "chat", Head())
                request = MESSAGES.read_request(call)
                apply_to_request(request, plan_request(call, request, WHERES[dialect.name], MESSAGES.params).edits)
                dialect.lost(request, WHERES[dialect.name])
                leave_home(request, dialect.name)
                json.loads(dialect.write_request(request, WHERES[dialect.name]))
            except ClientError as error:
                assert error.status == 400, body


@pytest.mark.parametrize("record", plain_messages(), ids=lambda record: record["id"])
def test_a_damaged_reply_is_read_or_refused(record: dict[str, Any]) -> None:
    chance = random.Random(record["id"])
    for _ in range(TIMES):
        body = json.dumps(damage(json.loads(record["response"]), chance)).encode()
        for dialect in (CHAT, MESSAGES):
            try:
                opened = MESSAGES.open_reply(body, messages_target())
                reply = MESSAGES.read_reply(body, messages_target())
                leave_home(reply, dialect.name)
                settlement = Settlement(opened.usage or NOTHING, 0, opened.raw_usage)
                json.loads(dialect.write_reply(reply, "m", settlement))
            except ProviderError as error:
                assert error.kind in ("bad_reply", "error", "rejected"), body


@pytest.mark.parametrize("record", chat_records()[::5], ids=lambda record: record["id"])
def test_a_damaged_chat_request_and_reply_cross_or_are_refused(record: dict[str, Any]) -> None:
    chance = random.Random(record["id"])
    where = messages_target(quirks=ANTHROPIC[0][1])
    for _ in range(TIMES):
        body = json.dumps(damage(record["request"], chance)).encode()
        try:
            call = CHAT.read_call(body, "chat", HEAD)
            request = CHAT.read_request(call)
            apply_to_request(request, plan_request(call, request, where, CHAT.params).edits)
            MESSAGES.lost(request, where)
            leave_home(request, MESSAGES.name)
            json.loads(MESSAGES.write_request(request, where))
        except ClientError as error:
            assert error.status == 400, body
        if record["stream"] or record["status"] != 200:
            continue
        answer = json.dumps(damage(json.loads(record["response"]), chance)).encode()
        try:
            reply = CHAT.read_reply(answer, target())
            leave_home(reply, MESSAGES.name)
            json.loads(MESSAGES.write_reply(reply, "m", Settlement(NOTHING, 0)))
        except ProviderError as error:
            assert error.provider_status or error.kind, answer
