"""Kept responses, without a database: what a call becomes that goes on from one, what of a reply is kept, how input is listed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import Raw

from aigate.core.call import Call
from aigate.dialects import DIALECTS
from aigate.dialects.openai_responses_kept import join_items, list_items, prepare, read_finished, turn_items

HEAD: Any = SimpleNamespace(path="/v1/responses", query="", headers={})
ANSWER = {"id": "resp_1", "output": [{"id": "msg_1", "type": "message", "role": "assistant", "content": []}]}


def read(**fields: Any) -> Call:
    return DIALECTS["openai-responses"].read_call(json.dumps({"model": "m", "input": "and now?", **fields}).encode(), "responses", HEAD)


def test_what_was_said_before_comes_first_and_counts() -> None:
    call = read(previous_response_id="resp_1")
    earlier = join_items(turn_items(b'"hello"', json.dumps(ANSWER).encode()))
    made = prepare(call, is_kept=True, earlier=earlier)
    said = json.loads(bytes(made.pairs["input"]))
    assert [item.get("role") for item in said] == ["user", "assistant", "user"]
    assert (said[0]["content"][0]["text"], said[2]["content"][0]["text"]) == ("hello", "and now?")
    assert made.body_bytes >= call.body_bytes + len(earlier)
    assert bytes(call.pairs["input"]) == b'"and now?"' and "store" not in call.pairs  # every attempt starts from the call as it came


def test_a_provider_hears_nothing_of_what_is_kept_here() -> None:
    target: Any = SimpleNamespace(upstream_model="up", model=SimpleNamespace(is_reasoning=False))
    made = prepare(read(previous_response_id="resp_1"), is_kept=True, earlier=b"[]")
    sent = json.loads(DIALECTS["openai-responses"].edit_pairs(made, (), target))
    assert sent["store"] is False and "previous_response_id" not in sent


@pytest.mark.parametrize(("fields", "is_kept"), [({}, True), ({"store": None}, True), ({"store": True}, True), ({"store": False}, False)])
def test_a_response_is_kept_unless_the_caller_says_no(fields: dict[str, Any], is_kept: bool) -> None:
    assert read(**fields).is_kept is is_kept


def test_a_finished_response_is_found_in_a_plain_reply_and_at_the_end_of_a_stream() -> None:
    body = json.dumps({**ANSWER, "text": "a\ndata: {}"}).encode()
    stream = b'event: response.output_item.done\ndata: {"type":"x"}\n\nevent: response.completed\ndata: {"type":"response.completed","response":%b}\n\n'
    assert read_finished(body) == ("resp_1", body)
    assert read_finished(stream % body) == ("resp_1", body)


@pytest.mark.parametrize("sent", [b"", b"{", b"{}", b'{"id":"","output":[]}', b"data: x", b'\ndata: {"response":3}\n\n', b'{"id":1,"output":[]}'])
def test_what_is_no_response_is_a_value_error(sent: bytes) -> None:
    with pytest.raises(ValueError):
        read_finished(sent)


def test_listed_items_have_ids_of_their_own_and_parts() -> None:
    turns = [Raw(b'{"role":"user","content":"one"}'), Raw(b'{"id":"msg_1","role":"assistant","content":"two"}')]
    listed = list_items(turns, b'[{"id":"msg_1","role":"user","content":"three"},{"type":"function_call_output","call_id":"c","output":"x"}]', "resp_9")
    assert len({item["id"] for item in listed}) == 4 and listed[1]["id"] == "msg_1"
    assert [item["content"][0] for item in listed[:3]] == [
        {"type": "input_text", "text": "one"},
        {"type": "output_text", "text": "two", "annotations": []},
        {"type": "input_text", "text": "three"},
    ]
    assert listed == list_items(turns, b'[{"id":"msg_1","role":"user","content":"three"},{"type":"function_call_output","call_id":"c","output":"x"}]', "resp_9")
