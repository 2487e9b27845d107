"""Queries over replays and shadows. Both are seen by their owner alone; everything here is told whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from aigate.core.replay import RUNNING, Replay, Shadow
from aigate.journal.records import CallEnd
from aigate.keeper.db.ledger_rows import storable
from aigate.keeper.db.replay_tables import replays, shadows
from aigate.keeper.db.tables import calls, sub_accounts

_r, _s, _c = replays.c, shadows.c, calls.c
ROWS_A_STEP = 200


def find_source(connection: Connection, account_id: str, call_id: str) -> CallEnd | None:
    """The call, unless its sub-account was deleted: what that kept is nobody's any more."""
    join = calls.outerjoin(sub_accounts, sub_accounts.c.id == _c.sub_account_id)
    query = select(*calls.columns).select_from(join).where(_c.call_id == call_id, _c.account_id == account_id, sub_accounts.c.deleted_ms.is_(None))
    row = connection.execute(query).one_or_none()
    return None if row is None else CallEnd(*row)


def add_replays(connection: Connection, new: Sequence[Replay]) -> list[str]:
    """Ids of those that were added: of one shadow and source there is one."""
    added = []
    for each in new:
        values = {**msgspec.structs.asdict(each), "diff": _json(each.diff)}
        kind = sqlite if connection.dialect.name == "sqlite" else postgresql
        statement = kind.insert(replays).values(values).on_conflict_do_nothing().returning(_r.id)
        if connection.execute(statement).scalar() is not None:  # a driver need not count such rows
            added.append(each.id)
    return added


def get_replay(connection: Connection, account_id: str, owner_id: str | None, replay_id: str) -> Replay | None:
    """`owner_id` None: of anybody in the account."""
    which = [_r.account_id == account_id, _r.id == replay_id]
    if owner_id is not None:
        which.append(_r.owner_id == owner_id)
    row = connection.execute(select(replays).where(*which)).one_or_none()
    return None if row is None else _replay_of(row)


def list_replays(connection: Connection, account_id: str, owner_id: str | None, limit: int, before_id: str | None, shadow_id: str | None) -> list[Replay]:
    """Newest first."""
    query = select(replays).where(_r.account_id == account_id).order_by(_r.id.desc()).limit(limit)
    if owner_id is not None:
        query = query.where(_r.owner_id == owner_id)
    if before_id is not None:
        query = query.where(_r.id < before_id)
    if shadow_id is not None:
        query = query.where(_r.shadow_id == shadow_id)
    return [_replay_of(row) for row in connection.execute(query)]


def running_replays(connection: Connection) -> list[Replay]:
    return [_replay_of(row) for row in connection.execute(select(replays).where(_r.status == RUNNING))]


def end_replay(connection: Connection, replay_id: str, changes: Mapping[str, Any]) -> None:
    """Nothing happens where it has ended before."""
    values = {name: _json(value) if name == "diff" else storable(value) for name, value in changes.items()}
    connection.execute(update(replays).where(_r.id == replay_id, _r.status == RUNNING).values(values))


def delete_old_replays(connection: Connection, before_ms: int) -> bool:
    """Some of those that ended before; whether there are more."""
    ids = list(connection.execute(select(_r.id).where(_r.ended_ms < before_ms).limit(ROWS_A_STEP)).scalars())
    connection.execute(delete(replays).where(_r.id.in_(ids)))
    return len(ids) == ROWS_A_STEP


# --- shadows ------------------------------------------------------------------------------------------------------------------


def add_shadow(connection: Connection, new: Shadow) -> None:
    connection.execute(insert(shadows).values(msgspec.structs.asdict(new)))


def list_shadows(connection: Connection, account_id: str, owner_id: str | None, limit: int) -> list[Shadow]:
    """Newest first."""
    query = select(shadows).where(_s.account_id == account_id).order_by(_s.id.desc()).limit(limit)
    if owner_id is not None:
        query = query.where(_s.owner_id == owner_id)
    return [Shadow(**row._mapping) for row in connection.execute(query)]


def active_shadows(connection: Connection, now_ms: int) -> list[Shadow]:
    query = select(shadows).where(_s.stopped_ms.is_(None), _s.until_ms > now_ms, _s.mirrored < _s.max_calls)
    return [Shadow(**row._mapping) for row in connection.execute(query)]


def stop_shadow(connection: Connection, account_id: str, owner_id: str | None, shadow_id: str, now_ms: int) -> Shadow | None:
    """Stopping it again changes nothing."""
    which = [_s.account_id == account_id, _s.id == shadow_id]
    if owner_id is not None:
        which.append(_s.owner_id == owner_id)
    connection.execute(update(shadows).where(*which, _s.stopped_ms.is_(None)).values(stopped_ms=now_ms))
    row = connection.execute(select(shadows).where(*which)).one_or_none()
    return None if row is None else Shadow(**row._mapping)


def count_mirrored(connection: Connection, shadow_id: str, mirrored: int, dropped: int) -> None:
    connection.execute(update(shadows).where(_s.id == shadow_id).values(mirrored=_s.mirrored + mirrored, dropped=_s.dropped + dropped))


def _replay_of(row: Row) -> Replay:
    return Replay(**{**row._mapping, "diff": msgspec.json.decode(row.diff)})


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
