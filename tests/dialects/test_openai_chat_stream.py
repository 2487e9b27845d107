"""Streams of OpenAI chat through reader and writer: what reaches the client, in both lanes, for every oddity of the neighbours."""

from __future__ import annotations

import json
from typing import Any

import pytest

from aigate.core.target import Quirks
from aigate.core.usage import NOTHING, Usage
from aigate.dialects.dialect import Settlement
from aigate.errors import GatewayError
from tests.dialects.recorded import target
from tests.dialects.streaming import ASKED, CHAT, Call, Streamed, chunk_of, content_chunk, fold, sse, stream_through

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
ROLE = chunk_of({"role": "assistant", "content": ""})
STOP = chunk_of({}, finish_reason="stop")
both_lanes = pytest.mark.parametrize("is_spliced", [True, False], ids=["spliced", "neutral"])


def through(*chunks: object, quirks: Quirks | None = None, **options: Any) -> Streamed:
    return stream_through(sse(*chunks), target(quirks), **options)


# --- plain runs -----------------------------------------------------------------------------------------------------------


def test_like_chunks_travel_undecoded_and_carry_the_asked_model() -> None:
    streamed = through(ROLE, *(content_chunk(f" w{n}") for n in range(20)), STOP)
    assert streamed.fast_chunks == 19  # all but the one the template was learnt from
    assert {chunk["model"] for chunk in streamed.chunks} == {ASKED}
    assert fold(streamed.chunks)[0]["content"] == "".join(f" w{n}" for n in range(20))


@pytest.mark.parametrize(
    "text",
    ['"', '\\"', "\\", 'say \\"usage\\"', '"usage"', '","reasoning":"x', "\n\n", "data: [DONE]", "<hole>", "é😀", "\u2028", "", '\\",\\"', "}}]}"],
)
@both_lanes
def test_no_text_can_end_its_string_early(text: str, is_spliced: bool) -> None:
    texts = ["one", "two", text, "three", text + "x", "x" + text]
    streamed = through(ROLE, *map(content_chunk, texts), STOP, is_spliced=is_spliced)
    assert fold(streamed.chunks)[0]["content"] == "".join(texts)
    assert len(streamed.chunks) == len(texts) + 3
    assert streamed.text == ("".join(texts), 0)


def test_a_chunk_with_one_key_more_is_no_plain_one() -> None:
    more = content_chunk("b", moderation={"flagged": True})
    streamed = through(ROLE, *(content_chunk("a") for _ in range(3)), more, *(content_chunk("c") for _ in range(3)), STOP)
    assert [chunk.get("moderation") for chunk in streamed.chunks].count({"flagged": True}) == 1


def test_tool_arguments_and_reasoning_travel_undecoded_too() -> None:
    calls = [chunk_of({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}) for piece in ('{"', "a", '":', "1}")]
    begin = chunk_of({"role": "assistant", "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": {"name": "f", "arguments": ""}}]})
    thoughts = [chunk_of({"reasoning": piece}) for piece in "abcd"]
    streamed = through(*thoughts, begin, *calls, chunk_of({}, finish_reason="tool_calls"), quirks=Quirks(reasoning_field="reasoning"))
    assert streamed.fast_chunks == 6
    assert fold(streamed.chunks)[0] == {
        "content": "",
        "reasoning_content": "abcd",
        "role": "assistant",
        "tool_calls": {0: {"id": "call_1", "name": "f", "arguments": '{"a":1}'}},
        "finish_reason": "tool_calls",
    }


def test_padding_at_the_end_of_a_chunk_does_not_slow_a_run() -> None:
    padded = [content_chunk("x", usage=None, obfuscation="p" * n) for n in range(10)]
    streamed = through(ROLE, *padded, STOP, quirks=Quirks(drops=frozenset({"obfuscation"})))
    assert streamed.fast_chunks == 9
    assert not any("obfuscation" in chunk for chunk in streamed.chunks)


