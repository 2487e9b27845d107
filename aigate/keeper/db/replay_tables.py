"""Tables of replays and shadows. Owns their columns and keys; no queries. A change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Table, Text, text

from aigate.keeper.db.columns import integer_column, text_column
from aigate.keeper.db.tables import metadata

_RUNNING = text("status = 'running'")


replays = Table(
    "replays",
    metadata,
    text_column("id", primary_key=True),  # rpl_…
    text_column("account_id"),
    text_column("owner_id"),  # core/account.py tenant_of; "" = the account's
    text_column("key_id"),  # whose call the replay is
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("shadow_id", Text),  # NULL: it was asked for by itself
    text_column("source_request_id"),
    text_column("source_model"),
    text_column("target_model"),
    text_column("call_id"),  # the replay's own
    text_column("status"),  # running | completed | failed
    text_column("error"),
    integer_column("source_started_ms"),
    integer_column("source_cost_nanousd"),
    integer_column("source_latency_ms"),
    Column("target_cost_nanousd", BigInteger),
    Column("target_latency_ms", BigInteger),
    Column("score", Float),
    Column("source_output", Text),
    Column("target_output", Text),
    text_column("diff"),  # JSON
    integer_column("created_ms"),
    Column("ended_ms", BigInteger),
    Index("replays_by_owner", "account_id", "owner_id", "id"),
    Index("replays_running", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    Index("replays_of_shadow", "shadow_id", "source_request_id", unique=True),
)

# Live traffic of a key that is mirrored to another model.
shadows = Table(
    "shadows",
    metadata,
    text_column("id", primary_key=True),  # shd_…
    text_column("account_id"),
    text_column("owner_id"),
    text_column("key_id"),  # whose calls the mirrored ones are
    text_column("watched_key_id"),
    text_column("target_model"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("share", Float, nullable=False),
    integer_column("max_calls"),
    integer_column("mirrored"),
    integer_column("dropped"),
    integer_column("created_ms"),
    integer_column("until_ms"),
    Column("stopped_ms", BigInteger),
)
