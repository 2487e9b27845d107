"""Which store of blobs the operator has chosen."""

from __future__ import annotations

from pathlib import Path

from aigate.config import Files
from aigate.keeper.blobs import Blobs, LocalBlobs


def open_blobs(settings: Files, data_dir: Path) -> Blobs:
    if not settings.store:
        local = LocalBlobs(data_dir / "files")
        local.clear_drafts()
        return local
    from aigate.keeper.s3_blobs import S3Blobs  # its library is an extra

    bucket, _, prefix = settings.store.removeprefix("s3://").partition("/")
    return S3Blobs(bucket, prefix.strip("/"), endpoint=settings.s3_endpoint)
