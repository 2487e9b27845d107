"""Tables of the gateway's database, the same on SQLite and PostgreSQL. Owns columns, keys and the schema's revision; no queries.

Money is integer nano-dollars, times are unix milliseconds, months are "YYYY-MM" (UTC). Rows of a call lie together: `attempts` is
clustered by call, and the ids a worker makes run on, so both big tables grow at a few places only. A change here needs a migration beside it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text

SCHEMA_REVISION = "0001"  # newest file in migrations/versions

metadata = MetaData()


def _text(name: str, **options: object) -> Column:
    return Column(name, Text, nullable=False, **options)


def _integer(name: str, **options: object) -> Column:
    return Column(name, BigInteger, nullable=False, **options)


accounts = Table(
    "accounts",
    metadata,
    _text("id", primary_key=True),  # acc_…
    _text("name"),
    _integer("created_ms"),
)

keys = Table(
    "keys",
    metadata,
    _text("id", primary_key=True),  # key_…
    _text("account_id", index=True),
    Column("sub_account_id", Text),
    _text("name"),
    Column("digest", LargeBinary, nullable=False, unique=True),  # HMAC-SHA-256 of the key, never the key
    _text("hint"),  # its last 4 characters
    _integer("created_ms"),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    _text("allowed_models", server_default="[]"),  # JSON list of globs; [] = all
    Column("default_tag", Text),
    Column("is_admin", Boolean, nullable=False),
)

# Columns stand in the order of journal/records.py Intent, then Settled without its attempt id and call: the shipper relies on it.
attempts = Table(
    "attempts",
    metadata,
    _text("attempt_id"),
    _text("call_id"),
    _integer("number"),
    _integer("sent_ms"),
    _text("provider"),
    _text("model"),
    _integer("hold_nanousd"),
    _text("hold_price_id"),
    _text("account_id"),
    _text("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    _text("window"),
    _text("leases"),  # JSON [[budget id, lease number], …]; "" = none
    Column("is_stream", Boolean, nullable=False),
    _text("end"),  # complete | aborted | failed | unsettled
    _text("usage_source"),  # reported | counted | estimated; "" = unsettled
    _integer("input_tokens"),
    _integer("output_tokens"),
    _integer("cached_tokens"),
    _integer("cache_write_tokens"),
    _integer("reasoning_tokens"),
    _integer("audio_input_tokens"),
    _integer("audio_output_tokens"),
    _integer("cost_nanousd"),
    _text("price_id"),
    _integer("provider_status"),
    _text("error_kind"),
    _integer("latency_ms"),
    _integer("ttft_ms"),
    Column("raw_usage", LargeBinary, nullable=False),
    _integer("reserved_nanousd"),  # the hold of an unsettled attempt: counts against limits, is never billed
    PrimaryKeyConstraint("call_id", "attempt_id"),
    sqlite_with_rowid=False,
)

# In the order of journal/records.py CallEnd.
calls = Table(
    "calls",
    metadata,
    _text("call_id", primary_key=True),
    _text("surface"),
    _text("endpoint"),
    _text("asked_model"),
    _text("served_by"),
    _integer("status"),
    _integer("started_ms"),
    _integer("latency_ms"),
    _integer("ttft_ms"),
    Column("is_stream", Boolean, nullable=False),
    _integer("attempts"),
    _integer("cost_nanousd"),
    _text("account_id"),
    _text("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("client_request_id", Text),
    _text("error_code"),
    _text("warnings"),
    Index("calls_by_start", "started_ms", "call_id"),
    sqlite_with_rowid=False,
)

# Sums kept by the shipper in the transaction that adds the rows, so that a month's usage never needs a scan; `verify` recomputes them.
usage_totals = Table(
    "usage_totals",
    metadata,
    _text("month"),
    _text("account_id"),
    _text("key_id"),
    _text("sub_account_id"),  # "" = none
    _text("tag"),  # "" = untagged
    _integer("requests"),  # calls
    _integer("attempts"),
    _integer("cost_nanousd"),
    _integer("input_tokens"),
    _integer("output_tokens"),
    PrimaryKeyConstraint("month", "account_id", "key_id", "sub_account_id", "tag"),
    sqlite_with_rowid=False,
)

prices = Table(
    "prices",
    metadata,
    _text("id", primary_key=True),  # prc_ + hash of the content
    _text("content"),  # JSON of core/target.py Price
    _integer("created_ms"),
)

# `shipped_*`: everything before is in the tables. `replay_*`: the oldest intent still open there; a restarted keeper reads on from it.
journals = Table(
    "journals",
    metadata,
    _text("id", primary_key=True),  # jrn_…
    _text("node"),
    _integer("created_ms"),
    _integer("shipped_segment"),
    _integer("shipped_offset"),
    _integer("replay_segment"),
    _integer("replay_offset"),
    Column("sealed_ms", BigInteger),
    _text("damage"),  # what of it could not be read; "" = nothing
)

meta = Table("meta", metadata, _text("name", primary_key=True), _text("value"))