@pytest.mark.parametrize("key", ['"usage"', '"\\u0075sage"'])
def test_usage_is_found_however_its_key_is_spelt(key: str) -> None:
    last = json.dumps(content_chunk("z", usage=USAGE)).replace('"usage"', key).encode()
    streamed = stream_through(sse(ROLE, *(content_chunk("a") for _ in range(4)), last, STOP), target())
    assert streamed.usage == Usage(7, 3)
    assert [chunk for chunk in streamed.chunks if chunk.get("usage")] == streamed.chunks[-1:]


# --- usage ----------------------------------------------------------------------------------------------------------------

USAGE_PLACES: dict[str, list[dict[str, Any]]] = {
    "a chunk of its own": [content_chunk("a", usage=None), {**STOP, "usage": None}, {**STOP, "choices": [], "usage": USAGE}],
    "the finish chunk": [content_chunk("a"), {**STOP, "usage": USAGE}],
    "the last content chunk": [content_chunk("a", usage=USAGE), STOP],
    "every chunk": [content_chunk("a", usage={"prompt_tokens": 7, "completion_tokens": 1, "total_tokens": 8}), {**STOP, "usage": USAGE}],
    "the first chunk": [content_chunk("", usage=USAGE), content_chunk("a"), STOP],
    "x_groq": [content_chunk("a"), {**STOP, "x_groq": {"id": "req", "usage": USAGE}}],
    "a choice and a chunk of its own": [
        content_chunk("a"),
        {**STOP, "choices": [{**STOP["choices"][0], "usage": USAGE}]},
        {**STOP, "choices": [], "usage": USAGE},
    ],
    "a repeated finish chunk": [content_chunk("a"), STOP, {**chunk_of({"role": "assistant", "content": ""}, finish_reason="stop"), "usage": USAGE}],
}


@pytest.mark.parametrize("place", USAGE_PLACES)
@both_lanes
def test_one_usage_chunk_reaches_the_client_last(place: str, is_spliced: bool) -> None:
    streamed = through(ROLE, *USAGE_PLACES[place], is_spliced=is_spliced)
    assert streamed.usage == Usage(7, 3)
    *chunks, last = streamed.chunks
    assert last["usage"] == {**USAGE, "cost": 0.0012345}
    assert last["choices"] == [{"index": 0, "delta": {}, "finish_reason": None}]
    assert "usage" not in json.dumps(chunks)
    assert [choice["finish_reason"] for chunk in chunks for choice in chunk["choices"]].count("stop") == 1
    assert fold(chunks)[0]["content"] == "a"


@both_lanes
def test_the_usage_chunk_has_openais_own_form_for_who_asked_for_it(is_spliced: bool) -> None:
    streamed = through(ROLE, STOP, {**STOP, "choices": [], "usage": USAGE}, include_usage=True, is_spliced=is_spliced)
    assert streamed.chunks[-1]["choices"] == []
    assert streamed.chunks[-1]["id"] == "chatcmpl-1"


def test_who_refused_usage_gets_none_but_is_metered() -> None:
    streamed = through(ROLE, {**STOP, "usage": USAGE}, include_usage=False)
    assert streamed.usage == Usage(7, 3)
    assert not any("usage" in chunk for chunk in streamed.chunks)


def test_unreported_usage_is_told_from_ours() -> None:
    writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1")
    out = writer.finish(Settlement(Usage(5, 4, 2, 0, 1), 10, b"", "counted"))
    assert json.loads(out.split(b"\n\n")[0][6:])["usage"] == {
        "prompt_tokens": 5,
        "completion_tokens": 4,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {"reasoning_tokens": 1},
        "cost": 1e-08,
    }


# --- what the neighbours do -----------------------------------------------------------------------------------------------


