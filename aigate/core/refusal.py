"""Whose money a piece of work is, and the 402 for one that does not fit. Pure; shared by the worker (calls) and the keeper (durable work)."""

from __future__ import annotations

from typing import Protocol

from aigate.core.budget import ACCOUNT, KEY, SUB_ACCOUNT, TAG, Owner
from aigate.core.call import Principal
from aigate.core.price import NANOUSD_PER_CENT
from aigate.errors import ClientError


class Refused(Protocol):
    """The fields of messages.Refused that a caller is told. Amounts are nano-dollars."""

    scope: str
    limit: int
    spent: int
    reserved: int
    leased: int
    resets_at: float | None  # unix seconds
    retry_after_s: float | None


def owners_of(principal: Principal, tag: str | None) -> list[Owner]:
    """Whose money an attempt is, in the order of its budgets."""
    account_id = principal.account_id
    owners: list[Owner] = [(ACCOUNT, account_id, account_id)]
    if principal.sub_account_id is not None:
        owners.append((SUB_ACCOUNT, account_id, principal.sub_account_id))
    owners.append((KEY, account_id, principal.key_id))
    if tag is not None:
        owners.append((TAG, account_id, tag))
    return owners


def refusal(refused: Refused, *, what: str = "call") -> ClientError:
    """402: whose limit it is, what is spent, and when it ends."""
    is_balance = refused.scope == ACCOUNT and refused.resets_at is None
    limit, spent, reserved, held = (_dollars(n) for n in (refused.limit, refused.spent, refused.reserved, refused.leased))
    name = "Balance" if is_balance else "Monthly spend cap"
    in_use = f", reserved ${reserved}" if refused.reserved else ""
    in_use += f", held by running calls ${held}" if refused.leased else ""
    return ClientError(
        f"{name} of ${limit} of this {refused.scope.replace('_', '-')} reached (spent ${spent}{in_use}); this {what} could cost more than is left",
        status=402,
        type="insufficient_credits" if is_balance else "budget_exceeded",
        code="insufficient_credits" if is_balance else "budget_exceeded",
        origin="budget",
        retry_after_s=refused.retry_after_s,
        scope=refused.scope,
        limit_cents=_cents(refused.limit),
        spent_cents=_cents(refused.spent),
        reserved_cents=_cents(refused.reserved),
        held_cents=_cents(refused.leased),
        resets_at=None if refused.resets_at is None else int(refused.resets_at),
    )


def _cents(nanousd: int) -> float:
    return nanousd // NANOUSD_PER_CENT if nanousd % NANOUSD_PER_CENT == 0 else nanousd / NANOUSD_PER_CENT


def _dollars(nanousd: int) -> str:
    """Two decimals, more where a cent says too little."""
    return f"{nanousd / 10**9:.2f}" if nanousd % NANOUSD_PER_CENT == 0 else f"{nanousd / 10**9:.6f}".rstrip("0")
