"""Shapes of what callers send to the control plane, shared by several routes."""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Query
from pydantic import AfterValidator, AliasChoices, AliasGenerator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

from aigate.core.account import Page
from aigate.core.price import NANOUSD_PER_CENT
from aigate.errors import ClientError

MAX_CENTS = 10**11  # a billion dollars: in nano-dollars it and its sums stay within 64 bits
MAX_RATE = 10**9
MAX_PAGE = 1000
_CURSOR_MARK = "="  # before the label in a cursor, as a label may be empty


class Input(BaseModel):
    """A JSON body. Fields may be spelt in snake_case or camelCase; a field that we do not know is an error, not a silence."""

    model_config = ConfigDict(
        extra="forbid",
        str_strip_whitespace=True,
        alias_generator=AliasGenerator(validation_alias=lambda name: AliasChoices(name, to_camel(name))),
    )

    def given(self) -> dict[str, Any]:
        """The fields that were sent: what a PATCH changes."""
        return {name: getattr(self, name) for name in self.model_fields_set}


def _not_a_flag(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("must be a whole number")
    return value


def _lies_ahead(value: datetime) -> datetime:
    value = value if value.tzinfo else value.replace(tzinfo=UTC)
    if value.timestamp() <= time.time():
        raise ValueError("must lie in the future")
    return value


Line = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$")]  # text without control characters
Name = Annotated[Line, StringConstraints(min_length=1, max_length=200)]
Tag = Annotated[Line, StringConstraints(min_length=1, max_length=64)]
Glob = Annotated[Line, StringConstraints(min_length=1, max_length=200)]
Globs = Annotated[list[Glob], Field(max_length=200, description="patterns over slugs, such as moonshot/*; empty: all")]
Cents = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=0, le=MAX_CENTS)]
Rate = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=1, le=MAX_RATE)]
ArchiveDays = Annotated[int, BeforeValidator(_not_a_flag), Field(ge=0, le=3650, description="bodies of calls are kept so long; 0: not at all")]
Future = Annotated[datetime, AfterValidator(_lies_ahead), Field(description="ISO 8601 or unix seconds")]

_MONTH = r"^[12][0-9]{3}-(0[1-9]|1[0-2])$"
Month = Annotated[str | None, Query(pattern=_MONTH, description="YYYY-MM, UTC; this month when left out")]


def _read_page(
    limit: Annotated[int | None, Query(ge=1, le=MAX_PAGE, description="a page of so many, in the order of their labels")] = None,
    cursor: Annotated[str | None, Query(pattern=f"^{_CURSOR_MARK}", max_length=300, description="next_cursor of the page before")] = None,
) -> Page | None:
    if limit is None and cursor is None:
        return None
    return Page(limit or MAX_PAGE, None if cursor is None else cursor.removeprefix(_CURSOR_MARK))


AskedPage = Annotated[Page | None, Depends(_read_page)]


def next_cursor(page: Page, labels: Sequence[str]) -> str | None:
    """`labels`: of the page's entries, read with one more than its limit."""
    return _CURSOR_MARK + labels[page.limit - 1] if len(labels) > page.limit else None


def month_or_now(month: str | None) -> str:
    return month or datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m")


def to_nanousd(cents: int | None) -> int | None:
    return None if cents is None else cents * NANOUSD_PER_CENT


def refuse_null(values: dict[str, Any], *names: str) -> None:
    """A PATCH may leave these out, but cannot empty them."""
    for name in names:
        if name in values and values[name] is None:
            raise ClientError(f"{name}: cannot be null; leave it out to keep it as it is.", param=name)
