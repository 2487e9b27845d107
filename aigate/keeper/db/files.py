"""Queries over uploaded files. A file that has expired is there for the sweep alone (file_tables.py)."""

from __future__ import annotations

import msgspec
from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, or_, select, update

from aigate.core.file import Listing, StoredFile
from aigate.keeper.db.file_tables import batches, files
from aigate.keeper.db.tables import sub_accounts

IS_UPLOADING = -1  # as a size
ROWS_A_STEP = 200

_column = files.c


def put_file(connection: Connection, new: StoredFile) -> None:
    """In the place of one with the same id."""
    connection.execute(delete(files).where(_column.id == new.id))
    connection.execute(insert(files).values(msgspec.structs.asdict(new)))


def get_file(connection: Connection, account_id: str, owner_id: str, file_id: str, now_ms: int) -> StoredFile | None:
    row = connection.execute(select(files).where(_column.id == file_id, *_whose(account_id, owner_id), *_is_there(now_ms))).one_or_none()
    return None if row is None else StoredFile(**row._mapping)


def list_files(
    connection: Connection, owner: tuple[str, str], page: Listing, purpose: str | None, now_ms: int
) -> list[StoredFile]:
    conditions = [*_whose(*owner), *_is_there(now_ms)]
    if purpose is not None:
        conditions.append(_column.purpose == purpose)
    return [StoredFile(**row._mapping) for row in connection.execute(paged(select(files).where(*conditions), _column.id, page))]


def paged(query: Select, id_column: ColumnElement, page: Listing) -> Select:
    """Ids rise with time, so that the place in a list is an id."""
    if page.after is not None:
        query = query.where(id_column > page.after if page.is_oldest_first else id_column < page.after)
    return query.order_by(id_column.asc() if page.is_oldest_first else id_column.desc()).limit(page.limit)


def bytes_of(connection: Connection, account_id: str, owner_id: str, now_ms: int) -> int:
    """What all files of an owner take, those being uploaded aside."""
    query = select(func.coalesce(func.sum(_column.size_bytes), 0)).where(*_whose(account_id, owner_id), *_is_there(now_ms))
    return int(connection.execute(query).scalar_one())


def expire_file(connection: Connection, account_id: str, owner_id: str, file_id: str, now_ms: int) -> bool:
    """Whether it was there; from now on it is not."""
    query = update(files).where(_column.id == file_id, *_whose(account_id, owner_id), *_is_there(now_ms))
    return connection.execute(query.values(expires_ms=now_ms)).rowcount > 0


def expired_files(connection: Connection, now_ms: int) -> list[str]:
    """Ids of some, those of deleted sub-accounts included. One that a batch still reads is not among them."""
    deleted = select(sub_accounts.c.id).where(sub_accounts.c.deleted_ms.is_not(None))
    is_read = select(batches.c.id).where(batches.c.input_file_id == _column.id, batches.c.ended_ms.is_(None)).exists()
    query = select(_column.id).where(or_(_column.expires_ms <= now_ms, _column.owner_id.in_(deleted)), ~is_read).limit(ROWS_A_STEP)
    return list(connection.execute(query).scalars())


def delete_file(connection: Connection, file_id: str) -> None:
    connection.execute(delete(files).where(_column.id == file_id))


def _whose(account_id: str, owner_id: str) -> tuple[ColumnElement[bool], ...]:
    return _column.account_id == account_id, _column.owner_id == owner_id


def _is_there(now_ms: int) -> tuple[ColumnElement[bool], ...]:
    return _column.size_bytes != IS_UPLOADING, or_(_column.expires_ms.is_(None), _column.expires_ms > now_ms)
