"""Queries over batches. A change says which states it is made from, so that what comes late changes nothing."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update

from aigate.core.batch import CANCELLING, FINALIZING, IN_PROGRESS, NATIVE_MARK, VALIDATING, Batch, BatchUsage, LineError, call_id_range, line_of_call
from aigate.core.file import Listing
from aigate.keeper.db.file_tables import batches
from aigate.keeper.db.files import paged
from aigate.keeper.db.tables import attempts

_column = batches.c
_JSON = {"metadata": dict[str, str], "errors": tuple[LineError, ...], "usage": BatchUsage}


def add_batch(connection: Connection, new: Batch) -> None:
    connection.execute(insert(batches).values(_stored(msgspec.structs.asdict(new))))


def get_batch(connection: Connection, batch_id: str) -> Batch | None:
    row = connection.execute(select(batches).where(_column.id == batch_id)).one_or_none()
    return None if row is None else _batch(row)


def list_batches(connection: Connection, owner: tuple[str, str], page: Listing) -> list[Batch]:
    query = select(batches).where(_column.account_id == owner[0], _column.owner_id == owner[1])
    return [_batch(row) for row in connection.execute(paged(query, _column.id, page))]


def unfinished_batches(connection: Connection) -> list[tuple[str, str, str]]:
    """(id, owner, status), oldest first."""
    query = select(_column.id, _column.owner_id, _column.status).where(_column.ended_ms.is_(None)).order_by(_column.id)
    return [(row.id, row.owner_id, row.status) for row in connection.execute(query)]


def begin_batch(connection: Connection, batch_id: str, now_ms: int) -> None:
    _change(connection, batch_id, (VALIDATING,), status=IN_PROGRESS, in_progress_ms=now_ms)


def checkpoint_batch(connection: Connection, batch_id: str, fence: int, completed: int, failed: int) -> None:
    _change(connection, batch_id, (IN_PROGRESS, CANCELLING), fence=fence, completed=completed, failed=failed)


def cancel_batch(connection: Connection, batch_id: str, now_ms: int) -> bool:
    """Whether it is being cancelled now, and was not before."""
    return _change(connection, batch_id, (VALIDATING, IN_PROGRESS), status=CANCELLING, cancelling_ms=now_ms)


def finalize_batch(connection: Connection, batch_id: str, now_ms: int, **fields: object) -> bool:
    """Its lines are done with. `fields`: how it will have ended, its counts, and the ids of its files."""
    states = (VALIDATING, IN_PROGRESS, CANCELLING)
    return _change(connection, batch_id, states, status=FINALIZING, finalizing_ms=now_ms, **fields)


def end_batch(connection: Connection, batch_id: str, now_ms: int, usage: BatchUsage) -> Batch | None:
    """None: it had ended before."""
    found = get_batch(connection, batch_id)
    if found is None or not _change(connection, batch_id, (FINALIZING,), status=found.ends_as, ended_ms=now_ms, usage=usage):
        return None
    return get_batch(connection, batch_id)


def usage_of(connection: Connection, batch_id: str) -> BatchUsage:
    """Of its calls, by their ids."""
    first, end = call_id_range(batch_id)
    sums = [func.coalesce(func.sum(attempts.c[name]), 0) for name in BatchUsage.__struct_fields__]
    row = connection.execute(select(*sums).where(attempts.c.call_id >= first, attempts.c.call_id < end)).one()
    return BatchUsage(*map(int, row))


def last_line_sent(connection: Connection, batch_id: str) -> int:
    """The highest line with an attempt in the ledger that we made; 0: none."""
    first, end = call_id_range(batch_id)
    column = attempts.c.call_id
    found = connection.execute(select(func.max(column)).where(column >= first, column < end, column.not_like(f"%{NATIVE_MARK}"))).scalar()
    return 0 if found is None else line_of_call(found)


def _change(connection: Connection, batch_id: str, states: tuple[str, ...], **values: object) -> bool:
    is_open: ColumnElement[bool] = _column.status.in_(states)
    return connection.execute(update(batches).where(_column.id == batch_id, is_open).values(_stored(values))).rowcount > 0


def _stored(values: dict[str, Any]) -> dict[str, Any]:
    return {
        name: msgspec.json.encode(value).decode() if name in _JSON and value is not None else value for name, value in values.items()
    }


def _batch(row: Row) -> Batch:
    values = dict(row._mapping)
    for name, kind in _JSON.items():
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name], type=kind)
    return Batch(**values)
