"""Queries over sub-accounts. A deleted one stays as a row; its name and reference are free again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select, update

from aigate.core.account import SubAccount
from aigate.errors import ClientError
from aigate.keeper.db.tables import keys, provider_keys, responses, sub_accounts

_column = sub_accounts.c


def add_sub_account(connection: Connection, new: SubAccount) -> None:
    _refuse_duplicates(connection, new)
    connection.execute(insert(sub_accounts).values(_to_row(new)))


def change_sub_account(connection: Connection, account_id: str, sub_account_id: str, changes: Mapping[str, object]) -> SubAccount | None:
    """None where there is no such sub-account, or it is deleted."""
    found = get_sub_account(connection, account_id, sub_account_id)
    if found is None or found.deleted_ms is not None:
        return None
    changed = msgspec.structs.replace(found, **changes)  # type: ignore[arg-type]
    if changed != found:
        _refuse_duplicates(connection, changed)
        connection.execute(update(sub_accounts).where(_column.id == sub_account_id).values(_to_row(changed)))
    return changed


def delete_sub_account(connection: Connection, account_id: str, sub_account_id: str, now_ms: int) -> SubAccount | None:
    """With its keys, its provider keys and its kept responses. The sub-account as it was deleted, now or before."""
    living = (_column.id == sub_account_id, _column.account_id == account_id, _column.deleted_ms.is_(None))
    if connection.execute(update(sub_accounts).where(*living).values(deleted_ms=now_ms)).rowcount:
        its_keys = (keys.c.sub_account_id == sub_account_id, keys.c.revoked_ms.is_(None))
        connection.execute(update(keys).where(*its_keys).values(revoked_ms=now_ms))
        its_provider_keys = (provider_keys.c.sub_account_id == sub_account_id, provider_keys.c.revoked_ms.is_(None))
        connection.execute(update(provider_keys).where(*its_provider_keys).values(revoked_ms=now_ms, sealed=b""))
        connection.execute(delete(responses).where(responses.c.account_id == account_id, responses.c.owner_id == sub_account_id))
    return get_sub_account(connection, account_id, sub_account_id)


def get_sub_account(connection: Connection, account_id: str, sub_account_id: str) -> SubAccount | None:
    query = select(sub_accounts).where(_column.id == sub_account_id, _column.account_id == account_id)
    row = connection.execute(query).one_or_none()
    return None if row is None else _from_row(row)


def require_sub_account(connection: Connection, account_id: str, sub_account_id: str) -> None:
    """ClientError for what is to belong to one that is not there."""
    found = get_sub_account(connection, account_id, sub_account_id)
    if found is None or found.deleted_ms is not None:
        words = f"sub_account_id: there is no sub-account {sub_account_id[:100]!r}."
        raise ClientError(words, status=404, code="not_found", param="sub_account_id")


def list_sub_accounts(connection: Connection, account_id: str, limit: int, before_id: str | None) -> list[SubAccount]:
    """Newest first (ids rise with time), from the one before `before_id` on, without deleted ones."""
    query = select(sub_accounts).where(_column.account_id == account_id, _column.deleted_ms.is_(None))
    if before_id is not None:
        query = query.where(_column.id < before_id)
    return [_from_row(row) for row in connection.execute(query.order_by(_column.id.desc()).limit(limit))]


def names_of(connection: Connection, scope: str, account_id: str, ids: Sequence[str]) -> dict[str, str]:
    """What those of the ids are called that are sub-accounts, or keys, of the account."""
    table = keys if scope == "key" else sub_accounts
    query = select(table.c.id, table.c.name).where(table.c.account_id == account_id)
    found: dict[str, str] = {}
    for start in range(0, len(ids), 500):  # databases limit how many values a statement may bind
        found |= {row[0]: row[1] for row in connection.execute(query.where(table.c.id.in_(ids[start : start + 500])))}
    return found


def _refuse_duplicates(connection: Connection, new: SubAccount) -> None:
    for field in ("name", "external_ref"):
        value = getattr(new, field)
        same = (_column[field] == value, _column.account_id == new.account_id, _column.deleted_ms.is_(None), _column.id != new.id)
        if value is not None and (taken := connection.execute(select(_column.id).where(*same)).scalar()):
            raise ClientError(f"{field}: {value!r} is taken by {taken}; choose another.", status=409, code="already_exists", param=field)


def _to_row(sub_account: SubAccount) -> dict[str, object]:
    return msgspec.structs.asdict(sub_account) | {"allowed_models": msgspec.json.encode(sub_account.allowed_models).decode()}


def _from_row(row: Row) -> SubAccount:
    return SubAccount(**{**row._mapping, "allowed_models": msgspec.json.decode(row.allowed_models, type=tuple[str, ...])})
