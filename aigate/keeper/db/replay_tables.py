"""Tables of replays and shadows. Owns their columns and keys; no queries. A change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Table, Text, text

from aigate.keeper.db.tables import metadata

_RUNNING = text("status = 'running'")


def _text(name: str, **options: object) -> Column:
    return Column(name, Text, nullable=False, **options)


def _integer(name: str) -> Column:
    return Column(name, BigInteger, nullable=False)


replays = Table(
    "replays",
    metadata,
    _text("id", primary_key=True),  # rpl_…
    _text("account_id"),
    _text("owner_id"),  # core/account.py keeper_of; "" = the account's
    _text("key_id"),  # whose call the replay is
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("shadow_id", Text),  # NULL: it was asked for by itself
    _text("source_request_id"),
    _text("source_model"),
    _text("target_model"),
    _text("call_id"),  # the replay's own
    _text("status"),  # running | completed | failed
    _text("error"),
    _integer("source_started_ms"),
    _integer("source_cost_nanousd"),
    _integer("source_latency_ms"),
    Column("target_cost_nanousd", BigInteger),
    Column("target_latency_ms", BigInteger),
    Column("score", Float),
    Column("source_output", Text),
    Column("target_output", Text),
    _text("diff"),  # JSON
    _integer("created_ms"),
    Column("ended_ms", BigInteger),
    Index("replays_by_owner", "account_id", "owner_id", "id"),
    Index("replays_running", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    Index("replays_of_shadow", "shadow_id", "source_request_id", unique=True),
)

# Live traffic of a key that is mirrored to another model.
shadows = Table(
    "shadows",
    metadata,
    _text("id", primary_key=True),  # shd_…
    _text("account_id"),
    _text("owner_id"),
    _text("key_id"),  # whose calls the mirrored ones are
    _text("watched_key_id"),
    _text("target_model"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("share", Float, nullable=False),
    _integer("max_calls"),
    _integer("mirrored"),
    _integer("dropped"),
    _integer("created_ms"),
    _integer("until_ms"),
    Column("stopped_ms", BigInteger),
)
