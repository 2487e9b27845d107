"""Uploaded files: bytes in the blob store, a row each, within what one file and one tenant may take. Sweeps what has expired.

A row is written before the first byte and says a day; the last step makes it a file. So whatever dies when, the sweep finds every blob.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path

from msgspec.structs import replace
from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from aigate.core.account import Tenant
from aigate.core.file import FileFields, Listing, StoredFile
from aigate.errors import ClientError
from aigate.keeper.blobs import Blobs
from aigate.keeper.db.engine import Database
from aigate.keeper.db.files import IS_UPLOADING, bytes_of, delete_file, expire_file, expired_files, get_file, list_files, put_file

log = logging.getLogger("aigate.keeper")

UPLOAD_MS = 86_400_000  # the longest that an upload may take
SWEEP_S = 600.0


class FileStore:
    """`max_bytes`: of one file. `max_tenant_bytes`: of all files of a tenant; what a batch writes is kept all the same. 0: no limit."""

    def __init__(self, database: Database, blobs: Blobs, *, max_bytes: int, max_tenant_bytes: int):
        self._database = database
        self._blobs = blobs
        self._max_bytes = max_bytes
        self._max_tenant_bytes = max_tenant_bytes
        self._swept = asyncio.Event()

    async def add(self, tenant: Tenant, pieces: AsyncIterable[bytes], describe: Callable[[], FileFields]) -> StoredFile:
        """`describe` is asked once the pieces have ended. Raises its ClientErrors, and 413."""
        now_ms = int(time.time() * 1000)
        account_id, owner_id = tenant
        draft = StoredFile(
            id=new_file_id(now_ms),
            account_id=account_id,
            owner_id=owner_id,
            filename="",
            purpose="",
            size_bytes=IS_UPLOADING,
            created_ms=now_ms,
            expires_ms=now_ms + UPLOAD_MS,
        )
        used = await self._database.read(bytes_of, *tenant, now_ms)
        await self._database.write(put_file, draft)
        try:
            size = await self._blobs.put(blob_key(draft.id), self._within_limits(pieces, used))
            fields = describe()
            if not size:
                raise ClientError("file: is empty.", param="file")
            expires_ms = None if fields.life_s is None else now_ms + fields.life_s * 1000
            file = replace(draft, filename=fields.filename, purpose=fields.purpose, size_bytes=size, expires_ms=expires_ms)
            await self._database.write(self._put_within, file)
        except BaseException:
            with contextlib.suppress(SQLAlchemyError, OSError):  # the sweep finds it in a day
                await self._remove(draft.id)
            raise
        return file

    async def add_local(self, file: StoredFile, path: Path) -> StoredFile:
        """A file that the gateway made itself, under an id of its maker's: doing it again changes nothing."""
        size = await self._blobs.put_file(blob_key(file.id), path)
        file = replace(file, size_bytes=size)
        await self._database.write(put_file, file)
        return file

    async def get(self, tenant: Tenant, file_id: str) -> StoredFile | None:
        return await self._database.read(get_file, *tenant, file_id, int(time.time() * 1000))

    async def list(self, tenant: Tenant, page: Listing, purpose: str | None) -> list[StoredFile]:
        return await self._database.read(list_files, tenant, page, purpose, int(time.time() * 1000))

    async def read(self, file_id: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        return await self._blobs.open(blob_key(file_id), start, end)

    async def delete(self, tenant: Tenant, file_id: str) -> bool:
        if not await self._database.write(expire_file, *tenant, file_id, int(time.time() * 1000)):
            return False
        self._swept.set()
        return True

    async def sweep(self) -> None:
        """Until cancelled: removes what has expired, soon after a deletion, else every few minutes."""
        while True:
            self._swept.clear()
            try:
                while ids := await self._database.read(expired_files, int(time.time() * 1000)):
                    for file_id in ids:
                        await self._remove(file_id)
            except (SQLAlchemyError, OSError) as error:
                log.error("expired files could not be removed: %s", type(error).__name__)
            try:
                async with asyncio.timeout(SWEEP_S):
                    await self._swept.wait()
            except TimeoutError:
                pass  # time to look again

    async def _remove(self, file_id: str) -> None:
        await self._blobs.delete(blob_key(file_id))
        await self._database.write(delete_file, file_id)

    async def _within_limits(self, pieces: AsyncIterable[bytes], used: int) -> AsyncIterator[bytes]:
        size = 0
        async for piece in pieces:
            size += len(piece)
            if self._max_bytes and size > self._max_bytes:
                raise _too_large(f"file: has more than {self._max_bytes} bytes, the most that one file may have.")
            if self._max_tenant_bytes and used + size > self._max_tenant_bytes:
                raise self._no_room(used)
            yield piece

    def _put_within(self, connection: Connection, file: StoredFile) -> None:
        used = bytes_of(connection, file.account_id, file.owner_id, file.created_ms)
        if self._max_tenant_bytes and used + file.size_bytes > self._max_tenant_bytes:
            raise self._no_room(used)
        put_file(connection, file)

    def _no_room(self, used: int) -> ClientError:
        most = self._max_tenant_bytes
        return _too_large(f"file: your files may take {most} bytes together, and {used} are taken; delete some with DELETE /v1/files/{{id}}.")


def new_file_id(now_ms: int) -> str:
    """Rises with time, so that ids sort by age."""
    return f"file-{now_ms:011x}{secrets.token_hex(8)}"


def blob_key(file_id: str) -> str:
    return f"uploads/{file_id}"


def _too_large(words: str) -> ClientError:
    return ClientError(words, status=413, code="payload_too_large", param="file")
