"""Secrets, endpoints and deliveries of webhooks; events name their owner, their subject and a URL of their own."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_PENDING = sa.text("status = 'pending'")


def _text(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False, **options)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _owner() -> list[sa.Column]:
    return [_text("account_id"), sa.Column("sub_account_id", sa.Text), sa.Column("key_id", sa.Text)]


def upgrade() -> None:
    for name in ("sub_account_id", "key_id", "url"):
        op.add_column("outbox", sa.Column(name, sa.Text))
    op.add_column("outbox", _text("subject", server_default=""))
    op.create_table(
        "webhook_secrets",
        _text("owner_id", primary_key=True),
        _text("account_id"),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _integer("created_ms"),
        sa.Column("previous", sa.LargeBinary),
        sa.Column("previous_until_ms", sa.BigInteger),
    )
    op.create_table(
        "webhook_endpoints",
        _text("id", primary_key=True),
        *_owner(),
        _text("url"),
        _text("events"),
        _text("description"),
        _integer("created_ms"),
        sa.Column("disabled_ms", sa.BigInteger),
    )
    op.create_index("webhook_endpoints_by_account", "webhook_endpoints", ["account_id", "id"])
    _create_deliveries()


def _create_deliveries() -> None:
    op.create_table(
        "webhook_deliveries",
        sa.Column("number", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _text("id", unique=True),
        _text("event_id"),
        _text("event_type"),
        *_owner(),
        sa.Column("endpoint_id", sa.Text),
        _text("url"),
        _text("host"),
        _text("lane"),
        _text("subject"),
        _text("body"),
        _text("status"),
        _integer("attempts"),
        _integer("round"),
        _text("tries"),
        sa.Column("due_ms", sa.BigInteger),
        _integer("created_ms"),
        sa.Column("ended_ms", sa.BigInteger),
    )
    for name, columns in (("due", ["due_ms"]), ("lanes", ["lane", "number"])):
        op.create_index(f"webhook_deliveries_{name}", "webhook_deliveries", columns, sqlite_where=_PENDING, postgresql_where=_PENDING)
    op.create_index("webhook_deliveries_by_account", "webhook_deliveries", ["account_id", "number"])
    op.create_index("webhook_deliveries_by_age", "webhook_deliveries", ["created_ms"])
