"""A condition on several columns at once, in a form that every database searches an index for. Runs nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy import ColumnElement, and_, tuple_


def is_any_of(columns: Sequence[ColumnElement], rows: Collection[Sequence[object]]) -> ColumnElement[bool]:
    """The columns together are one of the rows. Each is also named alone: SQLite scans the table for a list of rows, but seeks where
    every column has a list of its own. For few different values in all columns but one: it seeks each combination."""
    alone = [column.in_(sorted({row[at] for row in rows})) for at, column in enumerate(columns)]  # type: ignore[type-var]
    return and_(tuple_(*columns).in_(rows), *alone)
