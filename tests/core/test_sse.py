"""SSE framing: whole blocks in any slicing and with any line end, and the payload of one block."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.core.sse import BlockSplitter, read_block

PAYLOADS = st.lists(st.text("ab:{} é😀", min_size=1, max_size=12), min_size=1, max_size=6)


def payloads_of(pieces: list[bytes]) -> list[bytes]:
    splitter = BlockSplitter()
    text = b"".join(splitter.feed(piece) for piece in pieces) + splitter.close()
    return [payload for block in text.split(b"\n\n") if (payload := read_block(block)) is not None]


@given(PAYLOADS, st.sampled_from(["\n", "\r\n", "\r"]), st.lists(st.integers(0, 60), max_size=12))
def test_the_same_payloads_come_out_however_the_bytes_are_cut_and_lines_end(payloads: list[str], end: str, cuts: list[int]) -> None:
    data = "".join(f": note{end}{end}event: x{end}data: {payload}{end}{end}" for payload in payloads).encode()
    edges = sorted({0, len(data), *(cut * len(data) // 60 for cut in cuts)})
    pieces = [data[start:stop] for start, stop in zip(edges, edges[1:], strict=False)]
    assert payloads_of(pieces) == [payload.encode() for payload in payloads]


def test_byte_by_byte_equals_at_once() -> None:
    data = "data: naïve 😀\r\n\r\ndata: b\r\n\r\n".encode()
    assert payloads_of([data[at : at + 1] for at in range(len(data))]) == payloads_of([data]) == ["naïve 😀".encode(), b"b"]


@pytest.mark.parametrize(
    ("block", "payload"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\n\n", b"{}"),
        (b"data:  x\n\n", b" x"),
        (b"data: a\ndata: b\n\n", b"a\nb"),
        (b"data\n\n", b""),
        (b"event: error\ndata: {}\nid: 7\n\n", b"{}"),
        (b": comment\n\n", None),
        (b"event: ping\n\n", None),
        (b"\xef\xbb\xbfdata: first\n\n", b"first"),
        (b"dataset: x\n\n", None),
    ],
)
def test_a_payload_is_the_data_lines_joined(block: bytes, payload: bytes | None) -> None:
    assert read_block(block) == payload


def test_an_unfinished_block_is_held_and_handed_over_at_the_end() -> None:
    splitter = BlockSplitter()
    assert splitter.feed(b"data: a\n\ndata: b") == b"data: a\n\n"
    assert splitter.held_bytes == 7
    assert splitter.close() == b"data: b"
    assert splitter.close() == b""


def test_a_carriage_return_cut_from_its_line_feed_is_one_line_end() -> None:
    assert payloads_of([b"data: a\r", b"\n\r", b"\ndata: b\r\n\r\n"]) == [b"a", b"b"]
    assert payloads_of([b"data: a\r", b"", b"\r", b"data: b\n\n"]) == [b"a", b"b"]
