from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aigate.journal.segment import (
    SEGMENT_HEADER_BYTES,
    BadSegment,
    check_segment_header,
    encode_frame,
    find_frame,
    is_torn,
    scan_frames,
    segment_header,
    segment_name,
    segment_number,
)

RECORDS = st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=300)), max_size=12)


def frames(records: list[tuple[int, bytes]]) -> list[bytes]:
    return [encode_frame(seq, kind, body) for seq, (kind, body) in enumerate(records)]


def scanned(data: bytes, start: int = 0) -> list[tuple[int, bytes]]:
    return [(kind, body) for _, kind, body, _ in scan_frames(data, start)]


@given(RECORDS, st.integers(0, 100))
def test_what_was_written_is_read_up_to_the_zeros_behind_it(records: list[tuple[int, bytes]], room: int) -> None:
    data = b"".join(frames(records)) + bytes(room)
    assert scanned(data) == records
    end = [end for *_, end in scan_frames(data)][-1:] or [0]
    assert not is_torn(data, end[0])


@given(RECORDS, st.data())
def test_a_record_cut_anywhere_ends_the_reading_and_spoils_nothing_before_it(records: list[tuple[int, bytes]], data: st.DataObject) -> None:
    whole = b"".join(frames(records))
    cut = data.draw(st.integers(0, len(whole)))
    torn = whole[:cut] + bytes(len(whole) - cut)
    got = scanned(torn)
    assert got == records[: len(got)]
    sizes = [len(frame) for frame in frames(records)]
    assert len(got) >= sum(1 for at in range(len(sizes)) if sum(sizes[: at + 1]) <= cut)


@given(RECORDS.filter(bool), st.data())
def test_a_changed_bit_is_never_read_as_a_record(records: list[tuple[int, bytes]], data: st.DataObject) -> None:
    parts = frames(records)
    hit = data.draw(st.integers(0, len(parts) - 1))
    bit = data.draw(st.integers(0, len(parts[hit]) * 8 - 1))
    broken = bytearray(parts[hit])
    broken[bit // 8] ^= 1 << bit % 8
    assert scanned(b"".join(parts[:hit]) + bytes(broken) + b"".join(parts[hit + 1 :])) == records[:hit]


@given(RECORDS.filter(bool), st.binary(min_size=1, max_size=50).filter(lambda junk: any(junk)))
def test_the_next_whole_record_is_found_behind_damage(records: list[tuple[int, bytes]], junk: bytes) -> None:
    data = junk + b"".join(frames(records)) + bytes(20)
    assert scanned(data, find_frame(data, 0))[-1] == records[-1]


def test_nothing_is_found_where_nothing_is() -> None:
    assert find_frame(bytes(1000), 0) == -1
    assert find_frame(encode_frame(0, 1, b"cut")[:-1], 0) == -1


def test_a_header_names_its_journal_and_number() -> None:
    header = segment_header("jrn_a", 7)
    assert len(header) == SEGMENT_HEADER_BYTES
    check_segment_header(header, "jrn_a", 7)
    for journal_id, number in (("jrn_b", 7), ("jrn_a", 8)):
        with pytest.raises(BadSegment, match="does not match"):
            check_segment_header(header, journal_id, number)


def test_a_segment_of_a_later_version_is_refused_by_its_version() -> None:
    header = bytearray(segment_header("jrn_a", 1))
    header[4] = 2
    with pytest.raises(BadSegment, match="version 2; this release reads version 1"):
        check_segment_header(bytes(header), "jrn_a", 1)


@pytest.mark.parametrize("data", [b"", b"AIG", b"GIF89a" + bytes(64), segment_header("jrn_a", 1)[:60]])
def test_what_is_no_segment_is_refused(data: bytes) -> None:
    with pytest.raises(BadSegment):
        check_segment_header(data, "jrn_a", 1)


def test_segment_names_sort_as_their_numbers() -> None:
    assert segment_name(12) == "00000012.seg"
    assert segment_number("00000012.seg") == 12
    assert [segment_number(name) for name in ("lock", "00000001.seg.new", "x.seg")] == [None, None, None]
