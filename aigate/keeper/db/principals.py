"""Whom a key stands for: the key joined with its sub-account, its account and their limits. Also a rotated key's first use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec.structs import replace
from sqlalchemy import ColumnElement, Connection, Row, or_, select, update

from aigate.core.allow import narrow
from aigate.core.budget import ACCOUNT, KEY, SUB_ACCOUNT, Owner
from aigate.core.call import Principal
from aigate.core.client_key import ROOT, ClientKey
from aigate.core.rate import REQUESTS, STREAMS, TOKENS, Rate
from aigate.keeper.db.conditions import is_any_of
from aigate.keeper.db.keys import key_of
from aigate.keeper.db.tables import accounts, budgets, keys, sub_accounts

KeyPrincipals = list[tuple[bytes, Principal | None]]  # digest → whom it stands for; None: nobody any more

_RATES = (("rate_limit_rpm", REQUESTS), ("rate_limit_tpm", TOKENS), ("max_streams", STREAMS))
_ARCHIVE = "archive_days"


def find_principals(connection: Connection, digests: Sequence[bytes]) -> tuple[dict[bytes, Principal], bool]:
    """(those of the digests that are keys in force, whether one of them is a rotated key that was never used before)."""
    column = keys.c
    found = _principals(connection, or_(column.digest.in_(digests), column.next_digest.in_(digests)))
    principals: dict[bytes, Principal] = {}
    is_first_use = False
    for key, principal in found:
        for digest in (key.digest, key.next_digest):
            if principal is not None and digest in digests:
                principals[digest] = principal
        is_first_use = is_first_use or (principal is not None and key.next_digest in digests)
    return principals, is_first_use


def principals_of(connection: Connection, column: str, value: str) -> KeyPrincipals:
    """Of the key of an `id`, or of all keys of a `sub_account_id`, as they are now. What a key in force was rotated to is left out: its
    first use must be seen here."""
    told: KeyPrincipals = []
    for key, principal in _principals(connection, keys.c[column] == value):
        told.append((key.digest, principal))
        if key.next_digest is not None and principal is None:
            told.append((key.next_digest, None))
    return told


def principal_of_key(connection: Connection, key_id: str, now_s: float) -> Principal | None:
    """Whom a key stands for now, for work that the gateway does on its behalf; None once it is revoked or has expired."""
    if key_id == ROOT.key_id:
        return ROOT
    principal = next((principal for _, principal in _principals(connection, keys.c.id == key_id)), None)
    if principal is None or (principal.expires_at is not None and principal.expires_at <= now_s):
        return None
    return principal


def take_over(connection: Connection, digests: Sequence[bytes]) -> list[bytes]:
    """Rotated keys that were used: the new digest takes the place of the old one. The old ones, dead now."""
    column = keys.c
    dead = []
    for row in connection.execute(select(column.id, column.digest).where(column.next_digest.in_(digests), column.revoked_ms.is_(None))).all():
        moved = {"digest": column.next_digest, "hint": column.next_hint, "next_digest": None, "next_hint": None}
        connection.execute(update(keys).where(column.id == row.id).values(moved))
        dead.append(row.digest)
    return dead


def _principals(connection: Connection, which: ColumnElement[bool]) -> list[tuple[ClientKey, Principal | None]]:
    join = keys.outerjoin(accounts, accounts.c.id == keys.c.account_id).outerjoin(sub_accounts, sub_accounts.c.id == keys.c.sub_account_id)
    above = [
        table.c[name].label(f"{prefix}_{name}")
        for prefix, table in (("sub", sub_accounts), ("account", accounts))
        for name in (*(name for name, _ in _RATES), _ARCHIVE)
    ]
    sub = [sub_accounts.c[name].label(f"sub_{name}") for name in ("default_tag", "allowed_models", "deleted_ms")]
    rows = connection.execute(select(keys, *above, *sub).select_from(join).where(which)).all()
    limited = _limited(connection, {owner for row in rows for owner in _owners(row)})
    return [(key_of(row), _principal(row, limited)) for row in rows]


def _principal(row: Row, limited: dict[Owner, int]) -> Principal | None:
    key = key_of(row)
    principal = key.principal()
    if principal is None or row.sub_deleted_ms is not None:
        return None
    rates = [
        Rate(kind, owner_id, limit)
        for owner_id, prefix in ((key.id, ""), (key.sub_account_id, "sub_"), (key.account_id, "account_"))
        for name, kind in _RATES
        if owner_id is not None and (limit := getattr(row, prefix + name)) is not None
    ]
    allowed = msgspec.json.decode(row.sub_allowed_models or "[]", type=tuple[str, ...])
    return replace(
        principal,
        default_tag=key.default_tag or row.sub_default_tag,
        allowed_models=narrow(allowed, key.allowed_models),
        budgets=tuple(limited[owner] for owner in _owners(row) if owner in limited),
        rates=tuple(rates),
        archive_days=next((days for prefix in ("", "sub_", "account_") if (days := getattr(row, prefix + _ARCHIVE)) is not None), None),
    )


def _owners(row: Row) -> list[Owner]:
    """In the order that budgets are held in."""
    account_id = row.account_id
    middle = [(SUB_ACCOUNT, account_id, row.sub_account_id)] if row.sub_account_id is not None else []
    return [(ACCOUNT, account_id, account_id), *middle, (KEY, account_id, row.id)]


def _limited(connection: Connection, owners: Iterable[Owner]) -> dict[Owner, int]:
    column = budgets.c
    name = (column.scope, column.account_id, column.owner_id)
    query = select(column.id, column.scope, column.account_id, column.owner_id).where(column.limit_nanousd.is_not(None))
    wanted = sorted(owners)
    found: dict[Owner, int] = {}
    for start in range(0, len(wanted), 500):  # databases limit how many values a statement may bind
        found |= {(row[1], row[2], row[3]): row[0] for row in connection.execute(query.where(is_any_of(name, wanted[start : start + 500])))}
    return found
