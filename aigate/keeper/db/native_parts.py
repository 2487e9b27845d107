"""Queries over the parts of batches that are at providers. A state is written before what it says is done where that cannot be done twice."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from sqlalchemy import Connection, insert, select, update

from aigate.core.batch import call_id_range, is_native_call
from aigate.journal.records import Intent
from aigate.keeper.db.file_tables import batches, native_parts
from aigate.keeper.db.grants import month_now
from aigate.keeper.db.holds import InForce, reserve_all
from aigate.keeper.db.ledger_rows import UNSETTLED
from aigate.keeper.db.tables import attempts

NEW, SUBMITTING, WAITING, DONE, UNKNOWN = "new", "submitting", "waiting", "done", "unknown"

_column = native_parts.c


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Lines of one model. `handle`: the provider's id for it; `uploaded`: for its file."""

    id: str  # part_…
    batch_id: str
    slug: str
    lines: tuple[int, ...]
    state: str = NEW
    uploaded: str = ""
    handle: str = ""
    created_ms: int


def hold_lines(connection: Connection, intents: Sequence[Intent], owners: Sequence[tuple[str, str, str]], in_force: InForce) -> None:
    """Those that have no row yet: after a crash the same lines are held again. Raises HoldRefused."""
    ids = [intent.call_id for intent in intents]
    known = set(connection.execute(select(attempts.c.call_id).where(attempts.c.call_id.in_(ids))).scalars())
    month = month_now(connection)
    new = [msgspec.structs.replace(intent, window=month) for intent in intents if intent.call_id not in known]
    if new:
        reserve_all(connection, new, owners, in_force)


def add_parts(connection: Connection, batch_id: str, parts: Sequence[Part]) -> None:
    """From here on it is settled which lines of the batch go where."""
    for part in parts:
        connection.execute(insert(native_parts).values({**msgspec.structs.asdict(part), "lines": msgspec.json.encode(part.lines).decode()}))
    connection.execute(update(batches).where(batches.c.id == batch_id).values(is_divided=True))


def parts_of(connection: Connection, batch_id: str) -> list[Part]:
    rows = connection.execute(select(native_parts).where(_column.batch_id == batch_id).order_by(_column.id))
    return [Part(**{**row._mapping, "lines": msgspec.json.decode(row.lines, type=tuple[int, ...])}) for row in rows]


def change_part(connection: Connection, part_id: str, **values: str) -> None:
    connection.execute(update(native_parts).where(_column.id == part_id).values(values))


def held_calls(connection: Connection, batch_id: str) -> list[tuple[str, int]]:
    """(call id, sent ms) of native lines whose hold has not ended."""
    first, end = call_id_range(batch_id)
    query = select(attempts.c.call_id, attempts.c.sent_ms).where(
        attempts.c.call_id >= first, attempts.c.call_id < end, attempts.c.end == UNSETTLED
    )
    return [(row.call_id, row.sent_ms) for row in connection.execute(query) if is_native_call(row.call_id)]
