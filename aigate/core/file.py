"""Uploaded files: what is known of one, what they may be for. Values only; no I/O."""

from __future__ import annotations

import msgspec

BATCH, BATCH_OUTPUT = "batch", "batch_output"
PURPOSES = (BATCH, BATCH_OUTPUT, "fine-tune", "assistants", "vision", "user_data", "evals")
MIN_LIFE_S, MAX_LIFE_S = 3_600, 2_592_000  # of `expires_after`


class StoredFile(msgspec.Struct, frozen=True, kw_only=True):
    """Its bytes are elsewhere, under its id. Times are unix milliseconds."""

    id: str  # file-…
    account_id: str
    owner_id: str  # core/account.py tenant_of
    filename: str
    purpose: str
    size_bytes: int
    created_ms: int
    expires_ms: int | None = None


class Listing(msgspec.Struct, frozen=True):
    """A page of a list by age: so many behind `after`, newest first or oldest first."""

    limit: int
    after: str | None = None
    is_oldest_first: bool = False


class FileFields(msgspec.Struct, frozen=True):
    """What an upload says of itself."""

    filename: str
    purpose: str = BATCH
    life_s: int | None = None  # from its creation; None: until it is deleted
