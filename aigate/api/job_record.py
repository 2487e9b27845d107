"""A job as its caller is shown it, in replies and webhooks: one record with every name that clients look for."""

from __future__ import annotations

from typing import Any, NamedTuple

from aigate.api.replies import cents
from aigate.core.job_links import RECORD_LIFE_S, LinkKey, file_path, signed_path
from aigate.core.job_state import COMPLETED, Job, StoredResult


class Links(NamedTuple):
    """What links in a record are made with. `base_url`: where the reader reaches this gateway, without a trailing slash."""

    base_url: str
    key: LinkKey | None  # None: there are none to make
    now_s: int


def job_record(job: Job, links: Links) -> dict[str, Any]:
    files = job.files if job.stage == COMPLETED and job.expires_ms is not None else []
    shown = [_file(job, file, links) for file in files]
    first = shown[0] if shown else None
    created, updated = job.created_ms // 1000, job.updated_ms // 1000
    error = job.error or None
    return {
        "id": job.id,
        "object": "job",
        "status": job.status,
        "modality": job.modality,
        "model": job.model,
        "progress": 1.0 if job.stage == COMPLETED else job.progress,
        "created": created,
        "created_at": created,
        "updated_at": updated,
        "completed_at": None if job.ended_ms is None else job.ended_ms // 1000,
        "result_url": first and first["url"],
        "result": first and {**first, "files": shown},
        "expires_at": None if job.expires_ms is None or not files else job.expires_ms // 1000,
        "error": error,
        "error_code": job.error_code or None,
        "error_details": {"code": job.error_code, "message": job.error} if error else None,
        "request_id": job.call_id,
        "tag": job.tag,
        "cost_cents": None if job.cost_nanousd is None else cents(job.cost_nanousd),
        "usage": None if job.cost_nanousd is None else {"cost_cents": cents(job.cost_nanousd)},
        "warnings": job.warnings or None,
        "webhook_url": job.webhook_url,
    }


def _file(job: Job, file: StoredResult, links: Links) -> dict[str, Any]:
    assert links.key is not None and job.expires_ms is not None
    expires_s = min(links.now_s + RECORD_LIFE_S, job.expires_ms // 1000)
    url = links.base_url + signed_path(links.key, job.id, file.filename, expires_s)
    record: dict[str, Any] = {
        "url": url,
        "file_url": url,
        "download_url": links.base_url + file_path(job.id, file.filename),
        "filename": file.filename,
        "media_type": file.media_type,
        "bytes": file.size_bytes,
    }
    if file.duration_s is not None:
        record["duration"] = file.duration_s
    if file.resolution is not None:
        record["resolution"] = file.resolution
    return record
