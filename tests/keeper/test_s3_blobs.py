"""The S3 store against a server of its protocol (moto)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from aigate.config import Files
from aigate.keeper.blob_store import open_blobs
from aigate.keeper.blobs import MissingBlob

boto3 = pytest.importorskip("boto3", reason="the extra s3 is not installed")
server_of = pytest.importorskip("moto.server", reason="moto is not installed")

from aigate.keeper.s3_blobs import PART_BYTES, S3Blobs  # noqa: E402  after its library is known to be there


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    with pytest.MonkeyPatch.context() as environ:
        for name, value in (("AWS_ACCESS_KEY_ID", "key"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_DEFAULT_REGION", "us-east-1")):
            environ.setenv(name, value)
        server = server_of.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        server.start()
        host, port = server.get_host_and_port()
        address = f"http://{host}:{port}"
        boto3.client("s3", endpoint_url=address).create_bucket(Bucket="results")
        yield address
        server.stop()


@pytest.fixture
def blobs(endpoint: str, tmp_path: Path) -> S3Blobs:
    opened = open_blobs(Files(store="s3://results/gate/", s3_endpoint=endpoint), tmp_path)
    assert isinstance(opened, S3Blobs)
    return opened


def objects(endpoint: str) -> dict[str, int]:
    found = boto3.client("s3", endpoint_url=endpoint).list_objects_v2(Bucket="results").get("Contents", [])
    return {each["Key"]: each["Size"] for each in found}


async def pieces_of(*pieces: bytes):
    for piece in pieces:
        yield piece


async def read(blobs: S3Blobs, key: str, *bounds: int) -> bytes:
    return b"".join([piece async for piece in await blobs.open(key, *bounds)])


def test_a_blob_is_read_whole_and_in_ranges(blobs: S3Blobs, endpoint: str) -> None:
    async def test() -> None:
        assert await blobs.put("jobs/job_1/0", pieces_of(b"0123", b"4567", b"89")) == 10
        assert objects(endpoint) == {"gate/jobs/job_1/0": 10}
        assert await read(blobs, "jobs/job_1/0") == b"0123456789"
        assert await read(blobs, "jobs/job_1/0", 3, 7) == b"3456"
        assert await read(blobs, "jobs/job_1/0", 8) == b"89"
        assert await read(blobs, "jobs/job_1/0", 4, 4) == b""
        await blobs.delete("jobs/job_1/0")
        await blobs.delete("jobs/job_1/0")
        with pytest.raises(MissingBlob):
            await blobs.open("jobs/job_1/0")

    asyncio.run(test())


def test_a_large_blob_goes_in_parts_and_a_broken_one_leaves_nothing(blobs: S3Blobs, endpoint: str) -> None:
    part = bytes(range(256)) * (PART_BYTES // 256)

    async def broken():
        yield part
        yield part
        raise ConnectionError

    async def test() -> None:
        assert await blobs.put("large", pieces_of(part, b"and more")) == PART_BYTES + 8
        assert await read(blobs, "large", PART_BYTES - 2, PART_BYTES + 3) == part[-2:] + b"and"
        with pytest.raises(ConnectionError):
            await blobs.put("broken", broken())
        with pytest.raises(MissingBlob):
            await blobs.open("broken")
        client = boto3.client("s3", endpoint_url=endpoint)
        assert client.list_multipart_uploads(Bucket="results").get("Uploads", []) == []

    asyncio.run(test())


def test_a_file_is_moved_there_once(blobs: S3Blobs, tmp_path: Path) -> None:
    async def test() -> None:
        source = tmp_path / "lines.jsonl"
        source.write_bytes(b"one\ntwo\n")
        assert await blobs.put_file("batches/1", source) == 8 and not source.exists()
        assert await blobs.put_file("batches/1", source) == 8
        assert await read(blobs, "batches/1") == b"one\ntwo\n"
        with pytest.raises(MissingBlob):
            await blobs.put_file("batches/2", tmp_path / "never")

    asyncio.run(test())


def test_a_store_that_cannot_be_used_is_a_disk_that_fails(endpoint: str, tmp_path: Path) -> None:
    async def test() -> None:
        nowhere = open_blobs(Files(store="s3://no-such-bucket", s3_endpoint=endpoint), tmp_path)
        with pytest.raises(OSError, match="NoSuchBucket"):
            await nowhere.put("a", pieces_of(b"1"))

    asyncio.run(test())
