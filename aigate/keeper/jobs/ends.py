"""How the end of a job is written down: its ledger records and its event. Values from values; no I/O."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aigate.core.job_state import CANCELLED, COMPLETED, DEADLINE_EXCEEDED, Job
from aigate.core.price import price_units, units_usage
from aigate.core.target import Price
from aigate.core.usage import COUNTED, NONE, REPORTED
from aigate.journal.records import CallEnd, Settled

JOB_COMPLETED, JOB_FAILED = "job.completed", "job.failed"
SURFACE = "jobs"


def settled_record(job: Job, price: Price | None, units: Mapping[str, int], *, reported: bytes | None = None) -> Settled:
    """`job`: as it has ended. `units`: what is charged; {} = nothing. `reported`: the provider's own words for it, b"" where it gave none;
    None: nobody asked it."""
    cost_nanousd = price_units(price, units)
    is_done = job.stage == COMPLETED
    source = NONE if not units else REPORTED if reported else COUNTED
    latency_ms = (job.ended_ms or job.updated_ms) - job.created_ms
    return Settled(
        job.attempt_id,
        "complete" if is_done else "aborted" if job.error_code == CANCELLED else "failed",
        source,
        0, 0, 0, 0, 0, 0, 0,
        cost_nanousd,
        job.price_id,
        200 if is_done else 0,
        "" if is_done else job.error_code,
        latency_ms,
        -1,
        units_usage(units, reported or b"") if units else b"",
        call_record(job, cost_nanousd),
    )  # fmt: skip


def call_record(job: Job, cost_nanousd: int) -> CallEnd:
    is_done = job.stage == COMPLETED
    status = 200 if is_done else {CANCELLED: 499, DEADLINE_EXCEEDED: 504}.get(job.error_code, 502)
    return CallEnd(
        job.call_id,
        SURFACE,
        job.modality,
        job.asked_model or f"auto/{job.modality}",
        job.model if is_done else "",
        status,
        job.created_ms,
        (job.ended_ms or job.updated_ms) - job.created_ms,
        -1,
        False,
        1,
        cost_nanousd,
        job.account_id,
        job.key_id,
        job.sub_account_id,
        job.tag,
        job.client_request_id,
        job.error_code,
        job.warnings,
    )


def failed_values(code: str, message: str, now_ms: int) -> dict[str, Any]:
    return {"error_code": code, "error": message, "ended_ms": now_ms, "updated_ms": now_ms, "cost_nanousd": 0}


def event_type(job: Job) -> str:
    return JOB_COMPLETED if job.stage == COMPLETED else JOB_FAILED
