"""Accounts, sub-accounts, keys and limits as the control plane changes them: one transaction each, then the workers are told.

What a worker must know of a change reaches it in two ways: who a key stands for (allow-lists, rates, tags, revocations) by a push,
limits by `announce_limits`. Both say whether every worker has it in force.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from aigate.core.account import Account, Cap, Page, Standing, SubAccount
from aigate.core.budget import ACCOUNT, KEY, SUB_ACCOUNT, Owner
from aigate.core.client_key import ClientKey
from aigate.errors import ClientError, ledger_unavailable
from aigate.keeper.db.accounts import change_account, get_account
from aigate.keeper.db.engine import Database
from aigate.keeper.db.keys import add_keys, change_key, rotate_key
from aigate.keeper.db.limits import find_limited, find_standings, set_limit
from aigate.keeper.db.principals import KeyPrincipals, principals_of
from aigate.keeper.db.sub_accounts import (
    add_sub_account,
    change_sub_account,
    delete_sub_account,
    get_sub_account,
    list_sub_accounts,
    names_of,
    require_sub_account,
)

MAX_CREDIT_NANOUSD = 10**18  # a billion dollars


class Workers(Protocol):
    """`change`: number of the last push."""

    change: int

    async def push(self, keys: KeyPrincipals, *, is_reset: bool = False) -> bool: ...


class Limits(Protocol):
    async def is_open(self) -> bool:
        """Whether limits may be changed yet."""

    async def announce_limits(self) -> bool: ...


class AccountStore:
    def __init__(self, database: Database, workers: Workers, limits: Limits):
        self._database = database
        self._workers = workers
        self._limits = limits

    # --- sub-accounts and keys ------------------------------------------------------------------------------------------------

    async def add_sub_account(self, new: SubAccount, cap: Cap, key: ClientKey) -> bool:
        await self._write(_add_sub_account, new, cap, key)
        return await self._is_in_force(cap)

    async def change_sub_account(
        self, account_id: str, sub_account_id: str, changes: Mapping[str, object], cap: Cap | None
    ) -> tuple[SubAccount, bool] | None:
        if cap is not None:
            await self._require_open()
        changed = await self._write(_change_sub_account, account_id, sub_account_id, changes, cap)
        if changed is None:
            return None
        is_pushed = await self._push_keys_where("sub_account_id", sub_account_id) if changes else True
        return changed, (cap is None or await self._limits.announce_limits()) and is_pushed

    async def delete_sub_account(self, account_id: str, sub_account_id: str, now_ms: int) -> tuple[SubAccount, bool] | None:
        deleted = await self._write(delete_sub_account, account_id, sub_account_id, now_ms)
        return None if deleted is None else (deleted, await self._push_keys_where("sub_account_id", sub_account_id))

    async def get_sub_account(self, account_id: str, sub_account_id: str) -> SubAccount | None:
        return await self._database.read(get_sub_account, account_id, sub_account_id)

    async def list_sub_accounts(self, account_id: str, limit: int, before_id: str | None) -> list[SubAccount]:
        return await self._database.read(list_sub_accounts, account_id, limit, before_id)

    async def names(self, scope: str, account_id: str, ids: Sequence[str]) -> dict[str, str]:
        return await self._database.read(names_of, scope, account_id, ids)

    async def add_key(self, key: ClientKey, cap: Cap) -> bool:
        await self._write(_add_key, key, cap)
        return await self._is_in_force(cap)

    async def change_key(
        self, account_id: str, key_id: str, changes: Mapping[str, object], cap: Cap | None
    ) -> tuple[ClientKey, bool] | None:
        if cap is not None:
            await self._require_open()
        changed = await self._write(_change_key, account_id, key_id, changes, cap)
        if changed is None:
            return None
        is_pushed = await self._push_keys_where("id", key_id) if changes else True
        return changed, (cap is None or await self._limits.announce_limits()) and is_pushed

    async def rotate_key(self, key_id: str, next_digest: bytes, next_hint: str) -> ClientKey | None:
        return await self._write(rotate_key, key_id, next_digest=next_digest, next_hint=next_hint, now_ms=_now_ms())

    async def get_account(self, account_id: str) -> Account:
        return await self._database.read(get_account, account_id)

    async def change_account(self, account_id: str, changes: Mapping[str, object]) -> tuple[Account, bool]:
        """Every key stands for new limits: there may be very many, so the workers forget them and ask again."""
        changed = await self._write(change_account, account_id, changes)
        return changed, await self._workers.push([], is_reset=bool(changes))

    async def _push_keys_where(self, column: str, value: str) -> bool:
        """As they are now: what was read before something else was pushed (a revocation, say) is read again."""
        change = -1
        while change != self._workers.change:
            change = self._workers.change
            principals = await self._database.read(principals_of, column, value)
        return await self._workers.push(principals)

    # --- limits ---------------------------------------------------------------------------------------------------------------

    async def set_cap(self, owner: Owner, cap: Cap) -> bool:
        await self._require_open()
        await self._write(set_limit, owner, cap, _now_ms())
        return await self._limits.announce_limits()

    async def add_credit(self, account_id: str, amount_nanousd: int) -> bool:
        await self._require_open()
        await self._write(_add_credit, account_id, amount_nanousd)
        return await self._limits.announce_limits()

    async def standings(self, owners: Sequence[Owner]) -> dict[Owner, Standing]:
        return await self._database.read(find_standings, owners)

    async def limited(self, account_id: str, scope: str, page: Page) -> list[Standing]:
        return await self._database.read(find_limited, account_id, scope, page)

    async def _is_in_force(self, cap: Cap) -> bool:
        """Of something new. Workers ask for a key when they first see it, so they need to hear of its limit only."""
        return await (self._workers.push([]) if cap.limit_nanousd is None else self._limits.announce_limits())

    async def _require_open(self) -> None:
        if not await self._limits.is_open():
            raise ledger_unavailable("Some worker has not yet said what it holds, so no limit can be changed. Nothing was changed; retry shortly.")

    async def _write(self, query: Callable[..., Any], *args: object, **kwargs: object) -> Any:
        try:
            return await self._database.write(query, *args, **kwargs)
        except IntegrityError as error:  # another keeper was quicker with the same name
            raise ClientError("Something of the same name was made at this moment.", status=409, code="already_exists") from error


def _add_sub_account(connection: Connection, new: SubAccount, cap: Cap, key: ClientKey) -> None:
    add_sub_account(connection, new)
    add_keys(connection, [key])
    _set_first_limit(connection, (SUB_ACCOUNT, new.account_id, new.id), cap, new.created_ms)


def _change_sub_account(
    connection: Connection, account_id: str, sub_account_id: str, changes: Mapping[str, object], cap: Cap | None
) -> SubAccount | None:
    changed = change_sub_account(connection, account_id, sub_account_id, changes)
    if changed is not None and cap is not None:
        set_limit(connection, (SUB_ACCOUNT, account_id, sub_account_id), cap, _now_ms())
    return changed


def _change_key(
    connection: Connection, account_id: str, key_id: str, changes: Mapping[str, object], cap: Cap | None
) -> ClientKey | None:
    changed = change_key(connection, account_id, key_id, changes)
    if changed is not None and cap is not None:
        set_limit(connection, (KEY, account_id, key_id), cap, _now_ms())
    return changed


def _add_key(connection: Connection, key: ClientKey, cap: Cap) -> None:
    if key.sub_account_id is not None:
        require_sub_account(connection, key.account_id, key.sub_account_id)
    add_keys(connection, [key])
    _set_first_limit(connection, (KEY, key.account_id, key.id), cap, key.created_ms)


def _set_first_limit(connection: Connection, owner: Owner, cap: Cap, now_ms: int) -> None:
    if cap != Cap(None):
        set_limit(connection, owner, cap, now_ms, is_new_owner=True)


def _add_credit(connection: Connection, account_id: str, amount_nanousd: int) -> None:
    owner = (ACCOUNT, account_id, account_id)
    standing = find_standings(connection, [owner])[owner]
    credit = (standing.limit_nanousd or 0) + amount_nanousd
    if credit > MAX_CREDIT_NANOUSD:
        raise ClientError("add_cents: the credit would be more than a billion dollars.", param="add_cents")
    set_limit(connection, owner, Cap(credit, standing.mode), _now_ms())


def _now_ms() -> int:
    return int(time.time() * 1000)
