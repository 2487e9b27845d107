from __future__ import annotations

from typing import Any

import msgspec
import pytest

from aigate.keeper.db import export
from aigate.keeper.db.engine import Database
from aigate.keeper.db.export import attempt_pages
from aigate.keeper.db.ledger_rows import Batch
from tests.keeper.conftest import write_whole

NEW_YEAR_MS = 1_704_067_200_000  # 2024-01-01


@pytest.mark.parametrize(
    ("month", "expected"), [(None, [0, 1, 2, 3]), ("2023-12", [0, 1]), ("2024-01", [2]), ("2024-02", [3]), ("2023-11", []), ("2999-12", [])]
)
def test_a_month_has_what_was_sent_from_its_first_millisecond_to_its_last(database: Database, traffic: Any, month: str | None, expected: list[int]) -> None:
    batch = Batch()
    for n, sent_ms in enumerate((NEW_YEAR_MS - 31 * 86_400_000, NEW_YEAR_MS - 1, NEW_YEAR_MS, NEW_YEAR_MS + 31 * 86_400_000)):
        batch.add_attempt(msgspec.structs.replace(traffic.intent(n), sent_ms=sent_ms), traffic.settled(n))
    database.write_now(write_whole, batch)
    rows = [row for page in attempt_pages(database, month) for row in page]
    assert [int(str(row["call_id"]).removeprefix("req_")) for row in rows] == expected


def test_more_than_a_page_is_exported_once_each(database: Database, traffic: Any) -> None:
    rows = export.PAGE_ROWS + 3
    batch = Batch()
    for n in range(rows):
        batch.add_attempt(traffic.intent(n), traffic.settled(n))
    database.write_now(write_whole, batch)
    pages = list(attempt_pages(database, "2023-11"))
    assert [len(page) for page in pages] == [export.PAGE_ROWS, 3]
    assert len({row["attempt_id"] for page in pages for row in page}) == rows
