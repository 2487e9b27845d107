"""Who may use the control plane: the same keys as for inference, looked up in the store at each request.

Owns the two dependencies a route states its needs with: `Caller` (any key) and `Admin` (an admin key).
"""

import hmac
import time
from datetime import UTC, datetime
from typing import Annotated

from fastapi import Depends, Request

from aigate.api.services import Wired
from aigate.core.account import Whose, tenant_of
from aigate.core.call import Principal
from aigate.core.client_key import ROOT, expired_key, is_well_formed, key_digest, malformed_key, read_key, unknown_key
from aigate.errors import ClientError


async def caller(request: Request, services: Wired) -> Principal:
    key = read_key(dict(request.scope["headers"]))
    if services.root_key and hmac.compare_digest(key, services.root_key.encode()):
        return ROOT
    if not is_well_formed(key):
        raise malformed_key()
    digest = key_digest(services.key_secret, key)
    principal = (await services.keys.find((digest,))).get(digest)
    if principal is None:
        raise unknown_key()
    if principal.expires_at is not None and principal.expires_at <= time.time():
        raise expired_key(datetime.fromtimestamp(principal.expires_at, UTC).isoformat())
    return principal


Caller = Annotated[Principal, Depends(caller)]


async def admin(principal: Caller) -> Principal:
    if not principal.is_admin:
        raise ClientError(
            "This needs an admin key: the root key, or a key that was made with is_admin.",
            status=403,
            type="permission_error",
            code="scope_exceeded",
        )
    return principal


Admin = Annotated[Principal, Depends(admin)]


def own_rows(caller: Principal) -> Whose:
    """What a caller may see of what was used: an admin's key its account, a sub-account's key that sub-account, any other itself."""
    if caller.is_admin:
        return Whose(caller.account_id)
    if caller.sub_account_id is not None:
        return Whose(caller.account_id, sub_account_id=caller.sub_account_id)
    return Whose(caller.account_id, key_id=caller.key_id)


def owner_id_of(caller: Principal) -> str:
    """Whose an eval or a replay is: an admin's key makes it the account's."""
    return "" if caller.is_admin else tenant_of(caller)[1]


def seen_by(caller: Principal) -> str | None:
    """Whose a caller sees; None: all of its account, for an admin's key."""
    return None if caller.is_admin else tenant_of(caller)[1]
