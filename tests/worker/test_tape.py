"""Tapes of running replies: whole whatever they went through, bounded in memory together, and a disk that fails loses one reply and no call."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from aigate.worker.tape import BLOCK_BYTES, Shelf, Tape

MAX_BODY_BYTES = 1 << 20
ROOM_BYTES = 1 << 20


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "spool", max_body_bytes=MAX_BODY_BYTES, room_bytes=ROOM_BYTES)


def test_many_long_replies_at_once_stay_within_the_room_and_come_back_whole(shelf: Shelf, tmp_path: Path):
    rng = random.Random(1)
    tapes = [(Tape(shelf), bytearray()) for _ in range(60)]
    most_bytes = all_bytes = 0
    for _ in range(4_000):
        place = rng.randrange(len(tapes))
        tape, sent = tapes[place]
        piece = rng.randbytes(rng.choice((1, 300, 9_000, 70_000)))
        tape.add(piece)
        sent += piece
        all_bytes += len(piece)
        if len(sent) > 900_000:  # it ends, and another begins
            assert tape.take() == sent
            tapes[place] = (Tape(shelf), bytearray())
        most_bytes = max(most_bytes, shelf.held_bytes)
    assert ROOM_BYTES * 0.9 < most_bytes <= ROOM_BYTES + 70_000
    running_bytes = sum(len(sent) for _, sent in tapes)
    assert running_bytes - ROOM_BYTES - len(tapes) * BLOCK_BYTES < shelf.file_bytes, "the rest of them is in the file"
    assert shelf.file_bytes < all_bytes / 2, "blocks of ended replies are used again"
    assert [tape.take() for tape, _ in tapes] == [sent for _, sent in tapes]
    assert (shelf.held_bytes, shelf.file_bytes, shelf.lost) == (0, 0, 0)
    assert list((tmp_path / "spool").iterdir()) == []


def test_short_replies_and_few_long_ones_touch_no_file(shelf: Shelf, tmp_path: Path):
    for size in (0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, 900_000):
        tape = Tape(shelf)
        for _ in range(size):
            tape.add(b"x")
        assert tape.take() == b"x" * size
    assert not (tmp_path / "spool").exists() and shelf.held_bytes == 0


@pytest.mark.parametrize("room_bytes", [0, ROOM_BYTES])
def test_of_a_reply_longer_than_is_kept_nothing_is_held(tmp_path: Path, room_bytes: int):
    shelf = Shelf(tmp_path, max_body_bytes=100_000, room_bytes=room_bytes)
    just = Tape(shelf)
    long = Tape(shelf)
    for _ in range(10):
        just.add(b"x" * 10_000)
        long.add(b"y" * 10_000)
    long.add(b"y")
    assert shelf.held_bytes <= 100_000 and shelf.file_bytes <= 2 * 100_000
    long.add(b"y" * 1_000_000)
    assert long.take() is None and not long.is_lost
    assert just.take() == b"x" * 100_000
    assert (shelf.held_bytes, shelf.file_bytes, shelf.lost) == (0, 0, 0)


def test_where_no_file_can_be_made_that_reply_is_lost_and_counted_and_the_rest_goes_on(tmp_path: Path):
    folder = tmp_path / "spool"
    folder.write_bytes(b"a file is in the way")
    shelf = Shelf(folder, max_body_bytes=MAX_BODY_BYTES, room_bytes=ROOM_BYTES)
    first, last = Tape(shelf), Tape(shelf)
    first.add(b"a" * 700_000)
    last.add(b"b" * 700_000)
    for _ in range(3):
        last.add(b"b" * 700_000)
    assert shelf.held_bytes == 700_000, "nothing of it is held any more"
    assert last.take() is None and last.is_lost and shelf.lost == 1
    assert first.take() == b"a" * 700_000 and not first.is_lost
    assert shelf.held_bytes == 0
