"""A client's key: its shape, its digest, and where a request carries it. Pure; shared by the worker and the keeper.

A key is `sk-aig-` and 43 characters of URL-safe base64 (256 random bits). Only its HMAC-SHA-256 digest is ever stored or
looked up, so the key itself must not reach a message, a log or a table.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Mapping

import msgspec

from aigate.core.call import Principal
from aigate.errors import ClientError, unauthorized

ROOT = Principal(key_id="key_root", is_admin=True)  # the operator's own key: in the configuration, not in the database

KEY_RANDOM_BYTES = 32
_PREFIX = "sk-aig-"
_SHAPE = re.compile(rb"sk-aig-[A-Za-z0-9_-]{43}\Z")

_WHERE = "Send it as 'Authorization: Bearer sk-aig-…' or 'x-api-key: sk-aig-…'."


class ClientKey(msgspec.Struct, frozen=True, kw_only=True):
    """A key as it is stored: everything but the key. Times are unix milliseconds."""

    id: str  # key_…
    account_id: str
    sub_account_id: str | None = None
    name: str
    digest: bytes
    hint: str  # last 4 characters of the key, for people to tell keys apart
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None
    allowed_models: tuple[str, ...] = ()
    default_tag: str | None = None
    is_admin: bool = False
    rate_limit_rpm: int | None = None  # None = no limit of its own; so are the next two
    rate_limit_tpm: int | None = None
    max_streams: int | None = None
    archive_days: int | None = None  # how long bodies of its calls are kept, 0 = not at all; None = as its sub-account or account has it
    next_digest: bytes | None = None  # of the key that it was rotated to; takes over when it is first used
    next_hint: str | None = None

    def principal(self) -> Principal | None:
        """Whom the key stands for; None once it is revoked. Whether it has expired is asked at each call."""
        if self.revoked_ms is not None:
            return None
        return Principal(
            key_id=self.id,
            account_id=self.account_id,
            sub_account_id=self.sub_account_id,
            default_tag=self.default_tag,
            is_admin=self.is_admin,
            allowed_models=self.allowed_models,
            expires_at=None if self.expires_ms is None else self.expires_ms / 1000,
        )


def make_key(random: bytes) -> str:
    """The key that `random` (32 bytes) stands for."""
    return _PREFIX + base64.urlsafe_b64encode(random).rstrip(b"=").decode()


def key_digest(secret: bytes, key: bytes) -> bytes:
    return hmac.digest(secret, key, "sha256")


def is_well_formed(key: bytes) -> bool:
    return _SHAPE.match(key) is not None


def read_key(headers: Mapping[bytes, bytes]) -> bytes:
    """The key a request carries (header names in lower case). The Authorization header wins where both are sent."""
    authorization = headers.get(b"authorization")
    if authorization is not None:
        scheme, _, key = authorization.partition(b" ")
        if scheme.lower() == b"bearer" and (key := key.strip()):
            return key
    key = headers.get(b"x-api-key", b"").strip() or headers.get(b"x-goog-api-key", b"").strip()
    if key:
        return key
    if authorization is None:
        raise unauthorized(f"No API key was sent. {_WHERE}")
    raise unauthorized(f"The Authorization header holds no bearer key. {_WHERE}")


def malformed_key() -> ClientError:
    return unauthorized(f"The API key is malformed: a key is 'sk-aig-' and 43 more characters. {_WHERE}")


def unknown_key() -> ClientError:
    return unauthorized("The API key is unknown or was revoked. Make a new one with 'aigate keys create'.")


def expired_key(expired_at: str) -> ClientError:
    return unauthorized(f"The API key expired at {expired_at}. Make a new one with 'aigate keys create'.")
