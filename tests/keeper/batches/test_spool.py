from __future__ import annotations

import os
from pathlib import Path

from aigate.core.batch import LineError
from aigate.core.batch_lines import error_line, reply_line
from aigate.keeper.batches.spool import ERRORS, OUTPUT, Spool

BATCH = "batch_0193a1b2c3daabbccddeeff"


def good(number: int) -> bytes:
    return reply_line(BATCH, number, f"c{number}", 200, "req_1", b"{}")


def bad(number: int) -> bytes:
    return error_line(BATCH, number, None, LineError("x", "y"))


def test_a_spool_knows_what_is_done_and_cuts_off_what_is_half_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BATCH)
    assert spool.open() == (set(), set())
    for number in (1, 3, 17):
        spool.add(OUTPUT, good(number))
    spool.add(ERRORS, bad(2))
    spool.sync()
    spool.close()
    whole = good(1) + good(3)
    for size in range(len(whole), len(whole) + len(good(17))):
        os.truncate(spool.path(OUTPUT), size)
        again = Spool(tmp_path, BATCH)
        assert again.open() == ({1, 3}, {2})
        assert spool.path(OUTPUT).read_bytes() == whole
        assert again.has(OUTPUT) and again.has(ERRORS)
        again.add(OUTPUT, good(17))
        again.close()
    assert spool.path(OUTPUT).read_bytes() == whole + good(17)


def test_zeroes_that_a_power_cut_left_are_no_lines(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BATCH)
    spool.open()
    spool.add(OUTPUT, good(1))
    spool.close()
    with spool.path(OUTPUT).open("ab") as file:
        file.write(b"\0" * 300 + b"\n" + good(2))
    assert spool.open() == ({1}, set())
    spool.remove()
    assert list(tmp_path.iterdir()) == []
