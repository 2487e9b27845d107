"""Webhooks without their I/O: which events there are and who asked for them, what a body looks like, how it is signed, when to try again.

A signature is the HMAC-SHA-256 of "<unix seconds>.<body>" in hex, in two spellings: one header as the official SDKs check it, two as the
documentation has them. While two secrets are valid, the first header carries both signatures, the older secret's last, as the SDKs look at
the last one and their users need time to learn the new one.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import msgspec

EVENT_TYPES = (
    "job.completed", "job.failed", "batch.completed", "batch.failed", "batch.expired", "batch.cancelled", "usage.threshold", "balance.low",
    "key.rotated", "sub_account.budget.exhausted", "budget.overrun",
)  # fmt: skip

SECRET_PREFIX = "whsec_"
MAX_TRIES_KEPT = 20

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


class Try(msgspec.Struct, frozen=True, omit_defaults=True):
    """One attempt of a delivery, as its log shows it."""

    at_ms: int
    took_ms: int
    status: int = 0  # 0 = no answer
    error: str = ""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status <= 299


def wants(patterns: Sequence[str], event_type: str) -> bool:
    """`patterns`: types, or `job.*` for all of a kind; none = all."""
    return not patterns or any(pattern == event_type or (pattern.endswith(".*") and event_type.startswith(pattern[:-1])) for pattern in patterns)


def is_pattern(text: str) -> bool:
    return text in EVENT_TYPES or (text.endswith(".*") and any(wants((text,), event_type) for event_type in EVENT_TYPES))


def envelope(event_id: str, event_type: str, created_ms: int, payload: str) -> str:
    """What a registered endpoint gets. `payload` is JSON already."""
    head = msgspec.json.encode({"id": event_id, "type": event_type, "created": created_ms // 1000}).decode()
    return f'{head[:-1]},"data":{payload}}}'


def signature_headers(secrets: Sequence[str], body: bytes, now_s: int) -> dict[str, str]:
    """`secrets`: the valid ones, newest first."""
    signatures = [hmac.new(secret.encode(), b"%d.%s" % (now_s, body), hashlib.sha256).hexdigest() for secret in secrets]
    return {
        "x-gateway-signature": ",".join([f"t={now_s}", *(f"v1={signature}" for signature in signatures)]),
        "aig-signature": signatures[-1],
        "aig-timestamp": str(now_s),
    }


def next_try_ms(delays_s: Sequence[float], tries: int, now_ms: int, chance: float) -> int | None:
    """When to try again after so many; None: never. `chance` in [0, 1) takes up to a tenth off, so that what failed together does not return together."""
    if tries > len(delays_s):
        return None
    return now_ms + int(delays_s[tries - 1] * 1000 * (1 - chance / 10))


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A registered receiver. It hears of what is its owner's: of a key, of a sub-account, else of the whole account."""

    id: str  # we_…
    account_id: str
    sub_account_id: str | None = None
    key_id: str | None = None
    url: str
    events: tuple[str, ...] = ()  # see `wants`
    description: str = ""
    created_ms: int
    disabled_ms: int | None = None

    def hears_of(self, event_type: str, sub_account_id: str | None, key_id: str | None) -> bool:
        is_theirs = self.sub_account_id in (None, sub_account_id) and self.key_id in (None, key_id)
        return is_theirs and self.disabled_ms is None and wants(self.events, event_type)


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One event on its way to one receiver, or there. Its id is the same at every try."""

    number: int
    id: str  # dlv_…
    event_id: str
    event_type: str
    account_id: str
    sub_account_id: str | None
    key_id: str | None
    endpoint_id: str | None  # None: to the URL of one request, signed with the key's secret
    url: str
    host: str
    subject: str
    body: str
    status: str
    attempts: int
    round: int
    tries: tuple[Try, ...]
    due_ms: int | None
    created_ms: int
    ended_ms: int | None

    @property
    def secret_owner_id(self) -> str:
        return self.endpoint_id or self.key_id or self.account_id
