"""Tables of evals. Owns their columns and keys; no queries. A change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, PrimaryKeyConstraint, Table, Text, text

from aigate.keeper.db.columns import integer_column, text_column
from aigate.keeper.db.tables import metadata

_RUNNING = text("status = 'running'")

# `owner_id`: whose it is (core/account.py tenant_of); "" = the account's. `reserved_nanousd`: what is still kept for calls of it that were not sent.
evals = Table(
    "evals",
    metadata,
    text_column("id", primary_key=True),  # eval_…
    text_column("account_id"),
    text_column("owner_id"),
    text_column("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    text_column("name"),
    text_column("metric"),  # quality | cost | speed
    text_column("candidates"),  # JSON list of slugs
    Column("judge_model", Text),
    Column("embedding_model", Text),
    Column("dataset", LargeBinary, nullable=False),  # JSON of core/evals.py Items
    integer_column("dataset_size"),
    text_column("status"),  # running | completed | failed
    text_column("error"),
    Column("winner_model", Text),
    text_column("summary"),  # JSON
    text_column("window"),  # month of what is reserved
    integer_column("reserved_nanousd"),
    integer_column("created_ms"),
    Column("ended_ms", BigInteger),
    Column("used_ms", BigInteger),  # first time that its winner answered as a model
    Index("evals_by_owner", "account_id", "owner_id", "id"),
    Index("evals_running", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
)

# One row an answer, written when it is known. What is missing of a running eval is still to be asked.
eval_results = Table(
    "eval_results",
    metadata,
    text_column("eval_id"),
    integer_column("item"),
    integer_column("candidate"),
    text_column("call_id"),
    text_column("output"),
    text_column("error"),
    Column("score", Float),
    text_column("reason"),
    integer_column("cost_nanousd"),
    integer_column("scoring_nanousd"),
    integer_column("latency_ms"),
    PrimaryKeyConstraint("eval_id", "item", "candidate"),
    sqlite_with_rowid=False,
)
