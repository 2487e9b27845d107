"""The account: the rate limits that all its keys share. (Its money is /v1/balance. The root key is under no limit.)"""

from fastapi import APIRouter, Response

from aigate.api.access import Admin
from aigate.api.boundary import json_reply
from aigate.api.inputs import ArchiveDays, Input, Rate
from aigate.api.replies import Row
from aigate.api.services import Wired
from aigate.core.account import Account

router = APIRouter(prefix="/v1/account", tags=["account"])


class AccountChange(Input):
    rate_limit_rpm: Rate | None = None
    rate_limit_tpm: Rate | None = None
    max_streams: Rate | None = None
    archive_days: ArchiveDays | None = None


@router.get("")
async def get_account(admin: Admin, services: Wired) -> Response:
    return json_reply(_record(await services.accounts.get_account(admin.account_id)))


@router.patch("")
async def change_account(change: AccountChange, admin: Admin, services: Wired) -> Response:
    """What is left out stays as it is; null takes a limit away. Keys and sub-accounts may have stricter limits of their own."""
    account, effective = await services.accounts.change_account(admin.account_id, change.given())
    return json_reply({**_record(account), "effective": effective})


def _record(account: Account) -> Row:
    return {
        "id": account.id,
        "object": "account",
        "name": account.name,
        "rate_limit_rpm": account.rate_limit_rpm,
        "rate_limit_tpm": account.rate_limit_tpm,
        "max_streams": account.max_streams,
        "archive_days": account.archive_days,
        "created_at": account.created_ms // 1000,
    }
