"""Queries over accounts: who pays, and the rate limits of all their keys together."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, insert, select, update

from aigate.core.account import Account
from aigate.keeper.db.tables import accounts


def add_account_if_missing(connection: Connection, account_id: str, now_ms: int) -> None:
    if connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).one_or_none() is None:
        connection.execute(insert(accounts).values(id=account_id, name="default", created_ms=now_ms))


def get_account(connection: Connection, account_id: str) -> Account:
    row = connection.execute(select(accounts).where(accounts.c.id == account_id)).one()
    return Account(**{name: row._mapping[name] for name in Account.__struct_fields__})


def change_account(connection: Connection, account_id: str, changes: Mapping[str, object]) -> Account:
    if changes:
        connection.execute(update(accounts).where(accounts.c.id == account_id).values(**changes))
    return get_account(connection, account_id)
