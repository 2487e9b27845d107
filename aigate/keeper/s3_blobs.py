"""Blobs in an S3-compatible store (the extra `s3`): one object a key. The library is synchronous, so each request runs in a thread.

Credentials and region come from where that library looks for them (AWS_ACCESS_KEY_ID, …, a profile, the machine's role). A blob is sent in
parts of 8 MiB as it comes, and is there only once it is whole; one that broke off is given up.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from aigate.keeper.blobs import MissingBlob

PART_BYTES = 8 << 20  # all but the last must have 5 MiB at least
PIECE_BYTES = 256 << 10
THREADS = 8
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


class S3Blobs:
    def __init__(self, bucket: str, prefix: str = "", *, endpoint: str = ""):
        config = Config(retries={"max_attempts": 5, "mode": "standard"}, connect_timeout=10, read_timeout=60, max_pool_connections=THREADS)
        self._client = boto3.client("s3", endpoint_url=endpoint or None, config=config)
        self._bucket = bucket
        self._prefix = prefix + "/" if prefix else ""
        self._threads = ThreadPoolExecutor(THREADS, "s3")

    async def put(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        upload = _Upload(self, self._object(key))
        try:
            async for piece in pieces:
                await upload.add(piece)
            return await upload.finish()
        except BaseException:
            with contextlib.suppress(OSError):  # its parts are the store's to clear then
                await upload.give_up()
            raise

    async def put_file(self, key: str, path: Path) -> int:
        if not await asyncio.to_thread(path.exists):  # done before a crash, or never there: then this raises
            return int((await self.call(self._client.head_object, **self._object(key)))["ContentLength"])
        size = await self.put(key, _pieces_of(path))
        await asyncio.to_thread(path.unlink)
        return size

    async def open(self, key: str, start: int = 0, end: int | None = None) -> AsyncIterator[bytes]:
        if end is not None and end <= start:
            return _nothing()
        last = "" if end is None else str(end - 1)
        wanted = {"Range": f"bytes={start}-{last}"} if start or last else {}
        reply = await self.call(self._client.get_object, **self._object(key), **wanted)
        return self._read(reply["Body"])

    async def delete(self, key: str) -> None:
        await self.call(self._client.delete_object, **self._object(key))

    async def call(self, function: Callable[..., Any], *args: Any, **fields: Any) -> Any:
        """Raises MissingBlob, or OSError for whatever else the store says: to a caller of blobs it is a disk that fails."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: function(*args, **fields))
        except ClientError as error:
            code = str(error.response.get("Error", {}).get("Code", ""))
            if code in _MISSING:
                raise MissingBlob(str(fields.get("Key"))) from None
            raise OSError(None, f"the S3 store answered {code or 'an error'}") from error
        except BotoCoreError as error:
            raise OSError(None, f"the S3 store cannot be used ({type(error).__name__})") from error

    async def _read(self, body: Any) -> AsyncIterator[bytes]:
        try:
            while piece := await self.call(body.read, PIECE_BYTES):
                yield piece
        finally:
            body.close()

    def _object(self, key: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + key}


class _Upload:
    """One blob on its way. What fits one part is sent as one object."""

    def __init__(self, store: S3Blobs, where: dict[str, str]):
        self._store = store
        self._client = store._client
        self._where = where
        self._buffer = bytearray()
        self._size = 0
        self._id: str | None = None
        self._parts: list[dict[str, Any]] = []

    async def add(self, piece: bytes) -> None:
        self._buffer += piece
        self._size += len(piece)
        if len(self._buffer) >= PART_BYTES:
            await self._send_part()

    async def finish(self) -> int:
        if self._id is None:
            await self._store.call(self._client.put_object, **self._where, Body=bytes(self._buffer))
            return self._size
        if self._buffer:
            await self._send_part()
        whole = {"Parts": self._parts}
        await self._store.call(self._client.complete_multipart_upload, **self._where, UploadId=self._id, MultipartUpload=whole)
        return self._size

    async def give_up(self) -> None:
        if self._id is not None:
            await self._store.call(self._client.abort_multipart_upload, **self._where, UploadId=self._id)

    async def _send_part(self) -> None:
        if self._id is None:
            self._id = (await self._store.call(self._client.create_multipart_upload, **self._where))["UploadId"]
        data, self._buffer = bytes(self._buffer), bytearray()
        number = len(self._parts) + 1
        sent = await self._store.call(self._client.upload_part, **self._where, UploadId=self._id, PartNumber=number, Body=data)
        self._parts.append({"PartNumber": number, "ETag": sent["ETag"]})


async def _pieces_of(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as file:
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield b""
