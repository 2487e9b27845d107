"""Nouns of the control plane's money: accounts, sub-accounts, where a budget stands, stored provider keys. Values only; no behaviour, no I/O.

Amounts are integer nano-dollars, times unix milliseconds. Whose a budget is (`Owner`) is core/budget.py's word.
"""

from __future__ import annotations

import msgspec

from aigate.core.budget import Owner
from aigate.core.call import Principal

CLAMP, HARD = "clamp", "hard"  # at a limit: lower the call's maximum to what fits, or refuse


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """Who pays. Its rate limits count all its keys together."""

    id: str  # acc_…
    name: str
    created_ms: int
    rate_limit_rpm: int | None = None  # None = no limit; so are the next two
    rate_limit_tpm: int | None = None
    max_streams: int | None = None
    archive_days: int | None = None  # how long bodies of calls are kept, 0 = not at all; None = as the next above it has it


class SubAccount(msgspec.Struct, frozen=True, kw_only=True):
    """A customer of an account. Its cap is the limit of its budget; a deleted one stays, as its ledger speaks of it."""

    id: str  # sa_…
    account_id: str
    name: str
    external_ref: str | None = None
    default_tag: str | None = None
    allowed_models: tuple[str, ...] = ()  # globs over slugs; () = all
    rate_limit_rpm: int | None = None  # None = no limit of its own; so are the next two
    rate_limit_tpm: int | None = None
    max_streams: int | None = None
    archive_days: int | None = None  # how long bodies of calls are kept, 0 = not at all; None = as the next above it has it
    created_ms: int
    deleted_ms: int | None = None


class Cap(msgspec.Struct, frozen=True):
    """The limit to set on an owner's budget; None removes it."""

    limit_nanousd: int | None
    mode: str = CLAMP


class Standing(msgspec.Struct, frozen=True, kw_only=True):
    """One owner's budget in its current window. An owner without a budget has one without a limit and with nothing spent."""

    owner: Owner
    budget_id: int = 0  # 0 = there is none yet
    limit_nanousd: int | None = None
    mode: str = CLAMP
    window: str = ""  # YYYY-MM, or "all"
    spent: int = 0
    reserved: int = 0
    leased: int = 0
    created_ms: int = 0


class Whose(msgspec.Struct, frozen=True):
    """Whose rows are asked for: an account's, or of these only a sub-account's or a key's."""

    account_id: str
    sub_account_id: str | None = None
    key_id: str | None = None


Tenant = tuple[str, str]  # account, and in it a sub-account or, without, a key: whose is what is kept here


def tenant_of(principal: Principal) -> Tenant:
    """Nobody else reads what a caller keeps here, an admin's key neither."""
    return principal.account_id, principal.sub_account_id or principal.key_id


class StoredResponse(msgspec.Struct, frozen=True):
    """A finished response of the Responses format, and what it answers. Both are JSON."""

    account_id: str
    owner_id: str
    id: str  # resp_…
    previous_id: str | None
    created_ms: int
    input: bytes  # the caller's, without what came before
    body: bytes


class Page(msgspec.Struct, frozen=True):
    """So many of a list in the order of their labels, from the one behind `after` on."""

    limit: int
    after: str | None = None


class ProviderKey(msgspec.Struct, frozen=True, kw_only=True):
    """A caller's own key for a provider, as it is stored: everything but the key in the clear."""

    id: str  # pk_…
    account_id: str
    sub_account_id: str | None = None  # None = the whole account's
    provider: str
    origin: str  # scheme, host and port: the only place that it is ever sent to
    name: str
    hint: str  # last 4 characters
    created_ms: int
    revoked_ms: int | None = None
