"""Tables of webhooks: secrets that sign, endpoints that callers registered, deliveries. Owns columns and keys; no queries.

Whose a row is: of a key (`key_id`), of a sub-account, or, where both are NULL, of the whole account. Times are unix milliseconds.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Integer, LargeBinary, Table, Text, text

from aigate.keeper.db.columns import integer_column, text_column
from aigate.keeper.db.tables import metadata

_PENDING = text("status = 'pending'")


def _owner() -> list[Column]:
    return [text_column("account_id"), Column("sub_account_id", Text), Column("key_id", Text)]


# Sealed by the vault. `previous`: signs too, until its time, after a rotation that let the two overlap.
webhook_secrets = Table(
    "webhook_secrets",
    metadata,
    text_column("owner_id", primary_key=True),  # a key's id (for URLs given with a request), or an endpoint's
    text_column("account_id"),
    Column("sealed", LargeBinary, nullable=False),
    integer_column("created_ms"),
    Column("previous", LargeBinary),
    Column("previous_until_ms", BigInteger),
)

webhook_endpoints = Table(
    "webhook_endpoints",
    metadata,
    text_column("id", primary_key=True),  # we_…
    *_owner(),
    text_column("url"),
    text_column("events"),  # JSON list of types and patterns (core/webhook.py); [] = all
    text_column("description"),
    integer_column("created_ms"),
    Column("disabled_ms", BigInteger),
    Index("webhook_endpoints_by_account", "account_id", "id"),
)

# One event on its way to one receiver. Rows of a lane (one receiver, one subject) go out one after the other, in the order of `number`.
webhook_deliveries = Table(
    "webhook_deliveries",
    metadata,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    text_column("id", unique=True),  # dlv_…: the same at every try, and when it is sent again
    text_column("event_id"),
    text_column("event_type"),
    *_owner(),
    Column("endpoint_id", Text),  # NULL: to the URL of one request
    text_column("url"),
    text_column("host"),  # what is bounded together: a dead one holds up no other
    text_column("lane"),
    text_column("subject"),
    text_column("body"),  # the exact bytes that are signed and sent
    text_column("status"),  # pending | delivered | failed
    integer_column("attempts"),  # all there were
    integer_column("round"),  # attempts since it was made or sent again: where it stands in the schedule
    text_column("tries"),  # JSON of the last ones (core/webhook.py Try)
    Column("due_ms", BigInteger),
    integer_column("created_ms"),
    Column("ended_ms", BigInteger),
    Index("webhook_deliveries_due", "due_ms", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index("webhook_deliveries_lanes", "lane", "number", sqlite_where=_PENDING, postgresql_where=_PENDING),
    Index("webhook_deliveries_by_account", "account_id", "number"),
    Index("webhook_deliveries_by_age", "created_ms"),
)
