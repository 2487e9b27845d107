"""Tables of evals. Owns their columns and keys; no queries. A change here needs a migration beside it."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, LargeBinary, PrimaryKeyConstraint, Table, Text, text

from aigate.keeper.db.tables import metadata

_RUNNING = text("status = 'running'")

# `owner_id`: whose it is (core/account.py keeper_of); "" = the account's. `reserved_nanousd`: what is still kept for calls of it that were not sent.
evals = Table(
    "evals",
    metadata,
    Column("id", Text, primary_key=True),  # eval_…
    Column("account_id", Text, nullable=False),
    Column("owner_id", Text, nullable=False),
    Column("key_id", Text, nullable=False),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("name", Text, nullable=False),
    Column("metric", Text, nullable=False),  # quality | cost | speed
    Column("candidates", Text, nullable=False),  # JSON list of slugs
    Column("judge_model", Text),
    Column("embedding_model", Text),
    Column("dataset", LargeBinary, nullable=False),  # JSON of core/evals.py Items
    Column("dataset_size", BigInteger, nullable=False),
    Column("status", Text, nullable=False),  # running | completed | failed
    Column("error", Text, nullable=False),
    Column("winner_model", Text),
    Column("summary", Text, nullable=False),  # JSON
    Column("window", Text, nullable=False),  # month of what is reserved
    Column("reserved_nanousd", BigInteger, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("used_ms", BigInteger),  # first time that its winner answered as a model
    Index("evals_by_owner", "account_id", "owner_id", "id"),
    Index("evals_running", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
)

# One row an answer, written when it is known. What is missing of a running eval is still to be asked.
eval_results = Table(
    "eval_results",
    metadata,
    Column("eval_id", Text, nullable=False),
    Column("item", BigInteger, nullable=False),
    Column("candidate", BigInteger, nullable=False),
    Column("call_id", Text, nullable=False),
    Column("output", Text, nullable=False),
    Column("error", Text, nullable=False),
    Column("score", Float),
    Column("reason", Text, nullable=False),
    Column("cost_nanousd", BigInteger, nullable=False),
    Column("scoring_nanousd", BigInteger, nullable=False),
    Column("latency_ms", BigInteger, nullable=False),
    PrimaryKeyConstraint("eval_id", "item", "candidate"),
    sqlite_with_rowid=False,
)
