"""How money and tables look on the wire: cents, where a budget stands, lists as JSON or CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

from fastapi import Request, Response

from aigate.api.boundary import json_reply
from aigate.core.account import Standing
from aigate.core.budget import ALL_TIME
from aigate.core.price import NANOUSD_PER_CENT, format_cents
from aigate.errors import ClientError

Row = dict[str, Any]


def cents(nanousd: int) -> float:
    return float(format_cents(nanousd)) if nanousd >= 0 else -float(format_cents(-nanousd))


def whole_cents(nanousd: int | None) -> int | None:
    """A limit: it was given in whole cents."""
    return None if nanousd is None else nanousd // NANOUSD_PER_CENT


def standing_fields(standing: Standing) -> Row:
    """What was settled, what is kept for attempts of unknown end, what running workers hold; all count against the limit."""
    limit = standing.limit_nanousd
    return {
        "budget_mode": standing.mode,
        "spent_cents": cents(standing.spent),
        "reserved_cents": cents(standing.reserved),
        "held_cents": cents(standing.leased),
        "remaining_cents": None if limit is None else cents(max(0, limit - standing.spent - standing.reserved)),
        "resets_at": _next_month(standing.window),
    }


def _next_month(window: str) -> int | None:
    """Unix seconds of the end of a window; a balance has none."""
    if not window or window == ALL_TIME:
        return None
    year, month = map(int, window.split("-"))
    return int(datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC).timestamp())


def page_reply(found: Sequence[Any], limit: int, record: Callable[[Any], Row], mark: Callable[[Any], str] = attrgetter("id")) -> Response:
    """A page of rows that were read with one more than its limit. `mark`: of its last row, what the next page goes on from."""
    page = found[:limit]
    next_cursor = mark(page[-1]) if len(found) > limit else None
    return json_reply({"object": "list", "data": [record(row) for row in page], "next_cursor": next_cursor})


def table_reply(request: Request, rows: Sequence[Row], columns: Sequence[str], **fields: Any) -> Response:
    """A list as JSON, or as CSV with a line of names where `?format=csv` or an Accept header asks for it."""
    if not wants_csv(request):
        return json_reply({"object": "list", **fields, "data": rows})
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return Response(text.getvalue(), media_type="text/csv; charset=utf-8")


def wants_csv(request: Request) -> bool:
    wanted = request.query_params.get("format")
    if wanted is None:
        return request.headers.get("accept", "").partition(",")[0].partition(";")[0].strip().lower() == "text/csv"
    if wanted not in ("json", "csv"):
        raise ClientError(f"format: allowed are json and csv, got {wanted[:40]!r}.", param="format")
    return wanted == "csv"
