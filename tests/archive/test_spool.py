"""A worker's spools and the keeper's archive of them: written, taken over, found, expired, lost only with a count."""

from __future__ import annotations

import os

import msgspec
import pytest

from aigate.archive.spool import Spool
from aigate.keeper.archive import Archive
from tests.archive.test_segment import a_call

DAY_MS = 86_400_000


def new_spool(folder, name="jrn_a", **options):
    return Spool(folder / "spool", name, **options)


def test_calls_wait_for_each_other_a_second_unless_they_must_be_there_at_once(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    spool.keep(a_call(1), 7)
    assert archive.find_now(a_call(1).call_id, 1_001) is None
    spool.tick(1.0)
    assert archive.find_now(a_call(1).call_id, 1_001) == a_call(1)
    spool.keep(a_call(2), 7)
    spool.keep(a_call(3), 7, at_once=True)
    assert [archive.find_now(a_call(n).call_id, 1_000 + n) for n in (2, 3)] == [a_call(2), a_call(3)]
    for n in range(100):
        spool.keep(a_call(n, b"x" * 1_000), 7)
    assert archive.find_now(a_call(50).call_id, 1_050) == a_call(50, b"x" * 1_000)
    spool.close()
    archive.close()


def test_a_call_is_found_in_its_spool_and_again_once_its_spool_was_taken_over(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    for n in range(5):
        spool.keep(a_call(n, b"question", b"answer"), 7, at_once=True)
    call = a_call(3, b"question", b"answer")
    assert archive.take_over() == 0  # its writer goes on
    assert archive.find_now(call.call_id, call.started_ms) == call
    spool.close()
    assert archive.take_over() == 1 and not list((tmp_path / "spool").iterdir())
    assert archive.find_now(call.call_id, call.started_ms) == call
    assert archive.find_now("req_none", call.started_ms) is None
    archive.close()


def test_what_a_killed_writer_left_is_taken_over_up_to_its_last_whole_call(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    spool.keep(a_call(1), 7, at_once=True)
    spool.keep(a_call(2), 7, at_once=True)
    (path,) = (tmp_path / "spool").iterdir()
    os.truncate(path, path.stat().st_size - 3)
    spool.close()
    archive.take_over()
    assert archive.find_now(a_call(1).call_id, 1_001) == a_call(1)
    assert archive.find_now(a_call(2).call_id, 1_002) is None
    archive.close()


def test_each_retention_lies_apart_and_goes_by_itself(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    spool.keep(a_call(1), 1, at_once=True)
    spool.keep(a_call(2), 30, at_once=True)
    spool.close()
    archive.take_over()
    assert archive.expire(1_002 + DAY_MS) == 1
    assert archive.find_now(a_call(1).call_id, 1_001) is None
    assert archive.find_now(a_call(2).call_id, 1_002) == a_call(2)
    assert archive.expire(1_003 + 30 * DAY_MS) == 1
    archive.close()


def test_a_spool_is_left_to_its_reader_when_it_is_large_or_old(tmp_path):
    spool, archive = new_spool(tmp_path, roll_bytes=2_000, roll_s=60.0), Archive(tmp_path)
    spool.keep(a_call(1, b"x" * 3_000), 7, at_once=True)
    assert archive.take_over() == 1
    spool.keep(a_call(2), 7, at_once=True)
    spool.tick(59.0)
    assert archive.take_over() == 0
    spool.tick(61.0)
    assert archive.take_over() == 1
    archive.close()


def test_what_cannot_be_written_is_counted_and_fails_nothing(tmp_path):
    spool = new_spool(tmp_path)
    (tmp_path / "spool").write_text("a file where the folder should be")
    spool.keep(a_call(1), 7, at_once=True)
    assert spool.lost == 1
    (tmp_path / "spool").unlink()
    spool.keep(a_call(2), 7, at_once=True)
    assert spool.lost == 1
    spool.close()


def test_a_follower_is_told_of_each_call_once_across_rolls(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    spool.keep(a_call(1), 7, at_once=True)
    assert archive.follow_now(True) == []  # what was there before is no news
    spool.keep(a_call(2), 7, at_once=True)
    assert archive.follow_now(True) == [a_call(2)]
    spool.keep(a_call(3), 7, at_once=True)
    spool.close()
    archive.take_over()
    spool.keep(a_call(4), 7, at_once=True)
    assert archive.follow_now(True) == [a_call(3), a_call(4)]
    assert archive.follow_now(True) == []
    archive.follow_now(False)
    spool.keep(a_call(5), 7, at_once=True)
    assert archive.follow_now(True) == []
    spool.close()
    archive.close()


def test_a_call_that_cannot_be_written_down_costs_the_others_nothing(tmp_path):
    spool, archive = new_spool(tmp_path), Archive(tmp_path)
    spool.keep(a_call(1), 7)
    with pytest.raises(UnicodeEncodeError):
        spool.keep(msgspec.structs.replace(a_call(2), path="/\udc80"), 7)
    spool.keep(a_call(3), 7)
    spool.close()
    archive.take_over()
    assert archive.kept == 2
    assert [archive.find_now(a_call(n).call_id, 1_000 + n) for n in (1, 3)] == [a_call(1), a_call(3)]
    archive.close()
