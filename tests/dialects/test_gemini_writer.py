"""Streams and replies of other formats as a Gemini client gets them, and what stands beside the parts of a candidate."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.call import Call
from aigate.core.events import HOLE, Event
from aigate.core.neutral import Choice, Chunk, Citation, Delta, Reasoning, Reply, Text, ToolCall, ToolCallDelta
from aigate.core.usage import Usage
from aigate.dialects.dialect import Settlement
from aigate.dialects.gemini_errors import read_error
from aigate.dialects.gemini_parts import is_made_up
from aigate.dialects.proof import unseal
from aigate.errors import ProviderError
from tests.dialects.gemini_traffic import ASKED, GEMINI, gemini_target, plain_replies, sent_chunks
from tests.dialects.recorded import needs_recordings

COST = Settlement(Usage(5, 7, 0, 0, 3), 1)


def write(*deltas: Delta, is_array: bool = False) -> list[dict[str, Any]]:
    writer = GEMINI.stream_writer(Call("gemini", "chat", {}, 0, (), is_array=is_array), ASKED, "req_1")
    out = writer.write([Event(chunk=Chunk("r", deltas=[delta], dialect="other")) for delta in deltas]) + writer.finish(COST)
    return json.loads(out) if is_array else sent_chunks(out)


def parts(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [part for chunk in chunks for candidate in chunk["candidates"] for part in candidate["content"]["parts"]]


@pytest.mark.parametrize("is_array", [False, True])
def test_calls_go_out_whole_and_in_order(is_array: bool) -> None:
    chunks = write(
        Delta(0, text="so", delta_bag={"x": 1}),
        Delta(0, tool_calls=[ToolCallDelta(0, "call_1", "a", '{"n"')]),
        Delta(0, tool_calls=[ToolCallDelta(0, arguments=":1}")]),
        Delta(0, tool_calls=[ToolCallDelta(1, "call_2", "b", "")]),
        Delta(0, finish_reason="tool_calls"),
        is_array=is_array,
    )
    assert parts(chunks) == [
        {"text": "so"},
        {"functionCall": {"name": "a", "args": {"n": 1}, "id": "call_1"}},
        {"functionCall": {"name": "b", "args": {}, "id": "call_2"}},
        {"text": ""},
    ]
    assert chunks[-1]["candidates"][0]["finishReason"] == "STOP"
    assert chunks[-1]["usageMetadata"] == {"promptTokenCount": 5, "candidatesTokenCount": 4, "thoughtsTokenCount": 3, "totalTokenCount": 12}
    assert all(chunk["responseId"] == "r" and chunk["modelVersion"] == ASKED for chunk in chunks)


@pytest.mark.parametrize("is_array", [False, True])
@pytest.mark.parametrize("is_first", [False, True])
def test_a_plain_run_is_written_like_its_chunks(is_array: bool, is_first: bool) -> None:
    call = Call("gemini", "chat", {}, 0, (), is_array=is_array)
    outs = []
    for is_run in (False, True):
        writer = GEMINI.stream_writer(call, ASKED, "req_1")
        out = b"" if is_first else writer.write([Event(chunk=Chunk("r", deltas=[Delta(0, text="x")]))])
        texts = [b"a", b"\\n", b"c"]
        if is_run:
            out += writer.write([Event(chunk=Chunk("r", deltas=[Delta(0, text=HOLE)]), texts=texts)])
        else:
            out += writer.write([Event(chunk=Chunk("r", deltas=[Delta(0, text=json.loads(b'"%b"' % text))])) for text in texts])
        outs.append(out + writer.write([Event(chunk=Chunk("r", deltas=[Delta(0, finish_reason="length")]))]) + writer.finish(COST))
    assert outs[0] == outs[1]


def test_a_run_of_arguments_grows_the_call() -> None:
    writer = GEMINI.stream_writer(Call("gemini", "chat", {}, 0, ()), ASKED, "req_1")
    writer.write([Event(chunk=Chunk(deltas=[Delta(0, tool_calls=[ToolCallDelta(0, "call_1", "a", '{"n":"')])]))])
    template = Chunk(deltas=[Delta(0, tool_calls=[ToolCallDelta(0, arguments=HOLE)])])
    writer.write([Event(chunk=template, texts=[b"\\ud83d", b"\\ude00", b'\\"}'])])
    assert parts(sent_chunks(writer.write([Event(chunk=Chunk(deltas=[Delta(0, finish_reason="stop")]))])))[0] == {
        "functionCall": {"name": "a", "args": {"n": "\U0001f600"}, "id": "call_1"}
    }


def test_a_foreign_proof_is_sealed_so_that_the_sdk_takes_it_for_base64() -> None:
    (thought, proof, _) = parts(write(Delta(0, reasoning="hm"), Delta(0, signature="s!g", origin="anthropic-messages"), Delta(0, finish_reason="stop")))
    assert thought == {"text": "hm", "thought": True}
    assert unseal(proof["thoughtSignature"]) == ("anthropic-messages", "s!g\0")


def test_a_failure_is_told_in_the_stream() -> None:
    for is_array in (False, True):
        writer = GEMINI.stream_writer(Call("gemini", "chat", {}, 0, (), is_array=is_array), ASKED, "req_1")
        out = writer.write([Event(chunk=Chunk(deltas=[Delta(0, text="x")]))]) + writer.fail(ProviderError("it broke"), "req_1")
        last = (json.loads(out) if is_array else sent_chunks(out))[-1]
        assert (last["error"]["code"], last["error"]["message"], last["error"]["status"]) == (502, "it broke", "UNAVAILABLE")


def test_a_silent_stream_is_kept_open_only_where_the_sdk_allows() -> None:
    assert GEMINI.stream_writer(Call("gemini", "chat", {}, 0, ()), ASKED, "r").keep_alive() == b""
    assert GEMINI.stream_writer(Call("gemini", "chat", {}, 0, (), is_array=True), ASKED, "r").keep_alive().isspace()


def test_citations_count_bytes_there_and_characters_here() -> None:
    text = Text("Grüße aus Köln", citations=[Citation("url", "https://k.de", "K", "Köln", 10, 14)])
    reply = Reply("r", 0, "m", [Choice(0, [text], "stop")])
    written = GEMINI.write_reply(reply, ASKED, COST)
    support = json.loads(written)["candidates"][0]["groundingMetadata"]["groundingSupports"][0]
    assert (support["segment"]["startIndex"], support["segment"]["endIndex"]) == (12, 17)
    assert GEMINI.read_reply(written, gemini_target()).choices[0].parts[0].citations == text.citations  # type: ignore[union-attr]


def test_log_probabilities_come_back_as_they_went() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": [97]}
    logprobs = {"content": [{**token, "top_logprobs": [token]}], "refusal": None}
    written = GEMINI.write_reply(Reply("r", 0, "m", [Choice(0, [Text("a")], "stop", logprobs)]), ASKED, COST)
    assert GEMINI.read_reply(written, gemini_target()).choices[0].logprobs == logprobs


@pytest.mark.parametrize(("finish", "said"), [
    ("stop", "STOP"), ("tool_calls", "STOP"), ("length", "MAX_TOKENS"), ("content_filter", "SAFETY"), ("MALFORMED_RESPONSE", "MALFORMED_RESPONSE"),
    ("pause_turn", "OTHER")])  # fmt: skip
def test_finish_reasons_are_googles_words(finish: str, said: str) -> None:
    written = json.loads(GEMINI.write_reply(Reply("r", 0, "m", [Choice(0, [Reasoning("x")], finish)]), ASKED, COST))
    assert written["candidates"][0]["finishReason"] == said


def test_a_blocked_prompt_is_a_filtered_choice_and_costs_nothing() -> None:
    body = b'{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"trafficType":"ON_DEMAND"}}'
    reply = GEMINI.read_reply(body, gemini_target())
    assert (reply.choices[0].finish_reason, reply.choices[0].parts, reply.usage) == ("content_filter", [], Usage())
    assert "candidates" not in json.loads(GEMINI.write_reply(reply, ASKED, Settlement(Usage(), 0, reply.raw_usage)))


def test_how_long_to_wait_is_read_from_the_details() -> None:
    details = [{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "12.5s"}]
    body = json.dumps([{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED", "details": details}}])
    error = read_error(429, {}, body.encode())
    assert (error.kind, error.retry_after_s, error.retryable) == ("rate_limited", 12.5, True)


@pytest.mark.parametrize(
    ("counts", "told"),
    [
        ({"promptTokenCount": 5, "candidatesTokenCount": 1, "totalTokenCount": 6}, [Usage(5, 1)]),
        ({"promptTokenCount": 5, "totalTokenCount": 5}, []),  # its text was not counted yet: the gateway counts
    ],
)
def test_a_stream_that_breaks_off_has_the_usage_it_had_told_until_then(counts: dict[str, int], told: list[Usage]) -> None:
    chunk = {"candidates": [{"content": {"parts": [{"text": "x"}]}}], "usageMetadata": counts}
    reader = GEMINI.stream_reader(gemini_target(), True)
    events = reader.feed(b"data: " + json.dumps(chunk).encode() + b"\r\n\r\n") + reader.close()
    assert [event.usage for event in events if event.usage is not None] == told
    assert events[-1].error is not None and events[-1].error.kind == "cut"


@needs_recordings
def test_ids_that_the_model_did_not_give_are_made_up_and_differ() -> None:
    without_ids = 0
    for record in plain_replies():
        reply = GEMINI.read_reply(record["response"].encode(), gemini_target())
        made = [part for choice in reply.choices for part in choice.parts if type(part) is ToolCall]
        candidates = json.loads(record["response"]).get("candidates", ())
        wire = [part["functionCall"] for one in candidates for part in one.get("content", {}).get("parts", ()) if "functionCall" in part]
        assert [call.id for call in made if not is_made_up(call.id)] == [call["id"] for call in wire if "id" in call]
        assert all(call.id for call in made) and len({call.id for call in made}) == len(made)
        without_ids += any(is_made_up(call.id) for call in made)
    assert without_ids
