"""Tables of the gateway's database, the same on SQLite and PostgreSQL. Owns columns, keys and the schema's revision; no queries.

Money is integer nano-dollars, times are unix milliseconds, months are "YYYY-MM" (UTC). Rows of a call lie together: `attempts` is
clustered by call, and the ids a worker makes run on, so both big tables grow at a few places only. A change here needs a migration beside it.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text, text

from aigate.keeper.db.columns import integer_column, text_column

SCHEMA_REVISION = "0008"  # newest file in migrations/versions

metadata = MetaData()

_LIVING = text("deleted_ms IS NULL")
_CHANGED = text("version > 0")
_RESERVED = text("reserved_nanousd > 0")
_WAITING = text("delivered_ms IS NULL")


def _rate_limits() -> list[Column]:
    """NULL = none of its own."""
    return [Column(name, BigInteger) for name in ("rate_limit_rpm", "rate_limit_tpm", "max_streams")]


def _archive_days() -> Column:
    """How long bodies of calls are kept; NULL = as the next above it has it."""
    return Column("archive_days", BigInteger)


def _usage_sums() -> list[Column]:
    """`requests` counts calls; the others are over attempts."""
    return [integer_column(name) for name in ("requests", "attempts", "cost_nanousd", "input_tokens", "output_tokens")]


accounts = Table(
    "accounts",
    metadata,
    text_column("id", primary_key=True),  # acc_…
    text_column("name"),
    integer_column("created_ms"),
    *_rate_limits(),
    _archive_days(),
)

keys = Table(
    "keys",
    metadata,
    text_column("id", primary_key=True),  # key_…
    text_column("account_id", index=True),
    Column("sub_account_id", Text),
    text_column("name"),
    Column("digest", LargeBinary, nullable=False, unique=True),  # HMAC-SHA-256 of the key, never the key
    text_column("hint"),  # its last 4 characters
    integer_column("created_ms"),
    Column("expires_ms", BigInteger),
    Column("revoked_ms", BigInteger),
    text_column("allowed_models", server_default="[]"),  # JSON list of globs; [] = all
    Column("default_tag", Text),
    Column("is_admin", Boolean, nullable=False),
    *_rate_limits(),
    Column("next_digest", LargeBinary, unique=True),  # a rotated key's new secret: takes the place of `digest` when it is first used
    Column("next_hint", Text),
    _archive_days(),
    Index("keys_by_sub_account", "sub_account_id"),
)

sub_accounts = Table(
    "sub_accounts",
    metadata,
    text_column("id", primary_key=True),  # sa_…
    text_column("account_id"),
    text_column("name"),
    Column("external_ref", Text),
    Column("default_tag", Text),
    text_column("allowed_models"),  # JSON list of globs; [] = all
    *_rate_limits(),
    integer_column("created_ms"),
    Column("deleted_ms", BigInteger),
    _archive_days(),
    Index("sub_accounts_by_name", "account_id", "name", unique=True, sqlite_where=_LIVING, postgresql_where=_LIVING),
    Index("sub_accounts_by_ref", "account_id", "external_ref", unique=True, sqlite_where=_LIVING, postgresql_where=_LIVING),
)

# Credentials of callers for providers, sealed: never readable without the key file.
provider_keys = Table(
    "provider_keys",
    metadata,
    text_column("id", primary_key=True),  # pk_…
    text_column("account_id", index=True),
    Column("sub_account_id", Text),
    text_column("provider"),
    text_column("origin"),  # the only origin it is ever sent to; part of what is sealed
    text_column("name"),
    text_column("hint"),
    Column("sealed", LargeBinary, nullable=False),
    integer_column("created_ms"),
    Column("revoked_ms", BigInteger),
)

# One row for every owner (core/budget.py) that ever spent or was limited; of a limit or not. An empty `owner_id` stands for
# "no tag" and "no sub-account" of the account, so that sums by tag and by sub-account are whole; it never has a limit.
budgets = Table(
    "budgets",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    text_column("scope"),  # account | sub_account | key | tag
    text_column("account_id"),
    text_column("owner_id"),  # of a tag: its text
    Column("limit_nanousd", BigInteger),
    text_column("window_kind"),  # month | all
    text_column("mode"),  # clamp | hard
    integer_column("version"),  # of its last change that workers must hear of, counted over all budgets (meta.limits_version); 0 = none
    integer_column("created_ms"),
    Column("deleted_ms", BigInteger),
    Index("budgets_by_owner", "scope", "account_id", "owner_id", unique=True),
    Index("budgets_changed", "version", sqlite_where=_CHANGED, postgresql_where=_CHANGED),
)

# `spent` is the whole of the owner's settled cost, limited or not. Rules: core/budget.py.
windows = Table(
    "windows",
    metadata,
    integer_column("budget_id"),
    text_column("window"),  # YYYY-MM | all
    integer_column("spent_nanousd"),
    integer_column("reserved_nanousd"),
    integer_column("leased_nanousd"),
    integer_column("requests"),
    integer_column("attempts"),
    integer_column("input_tokens"),
    integer_column("output_tokens"),
    PrimaryKeyConstraint("budget_id", "window"),
    sqlite_with_rowid=False,
)

# What each journal holds of a window's `leased`.
leases = Table(
    "leases",
    metadata,
    text_column("journal_id"),
    integer_column("budget_id"),
    text_column("window"),
    integer_column("amount_nanousd"),
    PrimaryKeyConstraint("journal_id", "budget_id", "window"),
    sqlite_with_rowid=False,
)

# Answers given, for workers that ask again because the first answer was lost.
grants = Table(
    "grants",
    metadata,
    text_column("journal_id"),
    integer_column("number"),
    Column("answer", LargeBinary, nullable=False),
    PrimaryKeyConstraint("journal_id", "number"),
    sqlite_with_rowid=False,
)

# What others want to hear of, written with its cause, delivered later. Whose it is: of the account, and of the key or sub-account named.
outbox = Table(
    "outbox",
    metadata,
    text_column("id", primary_key=True),  # evt_…
    text_column("type"),
    text_column("account_id"),
    text_column("payload"),  # JSON
    text_column("cause", unique=True),  # the same cause makes one event
    integer_column("created_ms"),
    Column("delivered_ms", BigInteger),  # handed over to its receivers, if it has any (webhook_deliveries)
    Column("sub_account_id", Text),
    Column("key_id", Text),
    Column("url", Text),  # of the request that it tells of: gets the payload itself
    text_column("subject", server_default=""),  # events of one subject are delivered in their order; "" = none
    Index("outbox_waiting", "created_ms", sqlite_where=_WAITING, postgresql_where=_WAITING),
)

# Finished responses of the Responses format, for calls that go on from them. Each row has its own turn only: what came before is `previous_id`'s.
responses = Table(
    "responses",
    metadata,
    text_column("account_id"),
    text_column("owner_id"),  # core/account.py tenant_of
    text_column("id"),  # resp_…
    Column("previous_id", Text),
    integer_column("created_ms"),
    Column("input", LargeBinary, nullable=False),  # JSON: what the caller sent under that key
    Column("body", LargeBinary, nullable=False),  # JSON: the response as the caller got it
    PrimaryKeyConstraint("account_id", "owner_id", "id"),
    Index("responses_by_age", "created_ms"),
)

# Columns stand in the order of journal/records.py Intent, then Settled without its attempt id and call: the shipper relies on it.
attempts = Table(
    "attempts",
    metadata,
    text_column("attempt_id"),
    text_column("call_id"),
    integer_column("number"),
    integer_column("sent_ms"),
    text_column("provider"),
    text_column("model"),
    integer_column("hold_nanousd"),
    text_column("hold_price_id"),
    text_column("account_id"),
    text_column("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    text_column("window"),
    text_column("leases"),  # JSON [[budget id, lease number], …]; "" = none
    Column("is_stream", Boolean, nullable=False),
    text_column("end"),  # complete | aborted | failed | unsettled
    text_column("usage_source"),  # reported | counted | estimated | none; "" = unsettled
    integer_column("input_tokens"),
    integer_column("output_tokens"),
    integer_column("cached_tokens"),
    integer_column("cache_write_tokens"),
    integer_column("reasoning_tokens"),
    integer_column("audio_input_tokens"),
    integer_column("audio_output_tokens"),
    integer_column("cost_nanousd"),
    text_column("price_id"),
    integer_column("provider_status"),
    text_column("error_kind"),
    integer_column("latency_ms"),
    integer_column("ttft_ms"),
    Column("raw_usage", LargeBinary, nullable=False),
    integer_column("reserved_nanousd"),  # the hold of an unsettled attempt: counts against limits, is never billed
    PrimaryKeyConstraint("call_id", "attempt_id"),
    Index("attempts_reserved", "attempt_id", sqlite_where=_RESERVED, postgresql_where=_RESERVED),
    sqlite_with_rowid=False,
)

# In the order of journal/records.py CallEnd.
calls = Table(
    "calls",
    metadata,
    text_column("call_id", primary_key=True),
    text_column("surface"),
    text_column("endpoint"),
    text_column("asked_model"),
    text_column("served_by"),
    integer_column("status"),
    integer_column("started_ms"),
    integer_column("latency_ms"),
    integer_column("ttft_ms"),
    Column("is_stream", Boolean, nullable=False),
    integer_column("attempts"),
    integer_column("cost_nanousd"),
    text_column("account_id"),
    text_column("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("client_request_id", Text),
    text_column("error_code"),
    text_column("warnings"),
    Index("calls_by_start", "started_ms", "call_id"),
    sqlite_with_rowid=False,
)

# Sums kept by the shipper in the transaction that adds the rows, so that a month's usage never needs a scan; `verify` recomputes them.
usage_totals = Table(
    "usage_totals",
    metadata,
    text_column("month"),
    text_column("account_id"),
    text_column("key_id"),
    text_column("sub_account_id"),  # "" = none
    text_column("tag"),  # "" = untagged
    *_usage_sums(),
    PrimaryKeyConstraint("month", "account_id", "key_id", "sub_account_id", "tag"),
    Index("usage_totals_by_sub_account", "month", "account_id", "sub_account_id"),
    sqlite_with_rowid=False,
)

# The same sums by day and model, for the account and for each of its keys and sub-accounts. An attempt's month is its window's.
usage_days = Table(
    "usage_days",
    metadata,
    text_column("account_id"),
    text_column("owner_id"),  # key or sub-account; "" = the whole account
    text_column("month"),
    text_column("day"),  # YYYY-MM-DD
    text_column("model"),  # slug; "" = calls that nothing served
    *_usage_sums(),
    PrimaryKeyConstraint("account_id", "owner_id", "month", "day", "model"),
    sqlite_with_rowid=False,
)

prices = Table(
    "prices",
    metadata,
    text_column("id", primary_key=True),  # prc_ + hash of the content
    text_column("content"),  # JSON of core/target.py Price
    integer_column("created_ms"),
)

# `shipped_*`: everything before is in the tables. `replay_*`: the oldest intent still open there; a restarted keeper reads on from it.
journals = Table(
    "journals",
    metadata,
    text_column("id", primary_key=True),  # jrn_…
    text_column("node"),
    integer_column("created_ms"),
    integer_column("shipped_segment"),
    integer_column("shipped_offset"),
    integer_column("replay_segment"),
    integer_column("replay_offset"),
    Column("sealed_ms", BigInteger),
    text_column("damage"),  # what of it could not be read; "" = nothing
)

# grant_seq: rises with every grant. limits_version: rises with every change of a limit that workers must hear of. kept_month: `attempts` and
# `calls` of months before it were removed (retention); "" = none.
meta = Table("meta", metadata, text_column("name", primary_key=True), text_column("value"))
