"""Frames of a spool and segments made of them."""

from __future__ import annotations

import base64
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.archive.records import FRAME_HEAD_BYTES, ArchivedCall, add_frame, decode_call, read_frames
from aigate.archive.segment import BadSegment, Span, find_call, read_calls, segment_name, span_of, write_segment


def a_call(n: int, request: bytes = b"{}", reply: bytes = b"{}") -> ArchivedCall:
    return ArchivedCall(
        f"req_{n:020x}", 1_000 + n, "acc_a", None, "key_a", None, "openai-chat", "chat", "/v1/chat/completions", "a/b", "a/b", 200, False,
        request, reply,
    )  # fmt: skip


CALLS = st.lists(st.builds(a_call, st.integers(0, 99), st.binary(max_size=300), st.binary(max_size=300)), min_size=1, max_size=30)


def spool_of(calls: list[ArchivedCall]) -> bytes:
    frames = bytearray()
    for call in calls:
        add_frame(frames, call)
    return bytes(frames)


def segment_of(calls: list[ArchivedCall]) -> io.BytesIO:
    file = io.BytesIO()
    write_segment(file, spool_of(calls))
    return file


@given(CALLS, st.integers(0, 60))
def test_half_a_frame_ends_a_spool_and_loses_nothing_before_it(calls: list[ArchivedCall], cut: int) -> None:
    data = spool_of(calls)
    found = [head.call_id for head, _ in read_frames(data[: max(0, len(data) - cut)])]
    assert found == [call.call_id for call in calls][: len(found)]
    assert len(found) == len(calls) - (cut > 0)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_as_no_frames_or_some(data: bytes) -> None:
    frames = list(read_frames(data))
    assert sum(FRAME_HEAD_BYTES + len(body) for _, body in frames) <= len(data)


@given(CALLS)
def test_a_segment_gives_back_what_it_was_made_of(calls: list[ArchivedCall]) -> None:
    file = segment_of(calls)
    assert list(read_calls(file)) == calls
    for call in calls:
        assert find_call(file, call.call_id) == next(each for each in reversed(calls) if each.call_id == call.call_id)
    assert find_call(file, "req_none") is None


def test_many_calls_lie_in_several_blocks_and_each_is_found() -> None:
    calls = [a_call(n, b"x" * 5_000, str(n).encode() * 500) for n in range(300)]
    file = io.BytesIO()
    count, span = write_segment(file, spool_of(calls))
    assert (count, span) == (300, Span(1_000, 1_299))
    assert find_call(file, calls[157].call_id) == calls[157]
    assert file.tell() < sum(len(call.request) + len(call.reply) for call in calls) / 10


EARLIER_SPOOL = (
    b'w\0\0\0\xdc\0\x12\xb8req_00000000000000000001\xcd\x03\xe9\xa5acc_a\xc0\xa5key_a\xc0\xabopenai-chat\xa4chat\xb4/v1/chat/completions'
    b'\xa3a/b\xa3a/b\xcc\xc8\xc2\xc4\x0f{"model":"a/b"}\xc4\x03yes\xc2\xc2\xc2'
    b'v\0\0\0\xdc\0\x12\xb8req_00000000000000000002\xcd\x03\xea\xa5acc_a\xc0\xa5key_a\xc0\xabopenai-chat\xa4chat\xb4/v1/chat/completions'
    b'\xa3a/b\xa3a/b\xcc\xc8\xc2\xc4\x0f{"model":"a/b"}\xc4\x02no\xc2\xc2\xc2'
)
EARLIER_SEGMENT = (
    "K}knJ0VuUE{Ur4b1OP+_cK`qY+yD}|a%FK}Ffq*o>7`*~V_#vwrE6t*Utz$jZ*XO9VQDR6Xkm1uV`yP?v@dosFJow7bT4CXZE$R5bZKvHbE9D|VxwU%V$8_G#1DHSZEs{{Y$7@$VJ~7L"
    "eZ&KKWpl#9!geyv1L^{9Z^FXD0{{*vb$$>{4}1Z>p~Y?}wJ-f7J=FjJkdl&;xN>E2UobHMG60d11<Z~D06rJ&fg{B{8H$qt00000001Wd00000002QrM?nD"
)


def test_what_earlier_releases_wrote_is_read() -> None:
    calls = [a_call(1, b'{"model":"a/b"}', b"yes"), a_call(2, b'{"model":"a/b"}', b"no")]
    assert [decode_call(body) for _, body in read_frames(EARLIER_SPOOL)] == calls
    assert spool_of(calls) == EARLIER_SPOOL  # and an earlier release reads this one's
    assert list(read_calls(io.BytesIO(base64.b85decode(EARLIER_SEGMENT)))) == calls


@given(CALLS, st.data())
def test_a_damaged_segment_is_said_to_be_so(calls: list[ArchivedCall], data: st.DataObject) -> None:
    whole = bytearray(segment_of(calls).getvalue())
    place = data.draw(st.integers(5, len(whole) - 1))
    whole[place] ^= 0xFF
    try:
        found = find_call(io.BytesIO(bytes(whole)), calls[-1].call_id)
    except BadSegment:
        return
    assert found is None or isinstance(found, ArchivedCall)
    with pytest.raises(BadSegment):
        find_call(io.BytesIO(bytes(whole[: len(whole) // 2])), calls[-1].call_id)


def test_a_segments_name_tells_when_its_calls_began(tmp_path) -> None:
    assert span_of(tmp_path / segment_name(Span(5, 1_700_000_000_000), "7d-jrn_a-000001")) == Span(5, 1_700_000_000_000)
    assert span_of(tmp_path / "notes.txt") is None
