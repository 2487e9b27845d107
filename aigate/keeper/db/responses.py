"""Queries over kept responses. A conversation is a chain of turns, each of which knows the one before it."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, delete, insert, select, update

from aigate.core.account import StoredResponse
from aigate.dialects.openai_responses_background import run_by
from aigate.keeper.db.tables import responses

ROWS_A_STEP = 500
MAX_TURNS = 5_000

_column = responses.c


def put_response(connection: Connection, new: StoredResponse) -> None:
    """In the place of one with the same id."""
    connection.execute(delete(responses).where(*_which(new.account_id, new.owner_id, new.id)))
    connection.execute(insert(responses).values(msgspec.structs.asdict(new)))


def end_response(connection: Connection, account_id: str, owner_id: str, response_id: str, body: bytes) -> None:
    """The end of one that runs in the background; nothing where it has ended already, or is gone."""
    found = get_response(connection, account_id, owner_id, response_id)
    if found is not None and run_by(found.body):
        connection.execute(update(responses).where(*_which(account_id, owner_id, response_id)).values(body=body))


def get_response(connection: Connection, account_id: str, owner_id: str, response_id: str) -> StoredResponse | None:
    row = connection.execute(select(responses).where(*_which(account_id, owner_id, response_id))).one_or_none()
    return None if row is None else StoredResponse(**row._mapping)


def read_turns(connection: Connection, last: StoredResponse, max_bytes: int) -> tuple[list[StoredResponse], str]:
    """(the turns up to `last`, oldest first; id of the one before them that is no longer there, "" where they are whole). What is longer
    than `max_bytes` or MAX_TURNS has no turns."""
    turns = [last]
    seen = {last.id}
    size = len(last.input) + len(last.body)
    while (previous := turns[-1].previous_id) is not None:
        turn = None if previous in seen else get_response(connection, last.account_id, last.owner_id, previous)
        if turn is None:
            return turns[::-1], previous
        size += len(turn.input) + len(turn.body)
        if size > max_bytes or len(turns) >= MAX_TURNS:
            return [], ""
        seen.add(turn.id)
        turns.append(turn)
    return turns[::-1], ""


def delete_response(connection: Connection, account_id: str, owner_id: str, response_id: str) -> bool:
    return connection.execute(delete(responses).where(*_which(account_id, owner_id, response_id))).rowcount > 0


def delete_old_responses(connection: Connection, before_ms: int) -> bool:
    """Some of them; whether there are more."""
    old = select(_column.account_id, _column.owner_id, _column.id).where(_column.created_ms < before_ms).limit(ROWS_A_STEP)
    rows = connection.execute(old).all()
    for row in rows:
        connection.execute(delete(responses).where(*_which(*row)))
    return len(rows) == ROWS_A_STEP


def _which(account_id: str, owner_id: str, response_id: str) -> tuple[ColumnElement[bool], ...]:
    return _column.account_id == account_id, _column.owner_id == owner_id, _column.id == response_id
