"""Batches: what is known of one, which steps it takes, how often and when a line is tried. Values and rules only; no clock, no I/O.

The ids of a batch's calls are made from its own id, so they need not be stored: whoever finds the batch again can ask what became of each.
"""

from __future__ import annotations

from typing import Any

import msgspec

from aigate.core.price import format_cents

VALIDATING, IN_PROGRESS, FINALIZING, CANCELLING = "validating", "in_progress", "finalizing", "cancelling"
ENDED = COMPLETED, FAILED, EXPIRED, CANCELLED = "completed", "failed", "expired", "cancelled"

WINDOW = "24h"  # the only completion window, as in the public service
WINDOW_MS = 86_400_000

FENCE_LINES = 200  # so many lines past its last checkpoint may have been sent
CHECKPOINT_LINES = 100

NATIVE_MARK = "ff"  # of calls that a provider's own batch makes, in the place of the tries
MAX_TRIES = 8  # of one line, each a call of its own
MAX_HELD_TRIES = 4  # of one that would fit into a budget if running calls gave back what they hold
FIRST_DELAY_S, MAX_DELAY_S, DELAY_FACTOR = 2.0, 300.0, 3.0


class LineError(msgspec.Struct, frozen=True):
    """Why there is no reply: of a line, in the error file; of a batch, in its record."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchUsage(msgspec.Struct, frozen=True):
    """Of all its calls, as the ledger has them."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cost_nanousd: int = 0


class NewBatch(msgspec.Struct, frozen=True, kw_only=True):
    """What a caller asks for."""

    input_file_id: str
    endpoint: str
    tag: str | None = None
    output_expires_s: int | None = None
    metadata: dict[str, str] = {}
    webhook_url: str | None = None


class Batch(msgspec.Struct, frozen=True, kw_only=True):
    """Times are unix milliseconds. `ends_as`: how it will have ended, from finalizing on."""

    id: str  # batch_…
    account_id: str
    owner_id: str  # core/account.py tenant_of
    key_id: str  # for whom its calls are made
    tag: str | None = None
    endpoint: str
    input_file_id: str
    output_expires_s: int | None = None
    metadata: dict[str, str] = {}
    webhook_url: str | None = None
    status: str = VALIDATING
    ends_as: str = ""
    errors: tuple[LineError, ...] = ()
    total: int = 0
    completed: int = 0
    failed: int = 0
    is_divided: bool = False  # which of its lines go to providers' own batches is settled
    fence: int = 0  # no line from this number on has been sent
    output_file_id: str | None = None
    error_file_id: str | None = None
    usage: BatchUsage | None = None
    created_ms: int
    expires_ms: int
    in_progress_ms: int | None = None
    cancelling_ms: int | None = None
    finalizing_ms: int | None = None
    ended_ms: int | None = None


def batch_record(batch: Batch) -> dict[str, Any]:
    """As its caller sees it: OpenAI's record, with what it cost. Files are named once they are there."""
    has_ended = batch.ended_ms is not None
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "input_file_id": batch.input_file_id,
        "completion_window": WINDOW,
        "status": batch.status,
        "output_file_id": batch.output_file_id if has_ended else None,
        "error_file_id": batch.error_file_id if has_ended else None,
        "created_at": batch.created_ms // 1000,
        "in_progress_at": _seconds(batch.in_progress_ms),
        "expires_at": batch.expires_ms // 1000,
        "finalizing_at": _seconds(batch.finalizing_ms),
        **{f"{end}_at": _seconds(batch.ended_ms) if batch.status == end else None for end in ENDED},
        "cancelling_at": _seconds(batch.cancelling_ms),
        "request_counts": {"total": batch.total, "completed": batch.completed, "failed": batch.failed},
        "usage": _usage_record(batch.usage),
        "cost_cents": None if batch.usage is None else float(format_cents(batch.usage.cost_nanousd)),
        "metadata": batch.metadata or None,
    }


def _usage_record(usage: BatchUsage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _seconds(ms: int | None) -> int | None:
    return None if ms is None else ms // 1000


def call_id(batch_id: str, line: int, tries: int) -> str:
    """Of the try after `tries` others; lines count from 1."""
    return f"req_{batch_id.removeprefix('batch_')}{line:06x}{tries:02x}"


def native_call_id(batch_id: str, line: int) -> str:
    """Of a line that a provider's own batch has."""
    return call_id(batch_id, line, int(NATIVE_MARK, 16))


def is_native_call(called: str) -> bool:
    return called.endswith(NATIVE_MARK)


def line_of_call(called: str) -> int:
    return int(called[-8:-2], 16)


def call_id_range(batch_id: str) -> tuple[str, str]:
    """Every call id of the batch lies between, and none of any other's."""
    prefix = f"req_{batch_id.removeprefix('batch_')}"
    return prefix, prefix + "g"


def is_worth_another_try(status: int, tries: int, *, is_held: bool = False) -> bool:
    """After `tries` tries, the last with this status. `is_held`: it met a limit, and part of what is used of that is only held for others."""
    if status == 402:
        return is_held and tries < MAX_HELD_TRIES
    return tries < MAX_TRIES and (status in (408, 425, 429) or status >= 500)


def retry_delay_s(tries: int, told_s: float | None, draw: float) -> float:
    """Before the next try. `told_s`: what the reply asked for. `draw` in [0, 1) spreads lines that failed together."""
    delay_s = min(FIRST_DELAY_S * DELAY_FACTOR ** (tries - 1), MAX_DELAY_S) * (0.75 + draw / 2)
    return delay_s if told_s is None else max(delay_s, min(told_s, MAX_DELAY_S))
