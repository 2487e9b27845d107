"""Streams of OpenAI Responses: the events written for other formats' chunks, and what is read of odd streams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.events import HOLE, Event
from aigate.core.neutral import Choice, Chunk, Citation, Delta, Media, Reply, ToolCall, ToolCallDelta
from aigate.core.usage import Usage
from aigate.dialects import DIALECTS
from aigate.dialects.dialect import Settlement
from aigate.errors import ProviderError
from tests.dialects.recorded import HEAD, target

RESPONSES = DIALECTS["openai-responses"]
SETTLEMENT = Settlement(Usage(10, 5, 4, 0, 2), 1_500)


def call(**fields: Any) -> Call:
    return RESPONSES.read_call(json.dumps({"model": "a/b", "input": "hi", **fields}).encode(), "responses", HEAD)


def decoded(out: bytes) -> list[dict[str, Any]]:
    events = [json.loads(block.split(b"\n")[1].removeprefix(b"data: ")) for block in out.split(b"\n\n")[:-1]]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def written(*deltas: Delta, **fields: Any) -> list[dict[str, Any]]:
    writer = RESPONSES.stream_writer(call(**fields), "mock/asked", "req_1")
    return decoded(b"".join([writer.write([Event(chunk=Chunk(deltas=[delta]))]) for delta in deltas]) + writer.finish(SETTLEMENT))


def kinds(events: Sequence[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


# --- writing ------------------------------------------------------------------------------------------------------------------


def test_items_open_fill_and_close_one_after_the_other() -> None:
    events = written(Delta(0, role="assistant"), Delta(0, reasoning="Hm."), Delta(0, text="Yes"), Delta(0, finish_reason="stop"))
    assert kinds(events) == [
        "created", "in_progress",
        "output_item.added", "reasoning_summary_part.added", "reasoning_summary_text.delta", "reasoning_summary_text.done",
        "reasoning_summary_part.done", "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    final = events[-1]["response"]
    done = [event["item"] for event in events if event["type"].endswith("output_item.done")]
    assert final["output"] == done and [item["id"] for item in done] == [event["item"]["id"] for event in events if event["type"].endswith("item.added")]
    assert final["usage"] == {
        "input_tokens": 10, "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0}, "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2}, "total_tokens": 15, "cost": 0.0000015,
    }  # fmt: skip


def test_calls_whose_fragments_interleave_stay_apart() -> None:
    fragments = [(0, "c0", "f", '{"a"'), (1, "c1", "g", ""), (0, None, None, ":1}"), (1, None, None, "{}")]
    events = written(*(Delta(0, tool_calls=[ToolCallDelta(*fragment)]) for fragment in fragments), Delta(0, finish_reason="tool_calls"))
    output = events[-1]["response"]["output"]
    assert [(item["call_id"], item["name"], item["arguments"], item["status"]) for item in output] == [
        ("c0", "f", '{"a":1}', "completed"),
        ("c1", "g", "{}", "completed"),
    ]


def test_a_custom_tool_is_called_with_its_input() -> None:
    events = written(Delta(0, tool_calls=[ToolCallDelta(0, "c0", "f", "raw", "custom")]), Delta(0, finish_reason="tool_calls"))
    (item,) = events[-1]["response"]["output"]
    assert (item["type"], item["input"]) == ("custom_tool_call", "raw")
    assert "custom_tool_call_input.delta" in kinds(events)


@pytest.mark.parametrize(("finish", "status", "reason"), [("length", "incomplete", "max_output_tokens"), ("content_filter", "incomplete", "content_filter"), ("stop", "completed", None)])
def test_the_ending_says_why(finish: str, status: str, reason: str | None) -> None:
    last = written(Delta(0, text="x"), Delta(0, finish_reason=finish))[-1]
    assert last["type"] == f"response.{status}" and last["response"]["status"] == status
    assert (last["response"]["incomplete_details"] or {}).get("reason") == reason


def test_refusals_citations_and_images_have_their_place() -> None:
    events = written(
        Delta(0, text="See here"),
        Delta(0, citations=[Citation("url", "https://x", "X", start=4, end=8), Citation("document", title="a file")]),
        Delta(0, parts=[Media("image", data="AAAA", media_type="image/png")]),
        Delta(0, refusal="No."),
    )
    message, image, refusal = events[-1]["response"]["output"]
    assert message["content"][0]["annotations"] == [{"type": "url_citation", "start_index": 4, "end_index": 8, "title": "X", "url": "https://x"}]
    assert (image["type"], image["result"]) == ("image_generation_call", "AAAA")
    assert refusal["content"] == [{"type": "refusal", "refusal": "No."}]


def test_a_proof_of_another_provider_travels_sealed_and_comes_back() -> None:
    events = written(Delta(0, reasoning="Hm."), Delta(0, signature="SIG", origin="anthropic-messages"), Delta(0, encrypted="BLOB", origin="anthropic-messages"))
    output = events[-1]["response"]["output"]
    again = RESPONSES.read_request(call(input=[{"role": "user", "content": "hi"}, *output])).messages[1].parts
    assert [(part.text, part.signature, part.encrypted, part.origin) for part in again] == [  # type: ignore[union-attr]
        ("Hm.", "SIG", None, "anthropic-messages"),
        ("", None, "BLOB", "anthropic-messages"),
    ]


def test_the_proof_behind_a_call_travels_before_it_and_comes_back_to_it() -> None:
    calls = [ToolCallDelta(0, "c0", "f", "{}", signature="SIG", origin="gemini"), ToolCallDelta(1, "c1", "g", "{}")]
    output = written(Delta(0, tool_calls=calls), Delta(0, finish_reason="tool_calls"))[-1]["response"]["output"]
    assert [item["type"] for item in output] == ["reasoning", "function_call", "function_call"]
    parts = RESPONSES.read_request(call(input=[{"role": "user", "content": "hi"}, *output])).messages[1].parts
    assert [(part.id, part.signature, part.origin) for part in parts] == [("c0", "SIG", "gemini"), ("c1", None, "")]  # type: ignore[union-attr]
    reply = Reply("r", 1, "m", [Choice(0, [ToolCall("c0", "f", "{}", signature="SIG", origin="gemini")], "tool_calls")])
    again = RESPONSES.read_reply(RESPONSES.write_reply(reply, "mock/asked", SETTLEMENT), target()).choices[0]
    assert [(part.id, part.signature, part.origin) for part in again.parts] == [("c0", "SIG", "gemini")]  # type: ignore[union-attr]


def test_plain_runs_are_numbered_one_by_one() -> None:
    writer = RESPONSES.stream_writer(call(), "mock/asked", "req_1")
    template = Chunk(deltas=[Delta(0, text=HOLE)])
    out = writer.write([Event(chunk=template, texts=[b"a", b'\\"b\\"']), Event(chunk=template, texts=[b"\\n"])]) + writer.finish(SETTLEMENT)
    events = decoded(out)
    assert [event["delta"] for event in events if "delta" in event] == ["a", '"b"', "\n"]
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == 'a"b"\n'


def test_the_request_is_echoed_and_other_choices_are_left_out() -> None:
    events = written(Delta(1, text="other"), Delta(0, text="x"), instructions="Be kind.", reasoning={"effort": "low"}, temperature=0.5)
    for event in (events[0], events[-1]):
        response = event["response"]
        assert (response["instructions"], response["reasoning"]["effort"], response["temperature"], response["model"]) == ("Be kind.", "low", 0.5, "mock/asked")
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == "x"


def test_nothing_goes_out_before_something_was_said() -> None:
    writer = RESPONSES.stream_writer(call(), "mock/asked", "req_1")
    assert writer.write([Event(chunk=Chunk(id="c", deltas=[Delta(0, role="assistant", text="")]))]) == b""
    told = decoded(writer.fail(ProviderError("no"), "req_1"))
    assert kinds(told) == ["created", "in_progress", "failed"]
    assert told[-1]["response"]["status"] == "failed" and told[-1]["response"]["error"]["message"] == "no"
    assert kinds(decoded(RESPONSES.stream_writer(call(), "m", "req_1").finish(SETTLEMENT))) == ["created", "in_progress", "completed"]


# --- reading ------------------------------------------------------------------------------------------------------------------


def sse(*payloads: dict[str, Any]) -> bytes:
    return b"".join(b"data: %b\n\n" % json.dumps({**payload, "sequence_number": number}).encode() for number, payload in enumerate(payloads))


def read(*payloads: dict[str, Any]) -> list[Event]:
    reader = RESPONSES.stream_reader(target(), True)
    return reader.feed(sse(*payloads)) + reader.close()


CREATED = {"type": "response.created", "response": {"id": "resp_1", "status": "in_progress", "output": []}}
COMPLETED = {"type": "response.completed", "response": {"id": "resp_1", "status": "completed", "output": []}}


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "error", "code": "rate_limit_exceeded", "message": "slow down", "param": None},
        {"type": "error", "error": {"type": "x", "code": "rate_limit_exceeded", "message": "slow down", "param": None}},
        {"type": "response.failed", "response": {"status": "failed", "output": [], "error": {"code": "rate_limit_exceeded", "message": "slow down"}}},
    ],
)
def test_errors_are_read_in_all_their_spellings(fields: dict[str, Any]) -> None:
    events = read(CREATED, fields)
    error = events[-1].error
    assert error is not None and error.kind == "rate_limited" and "slow down" in error.message and not any(event.is_done for event in events)


def test_a_stream_that_ends_early_is_cut() -> None:
    error = read(CREATED, {"type": "response.output_text.delta", "output_index": 0, "delta": "x"})[-1].error
    assert error is not None and error.kind == "cut"


def test_arguments_that_come_only_with_the_whole_item_are_not_lost() -> None:
    item = {"type": "function_call", "id": "fc_1", "call_id": "c1", "name": "f", "arguments": ""}
    whole = {**item, "arguments": '{"a":1}'}
    added = {"type": "response.output_item.added", "output_index": 0, "item": item}
    done = {"type": "response.output_item.done", "output_index": 0, "item": whole}
    calls = [fragment for event in read(CREATED, added, done, COMPLETED) if event.chunk for delta in event.chunk.deltas for fragment in delta.tool_calls]
    assert [(fragment.id, fragment.name, fragment.arguments) for fragment in calls] == [("c1", "f", ""), (None, None, '{"a":1}')]


def test_what_is_no_event_is_passed_over() -> None:
    reader = RESPONSES.stream_reader(target(), True)
    body = b": ping\n\ndata: nonsense\n\ndata: [1]\n\nevent: x\n\n" + sse(CREATED, {"type": "response.new.thing", "x": 1}, COMPLETED) + b"data: [DONE]\n\n"
    events = reader.feed(body)
    assert [event.chunk.bag["type"] for event in events if event.chunk] == ["response.created", "response.new.thing", "response.completed"]
    assert events[-1].is_done and reader.close() == []


def test_text_that_was_generated_is_kept_for_counting() -> None:
    reader = RESPONSES.stream_reader(target(), True)
    deltas = [{"type": "response.output_text.delta", "item_id": "m", "output_index": 0, "delta": word} for word in ("one ", "two ", 'th"ree')]
    for number, delta in enumerate(deltas):
        reader.feed(sse(*deltas[: number + 1])[len(sse(*deltas[:number])) :])
        assert delta
    assert reader.text_so_far() == ('one two th"ree', 0)


def test_an_error_instead_of_a_stream_is_the_providers_own() -> None:
    reader = RESPONSES.stream_reader(target(), True)
    assert reader.feed(b'{"error": {"message": "no such model",\n "type": "invalid_request_error", "code": "model_not_found"}}') == []
    (event,) = reader.close()
    assert event.error is not None and "no such model" in event.error.message
