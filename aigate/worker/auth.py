"""Authenticate: a request's headers → the Principal it acts for, from memory.

Owns the worker's bounded cache of key digests. Keys come into it by look-ups and pushes of the keeper (worker/link.py) and
leave it by pushes; nothing here reads a database, and a key itself is never kept, logged or shown.
"""

from __future__ import annotations

from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice

from aigate.core.call import Principal
from aigate.core.client_key import ROOT, expired_key, is_well_formed, key_digest, malformed_key, read_key, unknown_key
from aigate.errors import GatewayError
from aigate.worker.exchange import Exchange
from aigate.worker.link import KeeperLink, Keys

UNKNOWN_KEPT_S = 5.0  # how long the keeper's "unknown" is believed; a push ends it sooner
UNKNOWN_CAPACITY = 10_000


class KeyRing:
    """Who calls, by digest of the key. Takes over `link.on_keys`."""

    __slots__ = ("_secret", "_link", "_capacity", "_root_digest", "_digests", "_principals", "_unknown_until")

    def __init__(self, secret: bytes, root_key: str, link: KeeperLink, capacity: int = 100_000):
        self._secret = secret
        self._link = link
        self._capacity = capacity
        self._root_digest = key_digest(secret, root_key.encode()) if root_key else None
        self._digests: dict[bytes, bytes] = {}  # name of a key that was known when it came → its digest; whether it still is, is not said here
        self._principals: dict[bytes, Principal] = {}
        self._unknown_until: dict[bytes, float] = {}
        self._forget_all()
        link.on_keys = self.apply

    def find(self, exchange: Exchange) -> Principal | None:
        """The fast path: a known key with nothing left to check, else None (then ask `authenticate`)."""
        digest = exchange.head.key_digest
        if digest is None:
            digest = exchange.head.key_digest = self._known_digest(exchange.headers)
        principal = self._principals.get(digest)
        if principal is None or principal.expires_at is not None or self._link.is_stale:
            return None
        return principal

    def _known_digest(self, headers: dict[bytes, bytes]) -> bytes | None:
        """The digest of the key in `headers`, where that key has been known."""
        value = headers.get(b"authorization")
        if value is None:
            key = headers.get(b"x-api-key") or headers.get(b"x-goog-api-key")
            if key is None:
                return None
        elif value.startswith(b"Bearer "):
            key = value[7:]
        else:
            return None
        # Four times as fast as the digest itself, and as good a name for a key: nobody can make it without the secret.
        name = sha256(self._secret + key).digest()
        digest = self._digests.get(name)
        if digest is None:
            digest = key_digest(self._secret, key)
            if digest not in self._principals:
                return None  # a flood of wrong keys leaves nothing behind
            if len(self._digests) >= self._capacity:
                self._digests.clear()
            self._digests[name] = digest
        return digest

    async def authenticate(self, headers: dict[bytes, bytes], now_s: float) -> Principal:
        """The whole of it: look-up of a key not seen yet, expiry, and no trust in old knowledge. Raises 401 or 503."""
        key = read_key(headers)
        digest = key_digest(self._secret, key)
        if digest == self._root_digest:
            return ROOT
        if not is_well_formed(key):
            raise malformed_key()
        if self._link.is_stale:
            raise GatewayError(
                "The keys cannot be checked: the keeper has not been heard of for too long.",
                status=503,
                code="capacity_exceeded",
                retryable=True,
                retry_after_s=1,
            )
        principal = self._principals.get(digest) or await self._look_up(digest, now_s)
        if principal.expires_at is not None and principal.expires_at <= now_s:
            raise expired_key(datetime.fromtimestamp(principal.expires_at, UTC).isoformat())
        return principal

    def apply(self, keys: Keys, is_reset: bool) -> None:
        """What the keeper says of some keys is in force when this returns."""
        if is_reset:
            self._forget_all()
        for digest, principal in keys:
            if principal is None:
                self._principals.pop(digest, None)
                continue
            self._unknown_until.pop(digest, None)
            if len(self._principals) >= self._capacity:
                self._evict()
            self._principals[digest] = principal

    async def _look_up(self, digest: bytes, now_s: float) -> Principal:
        if self._unknown_until.get(digest, 0.0) > now_s:
            raise unknown_key()
        await self._link.look_up(digest)
        # Read back from the cache rather than from the answer: a push may have overtaken it.
        principal = self._principals.get(digest)
        if principal is None:
            if len(self._unknown_until) >= UNKNOWN_CAPACITY:
                self._unknown_until.clear()
            self._unknown_until[digest] = now_s + UNKNOWN_KEPT_S
            raise unknown_key()
        return principal

    def _evict(self) -> None:
        """Drops the oldest sixteenth: one by one, each drop would walk over the gaps left by the drops before it."""
        for digest in list(islice(self._principals, max(1, self._capacity // 16))):
            del self._principals[digest]
        self._keep_root()

    def _forget_all(self) -> None:
        self._principals.clear()
        self._unknown_until.clear()
        self._keep_root()

    def _keep_root(self) -> None:
        if self._root_digest is not None:
            self._principals[self._root_digest] = ROOT
