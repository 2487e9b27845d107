"""The data directory: made, checked, locked and stamped by the supervisor before anything else starts.

Owns its layout's first level and the two secrets in it (admin.key, secret.key). What is inside journals/ and the database
belongs to the journal and the keeper.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

SECRET_BYTES = 32
VERSION = 1  # of the layout; a directory with a higher one was written by a newer aigate
LOCK_WAIT_S = 2.0  # the children of a server that was killed need a moment to notice
_SOCKET_PATH_BYTES = 107  # sun_path, less its final NUL
_HARMLESS = {"lost+found"}  # what a fresh volume may hold


class DataDirError(Exception):
    """The data directory cannot be used: the message says why and what to do."""


class DataDir:
    """An open data directory. `lock_fd` is handed to every child, so the lock lasts until the last of them is gone."""

    def __init__(self, path: str):
        self.path = Path(os.path.abspath(path))
        try:
            self._make()
            self.lock_fd = self._lock()
            for name in ("journals", "files", "run"):
                (self.path / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise DataDirError(f"data directory {self.path}: {error.strerror}") from error
        self._check_version()

    def run_path(self, name: str) -> Path:
        return self.path / "run" / name

    @property
    def admin_key_path(self) -> Path:
        return self.path / "admin.key"

    def root_key(self) -> str:
        """Whatever an operator put there, as long as a header can carry it."""
        key = _read_or_write(self.admin_key_path, _new_root_key).decode("ascii", "replace").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise DataDirError(f"{self.admin_key_path}: holds no key: one line of printable ASCII without spaces; remove it, and a new one is made")
        return key

    def key_secret(self) -> bytes:
        path = self.path / "secret.key"
        secret = _read_or_write(path, lambda: os.urandom(SECRET_BYTES))
        if len(secret) != SECRET_BYTES:
            raise DataDirError(f"{path}: has {len(secret)} bytes where {SECRET_BYTES} are due: client keys cannot be checked; restore it from a backup")
        return secret

    def _make(self) -> None:
        too_long = len(os.fsencode(self.run_path("inner-256.sock"))) - _SOCKET_PATH_BYTES
        if too_long > 0:
            raise DataDirError(f"data directory {self.path}: its path is {too_long} bytes too long for the sockets in it; choose a shorter one")
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        owner = self.path.stat().st_uid
        if owner != os.geteuid():
            raise DataDirError(
                f"data directory {self.path}: belongs to user {owner}, and this is user {os.geteuid()}; change its owner or choose another"
            )
        names = {entry.name for entry in self.path.iterdir()} - _HARMLESS
        if names and not names & {"version", "lock"}:
            raise DataDirError(f"data directory {self.path}: is not empty and was not made by aigate; choose another")
        self.path.chmod(0o700)

    def _lock(self) -> int:
        descriptor = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
                    os.close(descriptor)
                    raise DataDirError(f"data directory {self.path}: another aigate uses it (process {owner or 'unknown'}); stop that one or choose another") from None
                time.sleep(0.02)  # the children of a killed server are about to exit: there is no event to wait for
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        return descriptor

    def _check_version(self) -> None:
        stamp = _read_or_write(self.path / "version", lambda: b"%d\n" % VERSION).strip()
        if not stamp.isdigit():
            raise DataDirError(f"data directory {self.path}: its version stamp {stamp[:20]!r} is not a number; restore the directory from a backup")
        if int(stamp) > VERSION:
            raise DataDirError(f"data directory {self.path}: was written by a newer aigate (version {int(stamp)}, this one knows {VERSION}); install that one")


def _new_root_key() -> bytes:
    from aigate.core.client_key import KEY_RANDOM_BYTES, make_key  # here: it brings OpenSSL, 4 MB that a later start saves

    return make_key(os.urandom(KEY_RANDOM_BYTES)).encode() + b"\n"


def _read_or_write(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's content; made first where there is none: whole and on disk, or not at all, whenever the power goes."""
    try:
        if path.exists():
            return path.read_bytes()
        content = make()
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, content)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(draft, path)
    except OSError as error:
        raise DataDirError(f"{path}: {error.strerror}") from error
    return content