@both_lanes
def test_the_first_chunk_without_choices_is_forwarded_when_it_says_something(is_spliced: bool) -> None:
    first = {"choices": [], "created": 0, "id": "", "model": "", "object": "", "prompt_filter_results": [{"prompt_index": 0}]}
    streamed = through(first, ROLE, STOP, is_spliced=is_spliced)
    assert streamed.chunks[0]["prompt_filter_results"] == [{"prompt_index": 0}]
    assert streamed.chunks[0]["object"] == "chat.completion.chunk"


@both_lanes
def test_a_repeated_role_is_sent_once(is_spliced: bool) -> None:
    repeated = [chunk_of({"role": "assistant", "content": piece}) for piece in "abcd"]
    streamed = through(*repeated, STOP, is_spliced=is_spliced)
    assert fold(streamed.chunks)[0]["role"] == "assistant"


@both_lanes
def test_list_entries_get_the_index_that_folding_clients_need(is_spliced: bool) -> None:
    details = [chunk_of({"content": "", "reasoning_details": [{"type": "reasoning.text", "text": piece}]}) for piece in "ab"]
    streamed = through(*details, STOP, is_spliced=is_spliced)
    assert [chunk["choices"][0]["delta"]["reasoning_details"][0]["index"] for chunk in streamed.chunks[:2]] == [0, 0]


@both_lanes
def test_content_in_parts_becomes_reasoning_and_text(is_spliced: bool) -> None:
    thinking = [chunk_of({"content": [{"type": "thinking", "thinking": [{"type": "text", "text": piece}]}]}) for piece in "abc"]
    streamed = through(
        *thinking, chunk_of({"content": [{"type": "text", "text": "x"}]}), content_chunk("y"), STOP, is_spliced=is_spliced, quirks=Quirks(reasoning_field="parts")
    )
    folded = fold(streamed.chunks)[0]
    assert (folded["reasoning_content"], folded["content"]) == ("abc", "xy")


@pytest.mark.parametrize("pieces", [["<think>a b</think>c d"], list("<think>a b</think>c d"), ["\n<thi", "nk>a ", "b</", "think>", "c d"]])
@both_lanes
def test_think_tags_become_reasoning(pieces: list[str], is_spliced: bool) -> None:
    streamed = through(*map(content_chunk, pieces), STOP, quirks=Quirks(reasoning_field="think_tags"), is_spliced=is_spliced)
    folded = fold(streamed.chunks)[0]
    assert (folded["reasoning_content"], folded["content"]) == ("a b", "c d")


@both_lanes
def test_tool_calls_get_ids_and_dense_indexes(is_spliced: bool) -> None:
    calls = [chunk_of({"tool_calls": [{"index": 0, "id": "", "function": {"name": name, "arguments": "{}"}}]}) for name in "fg"]
    quirks = Quirks(mints_tool_ids=True)
    folded = [fold(through(*calls, STOP, quirks=quirks, is_spliced=is_spliced).chunks)[0]["tool_calls"] for _ in range(2)]
    assert folded[0] == folded[1]
    assert [call["name"] for call in folded[0].values()] == ["f", "g"]
    assert len({call["id"] for call in folded[0].values()} - {""}) == 2


@both_lanes
def test_ids_and_names_that_are_repeated_are_sent_once(is_spliced: bool) -> None:
    entry = {"index": 3, "id": "call_1", "type": "function"}
    calls = [chunk_of({"tool_calls": [{**entry, "function": {"name": "f", "arguments": piece}}]}) for piece in ("{", '"a":', "1}")]
    streamed = through(*calls, STOP, is_spliced=is_spliced)
    assert fold(streamed.chunks)[0]["tool_calls"] == {0: {"id": "call_1", "name": "f", "arguments": '{"a":1}'}}


@both_lanes
def test_a_chunk_that_is_no_json_is_forwarded_as_it_came(is_spliced: bool) -> None:
    streamed = through(ROLE, b"not {json", STOP, is_spliced=is_spliced)
    assert streamed.chunks[1] == b"data: not {json"
    assert streamed.is_done


