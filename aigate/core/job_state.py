"""A job as it is stored, the stages it goes through, and what its caller is told of them. Values only.

    new → sending → waiting → fetching → completed
     └───────┴─────────┴─────────┴─────→ failed          waiting → stopping → failed (cancelled by its caller, its cost not known yet)
"""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

NEW = "new"  # accepted and held for; nothing was sent
SENDING = "sending"  # the submission goes out, or went out and its reply was never seen
WAITING = "waiting"  # it is at the provider
FETCHING = "fetching"  # done there; its results are taken over
STOPPING = "stopping"  # over for its caller; what the provider charges is still to be heard
COMPLETED, FAILED = "completed", "failed"

STATUS = {
    NEW: "queued", SENDING: "queued", WAITING: "processing", FETCHING: "processing", STOPPING: "failed", COMPLETED: "completed", FAILED: "failed",
}  # fmt: skip
_OVER = frozenset({COMPLETED, FAILED, STOPPING})

# error_code of a failed job, beside those that a provider gives
CANCELLED = "cancelled"
SUBMISSION_UNKNOWN = "submission_unknown"
DEADLINE_EXCEEDED = "deadline_exceeded"
PROVIDER_UNAVAILABLE = "provider_unavailable"
PROVIDER_REJECTED = "provider_rejected"
PROVIDER_LOST = "provider_lost"
RESULT_UNAVAILABLE = "result_unavailable"
IMAGE_UNREADABLE = "image_unreadable"


class StoredResult(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One file that came out. `key`: where its bytes are (keeper/blobs.py)."""

    filename: str
    media_type: str
    size_bytes: int
    etag: str
    key: str
    duration_s: float | None = None
    resolution: str | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A row of `jobs` (keeper/db/job_tables.py says what each field is)."""

    id: str
    account_id: str
    key_id: str
    sub_account_id: str | None = None
    tag: str | None = None
    client_request_id: str | None = None
    modality: str
    asked_model: str
    model: str
    request: str
    warnings: str = ""
    webhook_url: str | None = None
    stage: str = NEW
    error_code: str = ""
    error: str = ""
    progress: float | None = None
    created_ms: int
    updated_ms: int
    submitted_ms: int | None = None
    ended_ms: int | None = None
    cancelled_ms: int | None = None
    deadline_ms: int
    due_ms: int | None = None
    tries: int = 0
    node: str = ""
    handle: str = ""
    submit_key: str
    polled: str = ""
    attempt_id: str
    call_id: str
    price_id: str = ""
    units: str
    cost_nanousd: int | None = None
    results: str = "[]"
    expires_ms: int | None = None  # when its results, and what was asked, are forgotten; NULL = not yet ended, or done

    @property
    def is_over(self) -> bool:
        """For its caller; what it costs may still have to be heard."""
        return self.stage in _OVER or self.cancelled_ms is not None

    @property
    def status(self) -> str:
        return "failed" if self.is_over and self.stage != COMPLETED else STATUS[self.stage]

    @property
    def hook_token(self) -> str:
        """What a provider's call about it must name."""
        return hashlib.sha256(b"hook\0" + self.submit_key.encode()).hexdigest()[:32]

    @property
    def files(self) -> list[StoredResult]:
        return msgspec.json.decode(self.results, type=list[StoredResult])


class NewJob(msgspec.Struct, frozen=True, kw_only=True):
    """A submission as the route has read it. `fields`: of core/job.py JobRequest, the unknown ones under `extra`."""

    modality: str
    model: str  # "" = left out
    fields: dict[str, Any]
    webhook_url: str | None = None
    tag: str | None = None
    client_request_id: str | None = None
    is_strict: bool = False  # nothing may be dropped or changed
    idempotency_key: str | None = None
    digest: bytes = b""  # of what was asked, for the key
    call_id: str  # req_…
