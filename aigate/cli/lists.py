"""Lists of the control plane, page after page, as rows; and bodies without what was not given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from aigate.cli.connection import Server
from aigate.cli.output import show_rows


def show_list(server: Server, path: str, fields: Sequence[str], **filters: str | None) -> None:
    show_rows(fields, ([_shown(field, row[field]) for field in fields] for row in _rows(server, path, filters)))


def given(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if value is not None}


def _rows(server: Server, path: str, filters: dict[str, str | None]) -> Iterator[dict[str, Any]]:
    """Of all pages."""
    query = given(filters)
    while True:
        page = server.request("GET", path + (f"?{urlencode(query)}" if query else ""))
        yield from page["data"]
        query["cursor"] = page.get("next_cursor")
        if query["cursor"] is None:
            return


def _shown(field: str, value: Any) -> Any:
    if isinstance(value, list):
        return " ".join(map(str, value))
    return datetime.fromtimestamp(value, UTC).strftime("%Y-%m-%d %H:%M") if field.endswith("_at") and value else value
