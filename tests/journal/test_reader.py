from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigate.journal.reader import START, JournalReader, Position
from aigate.journal.records import CALL_END, INTENT, SETTLED
from aigate.journal.segment import SEGMENT_HEADER_BYTES, BadSegment, encode_frame, segment_header, segment_name
from aigate.journal.writer import MIN_SEGMENT_BYTES, JournalWriter


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[JournalWriter]:
    writer = JournalWriter(tmp_path, "jrn_a", segment_bytes=MIN_SEGMENT_BYTES)
    yield writer
    writer.close()


def bodies_of(reader: JournalReader) -> list[bytes]:
    return [body for _, body, _, _ in reader.read()]


def damage(path: Path, offset: int, size: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        before = file.read(size)
        file.seek(offset)
        file.write(bytes(byte ^ 0xFF for byte in before))


def test_it_reads_on_as_the_writer_appends(writer: JournalWriter) -> None:
    reader = JournalReader(writer.folder)
    assert not reader.has_news() and reader.read() == []
    writer.intent(b"one")
    writer.settled(b"two")
    assert reader.has_news()
    assert [(kind, body) for kind, body, _, _ in reader.read()] == [(INTENT, b"one"), (SETTLED, b"two")]
    assert not reader.has_news() and reader.read() == []
    writer.call_end(b"three")
    assert [(kind, body) for kind, body, _, _ in reader.read()] == [(CALL_END, b"three")]


def test_it_starts_at_any_record_it_gave_out(writer: JournalWriter) -> None:
    for n in range(10):
        writer.call_end(b"%d" % n)
    for _, body, segment, offset in JournalReader(writer.folder).read():
        assert bodies_of(JournalReader(writer.folder, Position(segment, offset)))[0] == body


def test_it_follows_the_writer_over_many_segments(writer: JournalWriter) -> None:
    reader = JournalReader(writer.folder)
    body = bytes(range(256)) * 150
    got: list[bytes] = []
    for n in range(20):  # three records fill a segment
        writer.call_end(b"%d" % n + body)
        got += bodies_of(reader)
        asyncio.run(writer.keep_up())
    assert got == [b"%d" % n + body for n in range(20)]
    assert reader.position.segment > 4
    assert bodies_of(JournalReader(writer.folder)) == got


def test_a_read_stops_near_its_limit_and_the_next_goes_on(writer: JournalWriter) -> None:
    for n in range(5):
        writer.call_end(b"%d" % n + bytes(40_000))
    reader = JournalReader(writer.folder)
    assert [body[:1] for _, body, _, _ in reader.read(limit_bytes=1)] == [b"0", b"1", b"2"]
    assert [body[:1] for _, body, _, _ in reader.read(limit_bytes=1)] == [b"3", b"4"]


def test_a_folder_without_segments_has_nothing(tmp_path: Path) -> None:
    reader = JournalReader(tmp_path)
    assert reader.read() == [] and not reader.has_news() and reader.tail() == "end"


def test_a_torn_last_record_is_told_from_the_end(writer: JournalWriter) -> None:
    for body in (b"whole", b"cut short"):
        writer.call_end(body)
    place = JournalReader(writer.folder).read()[1][3]
    writer.close()
    damage(writer.folder / segment_name(1), place + 20)
    reader = JournalReader(writer.folder)
    assert bodies_of(reader) == [b"whole"]
    assert reader.tail() == "torn"


def test_damage_is_told_from_a_torn_tail_and_the_records_behind_it_are_saved(writer: JournalWriter) -> None:
    for n in range(5):
        writer.call_end(b"record %d" % n)
    writer.close()
    place = JournalReader(writer.folder).read()[2][3]
    damage(writer.folder / segment_name(1), place + 20)
    reader = JournalReader(writer.folder)
    assert bodies_of(reader) == [b"record 0", b"record 1"]
    assert reader.tail() == "damaged"
    reader.skip_damage()
    assert bodies_of(reader) == [b"record 3", b"record 4"]
    assert reader.tail() == "end" and "unreadable from 1:" in reader.damage


def test_damage_before_a_later_segment_is_passed_and_said(writer: JournalWriter) -> None:
    for n in range(5):
        writer.call_end(b"%d" % n + bytes(40_000))
    damage(writer.folder / segment_name(1), SEGMENT_HEADER_BYTES + 2 * 40_018 + 30)
    reader = JournalReader(writer.folder)
    assert [body[:1] for body in bodies_of(reader)] == [b"0", b"1", b"3", b"4"]
    assert "records 2 to 2 are missing before segment 2" in reader.damage


def test_left_overs_of_a_failed_write_are_not_read(tmp_path: Path) -> None:
    """Behind a record that was written over the beginning of a failed one, even what looks like a record is not one."""
    folder = tmp_path / "jrn_a"
    folder.mkdir()
    left_over = encode_frame(7, CALL_END, b"looks whole")
    frames = encode_frame(0, CALL_END, b"first") + encode_frame(1, CALL_END, b"second") + left_over
    (folder / segment_name(1)).write_bytes(segment_header("jrn_a", 1) + frames + bytes(1000))
    assert bodies_of(JournalReader(folder)) == [b"first", b"second"]


def test_a_foreign_file_is_refused(writer: JournalWriter) -> None:
    damage(writer.folder / segment_name(1), 0, 4)
    with pytest.raises(BadSegment):
        JournalReader(writer.folder, START).read()
