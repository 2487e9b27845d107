"""Secrets that must be read again, sealed for the database: AES-256-GCM, each under a key of its own, which the key file seals in turn.

Owns the key file (data directory, 0600): one 32-byte key a line in base64, newest first. New secrets go under the first, old ones are
opened with whichever sealed them, so rotation never has a moment in which something cannot be read. Where the operator gives the
keys as a setting, there is no file and the order is theirs. What is sealed is bound to its `context`: it opens nowhere else.

    sealed = version (1 byte) | id of the outer key (8) | nonce (12), inner key sealed (48) | nonce (12), secret sealed
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from pathlib import Path

from aigate.errors import GatewayError

KEY_BYTES, NONCE_BYTES, TAG_BYTES, ID_BYTES = 32, 12, 16, 8
_VERSION = b"\x01"
_INNER_AT = 1 + ID_BYTES
_SECRET_AT = _INNER_AT + NONCE_BYTES + KEY_BYTES + TAG_BYTES


class VaultError(GatewayError):
    """The keys are missing, unreadable or not the ones that sealed it. The message names the file, never a key."""

    status = 503
    code = "vault_unavailable"


class Vault:
    """`given`: keys as a setting, base64, comma-separated, newest first; "" = the file, made when it is first needed."""

    def __init__(self, path: Path, given: str = ""):
        self._path = path
        self._given = given

    @property
    def has_file(self) -> bool:
        return not self._given

    def seal(self, secret: bytes, context: bytes) -> bytes:
        inner = os.urandom(KEY_BYTES)
        return self._wrap(inner, context) + _encrypt(inner, secret, context)

    def open(self, sealed: bytes, context: bytes) -> bytes:
        return _decrypt(self._unwrap(sealed, context), sealed[_SECRET_AT:], context)

    def rewrap(self, sealed: bytes, context: bytes) -> bytes:
        """The same secret under the newest outer key."""
        return self._wrap(self._unwrap(sealed, context), context) + sealed[_SECRET_AT:]

    def add_key(self) -> None:
        """A new outer key before the others. The old ones stay: a restored backup may need them."""
        self._write([os.urandom(KEY_BYTES), *(self._keys() if self._path.exists() else ())])

    def _wrap(self, inner: bytes, context: bytes) -> bytes:
        key = self._keys()[0]
        return _VERSION + _id(key) + _encrypt(key, inner, context)

    def _unwrap(self, sealed: bytes, context: bytes) -> bytes:
        for key in self._keys():
            if sealed[:1] == _VERSION and sealed[1:_INNER_AT] == _id(key):
                return _decrypt(key, sealed[_INNER_AT:_SECRET_AT], context)
        raise VaultError(f"{self._source}: the key that sealed this is not there; put it back on a line of its own.")

    @property
    def _source(self) -> str:
        return "auth.provider_key" if self._given else self._path.name

    def _keys(self) -> list[bytes]:
        if not self._given and not self._path.exists():
            self.add_key()
        try:
            texts = self._given.split(",") if self._given else self._path.read_text("ascii").split()
            keys = [base64.b64decode(text.strip(), validate=True) for text in texts]
        except (OSError, UnicodeDecodeError, binascii.Error) as error:
            raise VaultError(f"{self._source}: cannot be read as keys in base64 ({type(error).__name__}).") from error
        if not keys or any(len(key) != KEY_BYTES for key in keys):
            raise VaultError(f"{self._source}: each key must be {KEY_BYTES} bytes in base64 (openssl rand -base64 32).")
        return keys

    def _write(self, keys: list[bytes]) -> None:
        """Whole and on disk, or not at all, before anything is sealed with it."""
        draft = self._path.with_suffix(".new")
        try:
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, self._path)
            _sync_folder(self._path.parent)
        except OSError as error:
            raise VaultError(f"{self._path.name}: cannot be written: {error.strerror}.") from error


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _id(key: bytes) -> bytes:
    return hashlib.sha256(b"aigate vault key\0" + key).digest()[:ID_BYTES]


def _encrypt(key: bytes, text: bytes, context: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # here: it costs memory that few keepers need

    nonce = os.urandom(NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, text, context)


def _decrypt(key: bytes, sealed: bytes, context: bytes) -> bytes:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
    except (InvalidTag, ValueError) as error:
        raise VaultError("What is sealed was changed, or belongs elsewhere: it cannot be opened.") from error
