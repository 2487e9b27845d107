"""Evals, their items and results."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.create_table(
        "evals",
        sa.Column("id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("account_id", "owner_id", "key_id")],
        *[sa.Column(name, sa.Text) for name in ("sub_account_id", "tag")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("name", "metric", "candidates")],
        *[sa.Column(name, sa.Text) for name in ("judge_model", "embedding_model")],
        sa.Column("dataset", sa.LargeBinary, nullable=False),
        sa.Column("dataset_size", sa.BigInteger, nullable=False),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("status", "error")],
        sa.Column("winner_model", sa.Text),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("summary", "window")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("reserved_nanousd", "created_ms")],
        *[sa.Column(name, sa.BigInteger) for name in ("ended_ms", "used_ms")],
    )
    is_running = sa.text("status = 'running'")
    op.create_index("evals_by_owner", "evals", ["account_id", "owner_id", "id"])
    op.create_index("evals_running", "evals", ["id"], sqlite_where=is_running, postgresql_where=is_running)
    op.create_table(
        "eval_results",
        sa.Column("eval_id", sa.Text, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("item", "candidate")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("call_id", "output", "error")],
        sa.Column("score", sa.Float),
        sa.Column("reason", sa.Text, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("cost_nanousd", "scoring_nanousd", "latency_ms")],
        sa.PrimaryKeyConstraint("eval_id", "item", "candidate"),
        sqlite_with_rowid=False,
    )
