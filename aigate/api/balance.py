"""The account's balance: a credit that the operator sets, unlimited unless set. Not a monthly cap: it is spent once.

A sub-account's key is shown the sub-account's cap in its place, never the account's money.
"""

from typing import Literal

from fastapi import APIRouter, Response

from aigate.api.access import Admin, Caller, own_rows
from aigate.api.boundary import json_reply
from aigate.api.inputs import Cents, Input, month_or_now, refuse_null, to_nanousd
from aigate.api.replies import Row, cents, standing_fields, whole_cents
from aigate.api.services import Services, Wired
from aigate.core.account import Cap
from aigate.core.budget import ACCOUNT, SUB_ACCOUNT, Owner
from aigate.core.call import Principal
from aigate.errors import ClientError

router = APIRouter(prefix="/v1/balance", tags=["balance"])


class BalanceChange(Input):
    credit_cents: Cents | None = None
    add_cents: Cents | None = None
    budget_mode: Literal["clamp", "hard"] | None = None


@router.get("")
async def get_balance(caller: Caller, services: Wired) -> Response:
    return json_reply(await _shown(caller, services))


@router.patch("")
async def change_balance(change: BalanceChange, admin: Admin, services: Wired) -> Response:
    """`credit_cents`: all the credit there ever was (null: unlimited). `add_cents`: so much more of it."""
    given = change.given()
    refuse_null(given, "add_cents", "budget_mode")
    if "add_cents" in given and len(given) > 1:
        raise ClientError("add_cents: cannot go with other fields; send it alone.", param="add_cents")
    effective = True
    if "add_cents" in given:
        effective = await services.accounts.add_credit(admin.account_id, to_nanousd(change.add_cents) or 0)
    elif given:
        owner: Owner = (ACCOUNT, admin.account_id, admin.account_id)
        standing = (await services.accounts.standings([owner]))[owner]
        limit = to_nanousd(change.credit_cents) if "credit_cents" in given else standing.limit_nanousd
        effective = await services.accounts.set_cap(owner, Cap(limit, change.budget_mode or standing.mode))
    return json_reply({**await _shown(admin, services), "effective": effective})


async def _shown(caller: Principal, services: Services) -> Row:
    owner: Owner = (ACCOUNT, caller.account_id, caller.account_id)
    if caller.sub_account_id is not None:
        owner = (SUB_ACCOUNT, caller.account_id, caller.sub_account_id)
    standing = (await services.accounts.standings([owner]))[owner]
    month = month_or_now(None)
    recent = await services.usage.by("all", month, own_rows(caller))
    fields = standing_fields(standing)
    return {
        "object": "balance",
        "scope": owner[0],
        "currency": "usd",
        "is_unlimited": standing.limit_nanousd is None,
        "credit_cents": whole_cents(standing.limit_nanousd),
        **fields,
        "balance_cents": fields["remaining_cents"],
        "month": month,
        "recent_spend_cents": cents(recent[0].cost_nanousd) if recent else 0,
    }
