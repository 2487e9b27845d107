"""Sub-accounts, keys and what they stand for, on every database; what workers are told, and in which order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from sqlalchemy import update

from aigate.core.account import HARD, Cap, ProviderKey, SubAccount
from aigate.core.budget import KEY, SUB_ACCOUNT, TAG
from aigate.core.call import Principal
from aigate.core.client_key import ClientKey
from aigate.errors import ClientError, GateError
from aigate.keeper.accounts import AccountStore
from aigate.keeper.db.accounts import add_account_if_missing
from aigate.keeper.db.engine import Database
from aigate.keeper.db.tables import accounts
from aigate.keeper.keys import KeyStore
from aigate.keeper.provider_keys import ProviderKeyStore
from aigate.keeper.vault import Vault

ACCOUNT = "acc_default"


class Told:
    """A stand-in for the workers: remembers what they were told. `meanwhile` runs once, when a change is read."""

    def __init__(self) -> None:
        self.change = 0
        self.known: dict[bytes, Principal | None] = {}

    async def push(self, keys: Any, *, is_reset: bool = False) -> bool:
        self.change += 1
        if is_reset:
            self.known.clear()
        self.known.update(keys)
        return True


class Gate:
    def __init__(self, database: Database):
        database.write_now(add_account_if_missing, ACCOUNT, 1)
        self.database = database
        self.workers = Told()
        self.keys = KeyStore(database)
        self.keys.push = self.workers.push
        self.accounts = AccountStore(database, self.workers, self)
        self.announced = 0
        self.is_unheard = False

    async def is_open(self) -> bool:
        return not self.is_unheard

    async def announce_limits(self) -> bool:
        self.announced += 1
        return True

    async def add(self, name: str = "acme", cap: Cap = Cap(None), **fields: Any) -> SubAccount:
        """A sub-account whose id and first key are named after it."""
        new = SubAccount(id=f"sa_{name}", account_id=ACCOUNT, name=name, created_ms=1, **fields)
        await self.accounts.add_sub_account(new, cap, a_key(name, sub_account_id=new.id))
        return new


def a_key(name: str, **fields: Any) -> ClientKey:
    return ClientKey(id=f"key_{name}", account_id=ACCOUNT, name=name, digest=name.encode(), hint="hint", created_ms=1, **fields)


@pytest.fixture
def gate(database: Database) -> Gate:
    return Gate(database)


def test_a_key_stands_for_itself_its_sub_account_and_its_account(gate: Gate) -> None:
    async def test() -> None:
        await gate.add(cap=Cap(500, HARD), default_tag="acme", rate_limit_rpm=60, max_streams=2, allowed_models=("openai/*",))
        await gate.accounts.add_key(a_key("own", sub_account_id="sa_acme", rate_limit_rpm=6, allowed_models=("openai/gpt-*",)), Cap(7))
        await gate.accounts.add_key(a_key("free", default_tag="mine"), Cap(None))
        await gate.database.write(lambda connection: connection.execute(update(accounts).values(rate_limit_tpm=1000)))
        found = await gate.keys.find([b"acme", b"own", b"free", b"nobody"])
        assert found.keys() == {b"acme", b"own", b"free"}
        own = found[b"own"]
        assert (own.sub_account_id, own.default_tag, own.allowed_models) == ("sa_acme", "acme", ("openai/gpt-*",))
        assert [(rate.kind, rate.owner_id, rate.limit) for rate in own.rates] == [
            ("requests", "key_own", 6),
            ("requests", "sa_acme", 60),
            ("streams", "sa_acme", 2),
            ("tokens", ACCOUNT, 1000),
        ]
        standings = await gate.accounts.standings([(SUB_ACCOUNT, ACCOUNT, "sa_acme"), (KEY, ACCOUNT, "key_own"), (TAG, ACCOUNT, "x")])
        acme, key, tag = standings.values()
        assert own.budgets == (acme.budget_id, key.budget_id) and found[b"acme"].budgets == (acme.budget_id,)
        assert found[b"free"].budgets == () and found[b"free"].default_tag == "mine"
        assert (acme.limit_nanousd, acme.mode, key.limit_nanousd, tag.limit_nanousd, tag.budget_id) == (500, HARD, 7, None, 0)

    asyncio.run(test())


def test_more_keys_than_a_statement_may_name(gate: Gate) -> None:
    async def test() -> None:
        for number in range(3):
            await gate.add(f"s{number}", Cap(number))
        names = [f"s{number}".encode() for number in range(3)] + [f"no{number}".encode() for number in range(497)]
        assert len(await gate.keys.find(names)) == 3
        owners = [(SUB_ACCOUNT, ACCOUNT, f"sa_s{number}") for number in range(1200)]
        standings = await gate.accounts.standings(owners)
        assert [standings[owner].limit_nanousd for owner in owners[:4]] == [0, 1, 2, None] and len(standings) == 1200
        assert len(await gate.accounts.names(SUB_ACCOUNT, ACCOUNT, [owner[2] for owner in owners])) == 3

    asyncio.run(test())


def test_a_change_reaches_the_workers_and_a_deletion_ends_every_key(gate: Gate) -> None:
    async def test() -> None:
        await gate.add(default_tag="old")
        changed = await gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {"default_tag": "new"}, None)
        assert changed is not None and changed[1] and gate.announced == 0
        principal = gate.workers.known[b"acme"]
        assert principal is not None and principal.default_tag == "new"
        await gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {}, Cap(5))
        assert gate.announced == 1
        await gate.accounts.rotate_key("key_acme", b"acme-2", "hin2")
        await gate.accounts.delete_sub_account(ACCOUNT, "sa_acme", 9)
        assert gate.workers.known == {b"acme": None, b"acme-2": None}
        assert await gate.keys.find([b"acme", b"acme-2"]) == {}
        assert await gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {"name": "x"}, None) is None
        assert await gate.accounts.delete_sub_account("acc_other", "sa_acme", 9) is None

    asyncio.run(test())


def test_a_changed_key_is_told_of_but_not_what_it_was_rotated_to(gate: Gate) -> None:
    """Workers that knew the new one would not ask for it, and its first use would not end the old one."""

    async def test() -> None:
        await gate.accounts.add_key(a_key("old"), Cap(None))
        await gate.accounts.rotate_key("key_old", b"new", "newh")
        changed = await gate.accounts.change_key(ACCOUNT, "key_old", {"rate_limit_rpm": 7}, Cap(5))
        assert changed is not None and changed[1] and changed[0].rate_limit_rpm == 7 and gate.announced == 1
        (told,) = gate.workers.known.items()
        assert told[0] == b"old" and told[1] is not None and [rate.limit for rate in told[1].rates] == [7] and len(told[1].budgets) == 1
        assert (await gate.keys.find([b"new"]))[b"new"].rates == told[1].rates
        assert await gate.accounts.change_key("acc_other", "key_old", {"name": "x"}, None) is None
        await gate.keys.revoke("key_old", 5)
        assert await gate.accounts.change_key(ACCOUNT, "key_old", {"name": "x"}, Cap(9)) is None
        assert (await gate.accounts.standings([(KEY, ACCOUNT, "key_old")]))[(KEY, ACCOUNT, "key_old")].limit_nanousd == 5

    asyncio.run(test())


def test_changed_limits_of_an_account_make_workers_ask_for_every_key_anew(gate: Gate) -> None:
    async def test() -> None:
        await gate.accounts.add_key(a_key("web"), Cap(None))
        gate.workers.known = dict(await gate.keys.find([b"web"]))
        account, is_in_force = await gate.accounts.change_account(ACCOUNT, {"rate_limit_tpm": 900})
        assert is_in_force and account.rate_limit_tpm == 900 and account == await gate.accounts.get_account(ACCOUNT)
        assert gate.workers.known == {}
        assert [(rate.owner_id, rate.limit) for rate in (await gate.keys.find([b"web"]))[b"web"].rates] == [(ACCOUNT, 900)]

    asyncio.run(test())


def test_a_change_that_was_read_before_a_revocation_cannot_undo_it(gate: Gate) -> None:
    async def test() -> None:
        await gate.add()
        read = gate.database.read

        async def read_and_be_overtaken(query: Any, *args: Any, **options: Any) -> Any:
            found = await read(query, *args, **options)
            if gate.workers.change == 0:
                gate.workers.change = 1  # so that it happens once
                await gate.keys.revoke("key_acme", 5)
                await gate.workers.push([(b"acme", None)])
            return found

        gate.database.read = read_and_be_overtaken  # type: ignore[method-assign]
        gate.workers.change = 0
        await gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {"default_tag": "new"}, None)
        assert gate.workers.known == {b"acme": None}

    asyncio.run(test())


@pytest.mark.parametrize("field", ["name", "external_ref"])
def test_a_name_in_use_makes_nothing(gate: Gate, field: str) -> None:
    async def test() -> None:
        await gate.add("first", external_ref="first")
        with pytest.raises(ClientError) as caught:
            new = SubAccount(**{"id": "sa_2", "account_id": ACCOUNT, "name": "second", "created_ms": 1, field: "first"})
            await gate.accounts.add_sub_account(new, Cap(5), a_key("second"))
        assert (caught.value.status, caught.value.param) == (409, field)
        assert await gate.accounts.get_sub_account(ACCOUNT, "sa_2") is None and await gate.keys.get("key_second") is None

    asyncio.run(test())


def test_the_first_use_of_a_rotated_key_ends_the_old_one(gate: Gate) -> None:
    async def test() -> None:
        await gate.accounts.add_key(a_key("old"), Cap(None))
        assert await gate.accounts.rotate_key("key_nobody", b"x", "x") is None
        await gate.accounts.rotate_key("key_old", b"never", "nevr")
        await gate.accounts.rotate_key("key_old", b"new", "newh")
        assert (await gate.keys.find([b"old", b"never"])).keys() == {b"old"}
        assert (await gate.keys.find([b"old", b"new"])).keys() == {b"old", b"new"}  # asked for together, before it was used
        await asyncio.sleep(0)
        assert gate.workers.known == {b"old": None}
        assert (await gate.keys.find([b"old", b"new"])).keys() == {b"new"}
        row = await gate.keys.get("key_old")
        assert row is not None and (row.digest, row.hint, row.next_digest) == (b"new", "newh", None)

    asyncio.run(test())


def test_stored_provider_keys_go_with_their_sub_account(gate: Gate, tmp_path: Any) -> None:
    async def test() -> None:
        await gate.add()
        store = ProviderKeyStore(gate.database, Vault(tmp_path / "provider.key"))
        row = ProviderKey(
            id="pk_1", account_id=ACCOUNT, sub_account_id="sa_acme", provider="openai", origin="https://o", name="n", hint="h", created_ms=1
        )
        await store.add(row, "sk-secret")
        assert await store.reveal(ACCOUNT, "sa_acme", "pk_1") == (row, "sk-secret")
        assert await store.rotate() == 1
        assert await store.reveal(ACCOUNT, "sa_acme", "pk_1") == (row, "sk-secret")
        await gate.accounts.delete_sub_account(ACCOUNT, "sa_acme", 9)
        assert await store.reveal(ACCOUNT, "sa_acme", "pk_1") is None

    asyncio.run(test())


def test_no_limit_changes_before_every_worker_was_heard(gate: Gate) -> None:
    async def test() -> None:
        await gate.add(cap=Cap(500))
        gate.is_unheard = True
        owner = (SUB_ACCOUNT, ACCOUNT, "sa_acme")
        for change in (
            gate.accounts.set_cap(owner, Cap(5)),
            gate.accounts.add_credit(ACCOUNT, 5),
            gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {"name": "other"}, Cap(5)),
        ):
            with pytest.raises(GateError) as caught:
                await change
            assert (caught.value.status, caught.value.code) == (503, "ledger_unavailable")
        found = await gate.accounts.get_sub_account(ACCOUNT, "sa_acme")
        assert found is not None and found.name == "acme"
        assert (await gate.accounts.standings([owner]))[owner].limit_nanousd == 500
        changed = await gate.accounts.change_sub_account(ACCOUNT, "sa_acme", {"name": "other"}, None)
        assert changed is not None and changed[0].name == "other"

    asyncio.run(test())
