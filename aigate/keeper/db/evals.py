"""Queries over evals and their results. An eval is seen by its owner alone; everything here is told whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, or_, select, update

from aigate.core.budget import Change, Owner
from aigate.core.evals import COMPLETED, RUNNING, Eval, Item, Result
from aigate.keeper.db.eval_tables import eval_results, evals
from aigate.keeper.db.grants import month_now
from aigate.keeper.db.holds import InForce, admit
from aigate.keeper.db.ledger_rows import Share, storable
from aigate.keeper.db.outbox import Event, add_events
from aigate.keeper.db.upkeep import change_windows

_e, _r = evals.c, eval_results.c
_SHOWN = [column for column in evals.columns if column.name != "dataset"]
_decode_items = msgspec.json.Decoder(list[Item]).decode
ROWS_A_STEP = 100


def add_eval(connection: Connection, new: Eval, items: Sequence[Item]) -> None:
    values = msgspec.structs.asdict(new)
    values |= {"candidates": _json(new.candidates), "summary": _json(new.summary), "dataset": msgspec.json.encode(items)}
    connection.execute(insert(evals).values(values))


def place_eval(connection: Connection, in_force: InForce, new: Eval, items: Sequence[Item], owners: Sequence[Owner]) -> None:
    """Kept, with what it may cost at most reserved on every budget of `owners`. Raises HoldRefused."""
    month = month_now(connection)
    admit(connection, owners, new.reserved_nanousd, month, in_force)
    add_eval(connection, msgspec.structs.replace(new, window=month), items)
    change_windows(connection, _share(new, month), Change(reserved=new.reserved_nanousd), new.created_ms)


def give_back(connection: Connection, eval_id: str, amount_nanousd: int | None, now_ms: int) -> None:
    """So much less is reserved, at most what is left of it; None: all of that."""
    row = connection.execute(select(*_SHOWN).where(_e.id == eval_id).with_for_update()).one()
    amount = row.reserved_nanousd if amount_nanousd is None else min(amount_nanousd, row.reserved_nanousd)
    if amount:
        connection.execute(update(evals).where(_e.id == eval_id).values(reserved_nanousd=row.reserved_nanousd - amount))
        change_windows(connection, _share(row, row.window), Change(reserved=-amount), now_ms)


def reserved_by_evals(connection: Connection) -> list[tuple[Share, int]]:
    """Whose and how much: `verify` adds them to what attempts have reserved."""
    rows = connection.execute(select(*_SHOWN).where(_e.reserved_nanousd > 0)).all()
    return [(_share(row, row.window), row.reserved_nanousd) for row in rows]


def _share(which: Eval | Row, month: str) -> Share:
    return Share(month, "", which.account_id, which.key_id, which.sub_account_id or "", which.tag or "", "")


def get_eval(connection: Connection, account_id: str, owner_id: str | None, eval_id: str) -> Eval | None:
    """`owner_id` None: of anybody in the account."""
    which = [_e.account_id == account_id, _e.id == eval_id]
    if owner_id is not None:
        which.append(_e.owner_id == owner_id)
    row = connection.execute(select(*_SHOWN).where(*which)).one_or_none()
    return None if row is None else _eval_of(row)


def list_evals(connection: Connection, account_id: str, owner_id: str | None, limit: int, before_id: str | None) -> list[Eval]:
    """Newest first."""
    query = select(*_SHOWN).where(_e.account_id == account_id).order_by(_e.id.desc()).limit(limit)
    if owner_id is not None:
        query = query.where(_e.owner_id == owner_id)
    if before_id is not None:
        query = query.where(_e.id < before_id)
    return [_eval_of(row) for row in connection.execute(query)]


def running_evals(connection: Connection) -> list[str]:
    return list(connection.execute(select(_e.id).where(_e.status == RUNNING)).scalars())


def read_running(connection: Connection, eval_id: str) -> tuple[Eval, list[Item], list[Result]] | None:
    """None: there is none of this id that runs."""
    row = connection.execute(select(evals).where(_e.id == eval_id, _e.status == RUNNING)).one_or_none()
    return None if row is None else (_eval_of(row), _decode_items(row.dataset), read_results(connection, eval_id))


def read_results(connection: Connection, eval_id: str, limit: int | None = None, after: tuple[int, int] = (-1, -1)) -> list[Result]:
    """By item and candidate."""
    item, candidate = after
    is_after = or_(_r.item > item, (_r.item == item) & (_r.candidate > candidate))
    query = select(eval_results).where(_r.eval_id == eval_id, is_after).order_by(_r.item, _r.candidate).limit(limit)
    return [Result(**{name: value for name, value in row._mapping.items() if name != "eval_id"}) for row in connection.execute(query)]


def put_result(connection: Connection, eval_id: str, result: Result) -> None:
    """In the place of what is known of the same answer."""
    connection.execute(delete(eval_results).where(_r.eval_id == eval_id, _r.item == result.item, _r.candidate == result.candidate))
    connection.execute(insert(eval_results).values(eval_id=eval_id, **{name: storable(value) for name, value in msgspec.structs.asdict(result).items()}))


def end_eval(connection: Connection, eval_id: str, changes: Mapping[str, Any]) -> bool:
    """Whether it was still running. Its end is an event."""
    values = {name: _json(value) if name == "summary" else storable(value) for name, value in changes.items()}
    if not connection.execute(update(evals).where(_e.id == eval_id, _e.status == RUNNING).values(values)).rowcount:
        return False
    row = connection.execute(select(*_SHOWN).where(_e.id == eval_id)).one()
    payload = {name: getattr(row, name) for name in ("id", "name", "status", "metric", "dataset_size", "winner_model", "error")}
    event = Event(
        f"eval.{row.status}", row.account_id, f"eval {eval_id}", payload, sub_account_id=row.sub_account_id, key_id=row.key_id, subject=eval_id
    )
    add_events(connection, [event], row.ended_ms)
    return True


def find_alias(connection: Connection, account_id: str, owner_id: str, eval_id: str, now_ms: int) -> Eval | None:
    """The eval that a caller names as a model: its own or the account's. A completed one is marked as used."""
    which = (_e.account_id == account_id, _e.id == eval_id, _e.owner_id.in_((owner_id, "")))
    row = connection.execute(select(*_SHOWN).where(*which)).one_or_none()
    if row is not None and row.used_ms is None and row.status == COMPLETED:
        connection.execute(update(evals).where(_e.id == eval_id).values(used_ms=now_ms))
    return None if row is None else _eval_of(row)


def delete_old_evals(connection: Connection, before_ms: int) -> bool:
    """Those that ended before, unless they answer as a model; some of them: whether there are more."""
    query = select(_e.id).where(_e.ended_ms < before_ms, _e.used_ms.is_(None)).limit(ROWS_A_STEP)
    ids = list(connection.execute(query).scalars())
    connection.execute(delete(eval_results).where(_r.eval_id.in_(ids)))
    connection.execute(delete(evals).where(_e.id.in_(ids)))
    return len(ids) == ROWS_A_STEP


def _eval_of(row: Row) -> Eval:
    values = {name: getattr(row, name) for name in Eval.__struct_fields__}
    return Eval(**values | {"candidates": tuple(msgspec.json.decode(row.candidates)), "summary": msgspec.json.decode(row.summary)})


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
