"""Uploaded files, batches."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def _text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    op.create_table(
        "files",
        sa.Column("id", sa.Text, primary_key=True),
        _text("account_id"),
        _text("owner_id"),
        _text("filename"),
        _text("purpose"),
        _integer("size_bytes"),
        _integer("created_ms"),
        sa.Column("expires_ms", sa.BigInteger),
    )
    op.create_index("files_by_owner", "files", ["account_id", "owner_id", "id"])
    op.create_index("files_by_expiry", "files", ["expires_ms"])
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, primary_key=True),
        _text("account_id"),
        _text("owner_id"),
        _text("key_id"),
        sa.Column("tag", sa.Text),
        _text("endpoint"),
        _text("input_file_id"),
        sa.Column("output_expires_s", sa.BigInteger),
        _text("metadata"),
        sa.Column("webhook_url", sa.Text),
        _text("status"),
        _text("ends_as"),
        _text("errors"),
        _integer("total"),
        _integer("completed"),
        _integer("failed"),
        sa.Column("is_divided", sa.Boolean, nullable=False, server_default=sa.false()),
        _integer("fence"),
        sa.Column("output_file_id", sa.Text),
        sa.Column("error_file_id", sa.Text),
        sa.Column("usage", sa.Text),
        _integer("created_ms"),
        _integer("expires_ms"),
        sa.Column("in_progress_ms", sa.BigInteger),
        sa.Column("cancelling_ms", sa.BigInteger),
        sa.Column("finalizing_ms", sa.BigInteger),
        sa.Column("ended_ms", sa.BigInteger),
    )
    op.create_index("batches_by_owner", "batches", ["account_id", "owner_id", "id"])
    running = sa.text("ended_ms IS NULL")
    op.create_index("batches_running", "batches", ["id"], sqlite_where=running, postgresql_where=running)
    op.create_index("batches_by_input", "batches", ["input_file_id"], sqlite_where=running, postgresql_where=running)
    op.create_table(
        "native_parts",
        sa.Column("id", sa.Text, primary_key=True),
        _text("batch_id"),
        _text("slug"),
        _text("lines"),
        _text("state"),
        _text("uploaded"),
        _text("handle"),
        _integer("created_ms"),
    )
    op.create_index("ix_native_parts_batch_id", "native_parts", ["batch_id"])
