"""`aigate ledger export`, `resolve` and `write-off`: what they do to a data directory's database, in words."""

from __future__ import annotations

import csv
import io
import re
import time
from collections.abc import Iterator
from decimal import Decimal

import msgspec

from aigate.cli.connection import CommandError
from aigate.cli.verify import opened
from aigate.keeper.db.export import ATTEMPT_FIELDS, attempt_pages
from aigate.keeper.db.upkeep import resolve_attempt, write_off_leases

_NANOUSD_PER_USD = 10**9
_MAX_USD = 10**6  # of one attempt
_MONTH = re.compile(r"[12][0-9]{3}-(0[1-9]|1[0-2])\Z")


def export_lines(data_dir: str, format: str, month: str | None) -> Iterator[str]:
    """Pages of lines. Each page is a transaction of its own, so that a slow reader holds nothing up."""
    if month is not None and not _MONTH.match(month):
        raise CommandError(f"--month {month!r}: expected YYYY-MM")
    with opened(data_dir) as database:
        if format == "csv":
            yield _csv_lines([ATTEMPT_FIELDS])
        for page in attempt_pages(database, month):
            if format == "csv":
                yield _csv_lines([row.values() for row in page])
            else:
                yield b"".join(msgspec.json.encode(row) + b"\n" for row in page).decode()


def resolve_in_data_dir(data_dir: str, attempt_id: str, cost_usd: str | None) -> str:
    cost = None if cost_usd is None else _to_nanousd(cost_usd)
    with opened(data_dir) as database:
        hold = database.write_now(resolve_attempt, attempt_id, cost, int(time.time() * 1000))
    if hold is None:
        raise CommandError(f"{attempt_id}: there is no such attempt that is unsettled; 'aigate ledger verify' lists them")
    return f"{attempt_id} cost ${(cost or 0) / 1e9:.9f}; a hold of ${hold / 1e9:.9f} has ended"


def write_off_in_data_dir(data_dir: str, journal_id: str) -> str:
    with opened(data_dir) as database:
        amount = database.write_now(write_off_leases, journal_id)
    if not amount:
        raise CommandError(f"{journal_id}: there is no such journal that has ended and still holds leases")
    return f"{journal_id}: ${amount / 1e9:.9f} given back"


def _to_nanousd(usd: str) -> int:
    try:
        nanousd = Decimal(usd) * _NANOUSD_PER_USD
        is_amount = 0 <= nanousd <= _MAX_USD * _NANOUSD_PER_USD and nanousd == int(nanousd)
    except ArithmeticError:  # no number, not a number, or one beyond all numbers
        is_amount = False
    if not is_amount:
        raise CommandError(f"--cost {usd!r}: expected 0 to {_MAX_USD} dollars, with 9 decimals at most")
    return int(nanousd)


def _csv_lines(rows: list) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
