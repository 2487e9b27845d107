"""Replays and shadows of archived calls, and how long whose bodies are kept."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    for table in ("accounts", "keys", "sub_accounts"):
        op.add_column(table, sa.Column("archive_days", sa.BigInteger))
    op.create_table(
        "replays",
        sa.Column("id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("account_id", "owner_id", "key_id")],
        *[sa.Column(name, sa.Text) for name in ("sub_account_id", "tag", "shadow_id")],
        *[sa.Column(name, sa.Text, nullable=False) for name in ("source_request_id", "source_model", "target_model", "call_id", "status", "error")],
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("source_started_ms", "source_cost_nanousd", "source_latency_ms")],
        *[sa.Column(name, sa.BigInteger) for name in ("target_cost_nanousd", "target_latency_ms")],
        sa.Column("score", sa.Float),
        *[sa.Column(name, sa.Text) for name in ("source_output", "target_output")],
        sa.Column("diff", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        sa.Column("ended_ms", sa.BigInteger),
    )
    is_running = sa.text("status = 'running'")
    op.create_index("replays_by_owner", "replays", ["account_id", "owner_id", "id"])
    op.create_index("replays_running", "replays", ["id"], sqlite_where=is_running, postgresql_where=is_running)
    op.create_index("replays_of_shadow", "replays", ["shadow_id", "source_request_id"], unique=True)
    op.create_table(
        "shadows",
        sa.Column("id", sa.Text, primary_key=True),
        *[sa.Column(name, sa.Text, nullable=False) for name in ("account_id", "owner_id", "key_id", "watched_key_id", "target_model")],
        *[sa.Column(name, sa.Text) for name in ("sub_account_id", "tag")],
        sa.Column("share", sa.Float, nullable=False),
        *[sa.Column(name, sa.BigInteger, nullable=False) for name in ("max_calls", "mirrored", "dropped", "created_ms", "until_ms")],
        sa.Column("stopped_ms", sa.BigInteger),
    )
