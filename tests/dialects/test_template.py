"""Templates: what they take is exactly what decoding would have found, whatever the bytes."""

from __future__ import annotations

import json
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from aigate.core.events import HOLE
from aigate.core.neutral import Chunk, Delta
from aigate.core.target import Quirks
from aigate.dialects.template import Template, learn, padding
from tests.dialects.recorded import target
from tests.dialects.streaming import chunk_of, content_chunk, sse, stream_through

HEAD = b'data: {"m":"x","d":{"c":"'
TAIL = b'"},"f":null}\n\n'
TEMPLATE = Template(HEAD, TAIL, Chunk())

# Pieces that could fool a matcher: quotes, backslashes, line ends, and the head and tail themselves.
NASTY = st.lists(
    st.sampled_from([b'"', b"\\", b'\\"', b"\\\\", b"\n", b"\n\n", b"a", b",", b"}", b'","c":"', HEAD, TAIL, b'"},"f":null}', b"data: "]),
    max_size=6,
).map(b"".join)


# The inside of a JSON string on one line: escapes are not checked, as what a bad one makes unreadable is forwarded all the same.
INSIDE = re.compile(rb'(?:[^"\\\n]|\\[^\n])*')


@settings(max_examples=500)
@given(st.lists(NASTY, min_size=1, max_size=5), st.sampled_from([b"", b"data: [DONE]\n\n", HEAD + b'a"}\n\n', b": ping\n\n" + HEAD + TAIL]))
def test_a_run_that_matches_holds_nothing_but_its_texts(texts: list[bytes], rest: bytes) -> None:
    run = b"".join(HEAD + text + TAIL for text in texts) + rest
    matched = TEMPLATE.match_run(run, 0)
    if matched is not None:
        found, joined, end = matched
        assert joined == b"\n".join(found)
        assert b"".join(HEAD + text + TAIL for text in found) == run[:end]
        assert all(INSIDE.fullmatch(text) for text in found)


@settings(max_examples=500)
@given(NASTY, st.sampled_from([b"", b"\r", b"data: [DONE]\n\n", HEAD + TAIL]))
def test_one_event_that_matches_is_all_there_is(text: bytes, rest: bytes) -> None:
    data = HEAD + text + rest + TAIL
    found = TEMPLATE.match_one(data)
    if found is not None:
        assert HEAD + found + TAIL == data
        assert INSIDE.fullmatch(found) and b"\r" not in found


def test_one_plain_event_does_match() -> None:
    assert TEMPLATE.match_one(HEAD + b"Hello" + TAIL) == b"Hello"


def test_what_is_too_short_for_head_and_tail_is_no_event() -> None:
    """`"` ends the head and begins the tail: they must not share it."""
    assert Template(b'{"c":"', b'"}\n\n', Chunk()).match_one(b'{"c":"}\n\n') is None


@settings(max_examples=500)
@given(NASTY, NASTY)
def test_the_first_event_that_matches_is_one_event(text: bytes, rest: bytes) -> None:
    run = HEAD + text + TAIL + rest
    matched = TEMPLATE.match_first(run, 0)
    if matched is not None:
        found, joined, end = matched
        assert found == [joined] and run[:end] == HEAD + joined + TAIL
        assert INSIDE.fullmatch(joined)


@given(st.lists(st.text(max_size=8), min_size=3, max_size=12), st.booleans(), st.lists(st.integers(1, 200), min_size=1, max_size=4))
def test_spliced_equals_decoded_and_encoded(texts: list[str], is_ascii: bool, sizes: list[int]) -> None:
    chunks = [json.dumps(content_chunk(text), ensure_ascii=is_ascii).encode() for text in texts]
    data = sse(*chunks, chunk_of({}, finish_reason="stop"))
    spliced = stream_through(data, target(), sizes=sizes)
    neutral = stream_through(data, target(), is_spliced=False)
    assert (spliced.chunks, spliced.text) == (neutral.chunks, neutral.text)


def test_a_text_that_stands_in_two_places_teaches_nothing() -> None:
    block = b'data: {"model":"same","d":"same"}\n\n'
    assert learn(block, Chunk(deltas=[Delta(0, text="same")]), lambda _: None) is None


def test_a_place_that_is_not_the_texts_own_teaches_nothing() -> None:
    block = b'data: {"note":"hi","d":"\\u0068i"}\n\n'
    chunk = Chunk(deltas=[Delta(0, text="hi")])
    assert learn(block, chunk, lambda _: chunk) is None


def test_a_template_knows_its_hole() -> None:
    block = b'data: {"d":"hi"}\n\n'
    template = learn(block, Chunk(deltas=[Delta(0, text="hi")]), lambda _: Chunk(deltas=[Delta(0, text=HOLE)]))
    assert template is not None
    run = b'data: {"d":"a"}\n\ndata: {"d":"b"}\n\n'
    assert template.match_run(run, 0) == ([b"a", b"b"], b"a\nb", len(run))
    assert template.match_run(b": ping\n\n" + run + b"data: [DONE]\n\n", 8) == ([b"a", b"b"], b"a\nb", 8 + len(run))
    assert template.match_run(run + b'data: {"d":"c","e":1}\n\n', 0) == ([b"a", b"b"], b"a\nb", len(run))
    assert template.match_run(b'data: {"e":"b"}\n\n' + run, 0) is None


def test_padding_is_cut_only_where_it_is_the_chunks_last_key() -> None:
    cut = padding(frozenset({"p"}))
    assert cut.sub(b"}\n\n", b'data: {"a":1,"p":"abc"}\n\n') == b'data: {"a":1}\n\n'
    for kept in (b'data: {"a":{"b":1,"p":"abc"}}\n\n', b'data: {"a":"x,\\"p\\":\\"abc\\"}"}\n\n', b'data: {"a":1,"p":"a\\"b"}\n\n'):
        assert cut.sub(b"}\n\n", kept) == kept


@given(st.lists(st.text('"\\},p:{[', max_size=10), min_size=2, max_size=8))
def test_padding_cut_changes_no_text(texts: list[str]) -> None:
    chunks = [content_chunk(text, p="abc"[: n % 4]) for n, text in enumerate(texts)]
    quirks = Quirks(drops=frozenset({"p"}))
    data = sse(*chunks, chunk_of({}, finish_reason="stop"))
    assert stream_through(data, target(quirks)).chunks == stream_through(data, target(quirks), is_spliced=False).chunks
