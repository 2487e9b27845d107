"""Nouns of replays: one past call asked of another model, and the mirroring of live ones. Values only; no behaviour, no I/O.

Amounts are integer nano-dollars, times unix milliseconds. `owner_id` "": everybody's in the account who may see all of it.
"""

from __future__ import annotations

from typing import Any

import msgspec

RUNNING, COMPLETED, FAILED = "running", "completed", "failed"


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    id: str  # rpl_…
    account_id: str
    owner_id: str
    key_id: str  # whose call the replay is
    sub_account_id: str | None
    tag: str | None
    shadow_id: str | None = None  # None: it was asked for by itself
    source_request_id: str
    source_model: str
    target_model: str
    call_id: str  # of the replay itself
    status: str = RUNNING
    error: str = ""
    source_started_ms: int
    source_cost_nanousd: int
    source_latency_ms: int
    target_cost_nanousd: int | None = None
    target_latency_ms: int | None = None
    score: float | None = None  # likeness of the answers, core/compare.py
    source_output: str | None = None
    target_output: str | None = None
    diff: dict[str, Any] = {}
    created_ms: int
    ended_ms: int | None = None


class Shadow(msgspec.Struct, frozen=True, kw_only=True):
    """A share of the calls of `watched_key_id` is sent to another model too, until `until_ms`, `max_calls` or a stop."""

    id: str  # shd_…
    account_id: str
    owner_id: str
    key_id: str  # whose calls the mirrored ones are
    watched_key_id: str
    target_model: str
    sub_account_id: str | None
    tag: str | None
    share: float  # of the calls that end, 0 to 1
    max_calls: int
    mirrored: int = 0
    dropped: int = 0  # that should have been mirrored, and were not: too many at once, or no longer there
    created_ms: int
    until_ms: int
    stopped_ms: int | None = None