@both_lanes
def test_a_ping_is_not_forwarded(is_spliced: bool) -> None:
    streamed = through({"type": "ping"}, ROLE, STOP, is_spliced=is_spliced)
    assert len(streamed.chunks) == 3


# --- framing and ends -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\n\n\n"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_line_ends_and_slices_change_nothing(end: bytes, size: int) -> None:
    chunks = [ROLE, *(content_chunk(f"é😀{n}") for n in range(6)), {**STOP, "usage": USAGE}]
    plain = stream_through(sse(*chunks), target())
    other = stream_through(b": hello" + end + sse(*chunks, end=end), target(), sizes=(size,))
    assert (other.chunks, other.usage, other.text) == (plain.chunks, plain.usage, plain.text)


def test_no_space_after_data_event_names_and_several_data_lines_are_read() -> None:
    body = json.dumps(content_chunk("x"), indent=1).replace("\n", "\ndata:").encode()
    data = b"event: message\nid: 4\ndata:" + body + b"\n\n" + sse(STOP)
    assert fold(stream_through(data, target()).chunks)[0]["content"] == "x"


def test_a_stream_without_done_is_whole_once_it_finished() -> None:
    streamed = stream_through(sse(ROLE, STOP, done=False), target())
    assert (streamed.is_done, streamed.errors) == (True, [])


def test_done_without_its_blank_line_counts() -> None:
    assert stream_through(sse(ROLE, content_chunk("x"), done=False) + b"data: [DONE]", target()).is_done


@pytest.mark.parametrize("data", [b"", b": hi\n\n", sse(ROLE, content_chunk("x"), done=False), sse(ROLE)[:-40]])
def test_a_stream_that_stops_before_its_end_was_cut(data: bytes) -> None:
    streamed = stream_through(data, target())
    assert [error.kind for error in streamed.errors] == ["cut"]


@both_lanes
@pytest.mark.parametrize("name", [b"", b"event: error\n"])
def test_an_error_in_the_stream_is_an_error_event(is_spliced: bool, name: bytes) -> None:
    data = sse(ROLE, content_chunk("x"), done=False) + name + sse({"error": {"message": "too long", "code": 400}}, done=False)
    (error,) = stream_through(data, target(), is_spliced=is_spliced).errors
    assert (error.status, error.retryable, error.message) == (400, False, "the provider answered 400: too long")


@pytest.mark.parametrize(
    "block",
    [
        b'data: {"object":"error","message":"engine died","type":"InternalServerError","param":null,"code":500}\n\n',
        b"event: error\ndata: engine died\n\n",
        b'event:error\ndata: {"message":"engine died","code":500}\n\n',
        b'event: error\ndata: {"detail":"engine died"}\n\n',
    ],
)
@both_lanes
def test_an_error_of_another_shape_in_the_stream_is_one_too(is_spliced: bool, block: bytes) -> None:
    streamed = stream_through(sse(ROLE, content_chunk("x"), done=False) + block + sse(), target(), is_spliced=is_spliced)
    assert [(error.kind, "engine died" in error.message) for error in streamed.errors] == [("error", True)]


@pytest.mark.parametrize("code", ["9" * 5000, 10**400, "５００", -500, 500.5, [500], None])
def test_no_code_of_an_error_can_make_it_fail(code: object) -> None:
    streamed = stream_through(sse(ROLE, {"error": {"message": "odd", "code": code}}), target())
    assert [error.kind for error in streamed.errors] == ["error"]


@both_lanes
def test_an_empty_finish_reason_ends_nothing(is_spliced: bool) -> None:
    parts = [content_chunk(text, finish_reason="") for text in "abc"]
    assert [error.kind for error in stream_through(sse(*parts, done=False), target(), is_spliced=is_spliced).errors] == ["cut"]
    whole = stream_through(sse(*parts, STOP), target(), is_spliced=is_spliced)
    assert fold(whole.chunks)[0]["content"] == "abc"
    assert [chunk["choices"][0]["finish_reason"] for chunk in whole.chunks] == [None, None, None, "stop", None]


