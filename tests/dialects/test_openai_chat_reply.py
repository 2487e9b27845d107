"""Plain replies of OpenAI chat: spliced and by the neutral form, which must agree; usage; what is no reply."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.neutral import Choice, Reasoning, Reply, Text, ToolCall
from aigate.core.target import Quirks, Target
from aigate.core.usage import Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ProviderError
from tests.dialects.recorded import needs_recordings, plain_replies, recorded_target, streams, target
from tests.dialects.streaming import fold, stream_through

CHAT = DIALECTS["openai-chat"]
COST = {"cost": 0.0012345}
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def reply_of(message: dict[str, Any], **fields: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": "stop"}
    head = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1_700_000_000, "model": "upstream"}
    return json.dumps({**head, "choices": [choice], "usage": USAGE, **fields}).encode()


def answered(body: bytes, where: Target) -> dict[str, Any]:
    """What the client gets; both lanes must say the same, as far as the fast one goes."""
    opened = CHAT.open_reply(body, where)
    usage, raw_usage = opened.usage, opened.raw_usage
    settlement = Settlement(usage or Usage(1, 2), 1_234_500, raw_usage)
    neutral = json.loads(CHAT.write_reply(CHAT.read_reply(body, where), "mock/asked", settlement))
    spliced = CHAT.splice_reply(opened, where, "mock/asked", settlement)
    if spliced is not None:
        assert json.loads(spliced) == neutral
    return neutral


def test_model_and_cost_are_ours_and_the_rest_is_the_providers() -> None:
    body = reply_of({"content": "hi", "refusal": None, "annotations": []}, x_groq={"id": "r"}, service_tier="default")
    wanted = json.loads(body) | {"model": "mock/asked", "usage": {**USAGE, **COST}}
    assert answered(body, target()) == wanted
    assert CHAT.splice_reply(CHAT.open_reply(body, target()), target(), "mock/asked", Settlement(Usage(7, 3), 0)) is not None
    assert CHAT.open_reply(body, target()).service_tier == "default"


def test_missing_usage_is_filled_from_ours() -> None:
    body = reply_of({"content": "hi"}, usage=None)
    assert CHAT.open_reply(body, target()).usage is None
    assert answered(body, target())["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3, **COST}


def test_padding_is_dropped() -> None:
    assert "p" not in answered(reply_of({"content": "hi"}, p="abc"), target(Quirks(drops=frozenset({"p"}))))


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"content": "x", "reasoning": "hm"}, "reasoning"),
        ({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]}, {"type": "text", "text": "x"}]}, "parts"),
        ({"content": "<think>hm</think>x"}, "think_tags"),
        ({"content": "x", "reasoning_content": "hm"}, "reasoning_content"),
        ({"content": "\u003cthink>hm</think>x"}, "think_tags"),
    ],
)
def test_reasoning_is_reasoning_content_wherever_it_sat(message: dict[str, Any], field: str) -> None:
    said = answered(reply_of(message), target(Quirks(reasoning_field=field)))["choices"][0]["message"]
    assert (said["reasoning_content"], said["content"], said.get("reasoning")) == ("hm", "x", None)


def test_arguments_as_an_object_become_text() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": {"a": 1}}}
    body = reply_of({"content": None, "tool_calls": [call]})
    assert CHAT.splice_reply(CHAT.open_reply(body, target()), target(), "mock/asked", Settlement(Usage(7, 3), 0)) is None
    assert answered(body, target())["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] == '{"a":1}'


def test_content_in_parts_becomes_text_whoever_sends_it() -> None:
    body = reply_of({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]})
    assert CHAT.splice_reply(CHAT.open_reply(body, target()), target(), "mock/asked", Settlement(Usage(7, 3), 0)) is None
    assert answered(body, target())["choices"][0]["message"]["content"] == "ab"


@pytest.mark.parametrize("is_known", [True, False])
def test_tool_calls_without_id_get_the_same_one_every_time(is_known: bool) -> None:
    calls = [{"id": "", "type": "function", "function": {"name": name, "arguments": "{}"}} for name in "fg"]
    body = reply_of({"content": None, "tool_calls": calls})
    first, again = (answered(body, target(Quirks(mints_tool_ids=is_known)))["choices"][0]["message"]["tool_calls"] for _ in range(2))
    assert first == again
    assert len({call["id"] for call in first} - {""}) == 2
    opened = CHAT.open_reply(body, target())
    assert CHAT.splice_reply(opened, target(), "mock/asked", Settlement(Usage(1, 2), 0, b"")) is None


def test_the_neutral_form_names_what_a_reply_means() -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]
    reply = CHAT.read_reply(reply_of({"content": "x", "reasoning_content": "hm", "tool_calls": calls}), target())
    assert reply.choices[0].parts == [Reasoning("hm"), Text("x"), ToolCall("c", "f", "{}")]
    assert (reply.usage, reply.choices[0].finish_reason) == (Usage(7, 3), "stop")


def test_what_another_dialect_answered_is_written_in_this_one() -> None:
    reply = Reply("r", 5, "m", [Choice(0, [Text("a"), Text("b")], "stop")])
    message = json.loads(CHAT.write_reply(reply, "mock/asked", Settlement(Usage(1, 1), 0)))["choices"][0]["message"]
    assert message == {"role": "assistant", "content": "ab"}


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"{}", b'{"choices":null}', b'{"choices":"x"}', b'{"choices":[1', b'{"choices":[{}'])
def test_what_is_no_reply_is_a_bad_reply(body: bytes) -> None:
    for read in (CHAT.read_reply, CHAT.open_reply):
        with pytest.raises(ProviderError) as caught:
            read(body, target())
        assert caught.value.kind == "bad_reply"


def test_what_only_lenient_readers_take_is_metered_and_passed_as_it_came() -> None:
    body = reply_of({"content": "hi"}).replace(b'"hi"', rb'"\ud800"')
    opened = CHAT.open_reply(body, target())
    assert opened.usage == CHAT.open_reply(reply_of({"content": "hi"}), target()).usage
    assert CHAT.splice_reply(opened, target(), "mock/asked", Settlement(Usage(), 0)) == body


def test_an_error_under_status_200_is_an_error() -> None:
    with pytest.raises(ProviderError) as caught:
        CHAT.open_reply(b'{"error":{"message":"slow down","code":429}}', target())
    assert (caught.value.kind, caught.value.status) == ("rate_limited", 429)


def test_blank_lines_before_a_reply_are_passed_over() -> None:
    assert answered(b"\n\n\n" + reply_of({"content": "x"}), target())["choices"][0]["message"]["content"] == "x"


@needs_recordings
def test_every_recorded_reply_reaches_the_client_equal() -> None:
    for record in plain_replies():
        body, where = record["response"].encode(), recorded_target(record)
        given = json.loads(body)
        if "choices" not in given:
            with pytest.raises(ProviderError):
                answered(body, where)
            continue
        got = answered(body, where)
        assert got["usage"].items() >= {**(given.get("usage") or {}), **COST}.items(), record["id"]
        for choice, original in zip(got["choices"], given["choices"], strict=True):
            assert _said(choice["message"]) == _said(original["message"]), record["id"]
            assert choice["finish_reason"] == original["finish_reason"]
        for key in given.keys() - {"model", "usage", "choices", "object"} - where.quirks.drops:
            assert got[key] == given[key]


def _said(message: dict[str, Any]) -> Any:
    """All that a message says, whatever field its reasoning is in, and its calls but for minted ids."""
    content = message.get("content")
    if isinstance(content, list):
        content = "".join(part.get("text") or "".join(piece["text"] for piece in part["thinking"]) for part in content)
    said = (message.get("reasoning_content") or message.get("reasoning") or "") + (content or "")
    calls = [(call["function"]["name"], call["function"].get("arguments") or "") for call in message.get("tool_calls") or []]
    return said.replace("<think>", "").replace("</think>", "").strip(), calls, message.get("refusal"), message.get("annotations")


@needs_recordings
def test_a_folded_stream_equals_the_plain_reply_of_the_same_words() -> None:
    for record in streams():
        where = recorded_target(record)
        streamed = stream_through(record["response"].encode(), where)
        for choice in fold(streamed.chunks).values():
            calls = [
                {"id": call["id"], "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
                for call in choice["tool_calls"].values()
            ]
            message = {"content": choice["content"], "reasoning_content": choice["reasoning_content"], "tool_calls": calls}
            said = answered(reply_of(message), target())["choices"][0]["message"]
            assert _said(said) == _said(message)
