"""Links to a job's files that work without a key: how they are signed, checked and written. Pure."""

from __future__ import annotations

import base64
import hmac
from urllib.parse import quote

import msgspec

MIN_LIFE_S, MAX_LIFE_S, RECORD_LIFE_S = 60, 604_800, 86_400  # of a link that was asked for; of those in a job's record


class LinkKey(msgspec.Struct, frozen=True):
    id: str  # in every link, as `k`
    secret: bytes


def file_path(job_id: str, filename: str) -> str:
    return f"/v1/files/jobs/{job_id}/{quote(filename)}"


def signed_path(key: LinkKey, job_id: str, filename: str, expires_s: int) -> str:
    return f"{file_path(job_id, filename)}/public?token={_token(key, job_id, filename, expires_s)}&exp={expires_s}&k={key.id}"


def is_signed(key: LinkKey, job_id: str, filename: str, expires_s: int, token: str) -> bool:
    """Whether the token is this key's for exactly that; whether it has expired is the caller's to ask."""
    return hmac.compare_digest(_token(key, job_id, filename, expires_s).encode(), token.encode("utf-8", "replace"))


def _token(key: LinkKey, job_id: str, filename: str, expires_s: int) -> str:
    signed = "\n".join(("aigate file link 1", job_id, filename, str(expires_s), key.id))
    return base64.urlsafe_b64encode(hmac.digest(key.secret, signed.encode(), "sha256")).rstrip(b"=").decode()