@pytest.mark.parametrize("data", [b"data: %b\n\ndata: [DONE]\n\n", b"%b", b"\n\n%b\n"])
@both_lanes
def test_a_whole_reply_where_a_stream_was_due_is_streamed(is_spliced: bool, data: bytes) -> None:
    reply = {**STOP, "object": "chat.completion", "choices": [{"index": 0, "message": {"role": "assistant", "content": "all"}, "finish_reason": "stop"}]}
    streamed = stream_through(data % json.dumps({**reply, "usage": USAGE}).encode(), target(), is_spliced=is_spliced)
    assert fold(streamed.chunks)[0]["content"] == "all" and streamed.usage == Usage(7, 3) and streamed.is_done and not streamed.errors


@both_lanes
def test_usage_and_end_count_in_a_chunk_that_only_lenient_readers_read(is_spliced: bool) -> None:
    last = json.dumps({**STOP, "usage": USAGE, "logprob": float("-inf")}).encode()
    streamed = stream_through(b"data: " + sse(content_chunk("a"), done=False)[6:] + b"data: " + last + b"\n\n", target(), is_spliced=is_spliced)
    assert streamed.usage == Usage(7, 3) and streamed.is_done and not streamed.errors


def test_usage_beside_an_error_is_kept() -> None:
    streamed = through(ROLE, content_chunk("", error={"code": 502, "message": "gone"}, usage=USAGE))
    assert streamed.usage == Usage(7, 3)
    assert streamed.errors[0].retryable


def test_a_json_error_in_place_of_a_stream_is_read() -> None:
    (error,) = stream_through(b'{"error": {\n"message": "no", "code": "400"}}', target()).errors
    assert "no" in error.message


def test_a_failure_is_told_in_band_and_the_stream_ended() -> None:
    writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1")
    first, done, rest = writer.fail(GatewayError("it broke"), "req_1").split(b"\n\n")
    assert json.loads(first[6:])["error"]["message"] == "it broke"
    assert (done, rest) == (b"data: [DONE]", b"")


def test_keep_alives_are_comments() -> None:
    assert CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1").keep_alive() == b": keep-alive\n\n"


def test_text_is_kept_up_to_a_limit_and_counted_beyond() -> None:
    reader = CHAT.stream_reader(target(), True)
    piece = sse(*(content_chunk("x" * 100) for _ in range(100)), done=False)
    for _ in range(20):
        reader.feed(piece)
    text, more_bytes = reader.text_so_far()
    assert 65_536 <= len(text) < 80_000
    assert set(text) == {"x"}
    assert len(text) + more_bytes >= 200_000


def test_an_event_without_end_is_refused() -> None:
    reader = CHAT.stream_reader(target(), True)
    events = [event for _ in range(20) for event in reader.feed(b"x" * (1 << 20))]
    assert [event.error.kind for event in events if event.error] == ["bad_reply"]


def test_choices_that_take_turns_are_all_forwarded() -> None:
    chunks = [content_chunk(f"{n}", index=n % 2) for n in range(80)]
    streamed = through(*chunks, STOP, chunk_of({}, finish_reason="stop", index=1))
    folded = fold(streamed.chunks)
    assert folded[0]["content"] == "".join(str(n) for n in range(0, 80, 2))
    assert folded[1]["content"] == "".join(str(n) for n in range(1, 80, 2))


def test_settling_nothing_still_ends_the_stream() -> None:
    writer = CHAT.stream_writer(Call("openai-chat", "chat", {}, 0, ()), ASKED, "req_1")
    assert writer.finish(Settlement(NOTHING, 0)).endswith(b"data: [DONE]\n\n")
