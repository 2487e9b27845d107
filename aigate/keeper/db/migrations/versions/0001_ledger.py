"""The first schema: accounts, keys, ledger, prices, journals."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def _text(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False, **options)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _flag(name: str) -> sa.Column:
    return sa.Column(name, sa.Boolean, nullable=False)


def _maybe_text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text)


def _maybe_integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger)


def upgrade() -> None:
    _create_access_tables()
    _create_attempts()
    _create_calls()
    _create_ledger_support()


def _create_access_tables() -> None:
    op.create_table("accounts", _text("id", primary_key=True), _text("name"), _integer("created_ms"))
    op.create_table(
        "keys",
        _text("id", primary_key=True),
        _text("account_id"),
        _maybe_text("sub_account_id"),
        _text("name"),
        sa.Column("digest", sa.LargeBinary, nullable=False, unique=True),
        _text("hint"),
        _integer("created_ms"),
        _maybe_integer("expires_ms"),
        _maybe_integer("revoked_ms"),
        _text("allowed_models", server_default="[]"),
        _maybe_text("default_tag"),
        _flag("is_admin"),
    )
    op.create_index("ix_keys_account_id", "keys", ["account_id"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
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
        _maybe_text("sub_account_id"),
        _maybe_text("tag"),
        _text("window"),
        _text("leases"),
        _flag("is_stream"),
        _text("end"),
        _text("usage_source"),
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
        sa.Column("raw_usage", sa.LargeBinary, nullable=False),
        _integer("reserved_nanousd"),
        sa.PrimaryKeyConstraint("call_id", "attempt_id"),
        sqlite_with_rowid=False,
    )


def _create_calls() -> None:
    op.create_table(
        "calls",
        _text("call_id", primary_key=True),
        _text("surface"),
        _text("endpoint"),
        _text("asked_model"),
        _text("served_by"),
        _integer("status"),
        _integer("started_ms"),
        _integer("latency_ms"),
        _integer("ttft_ms"),
        _flag("is_stream"),
        _integer("attempts"),
        _integer("cost_nanousd"),
        _text("account_id"),
        _text("key_id"),
        _maybe_text("sub_account_id"),
        _maybe_text("tag"),
        _maybe_text("client_request_id"),
        _text("error_code"),
        _text("warnings"),
        sqlite_with_rowid=False,
    )
    op.create_index("calls_by_start", "calls", ["started_ms", "call_id"])


def _create_ledger_support() -> None:
    op.create_table(
        "usage_totals",
        _text("month"),
        _text("account_id"),
        _text("key_id"),
        _text("sub_account_id"),
        _text("tag"),
        _integer("requests"),
        _integer("attempts"),
        _integer("cost_nanousd"),
        _integer("input_tokens"),
        _integer("output_tokens"),
        sa.PrimaryKeyConstraint("month", "account_id", "key_id", "sub_account_id", "tag"),
        sqlite_with_rowid=False,
    )
    op.create_table("prices", _text("id", primary_key=True), _text("content"), _integer("created_ms"))
    op.create_table(
        "journals",
        _text("id", primary_key=True),
        _text("node"),
        _integer("created_ms"),
        _integer("shipped_segment"),
        _integer("shipped_offset"),
        _integer("replay_segment"),
        _integer("replay_offset"),
        _maybe_integer("sealed_ms"),
        _text("damage"),
    )
    op.create_table("meta", _text("name", primary_key=True), _text("value"))
