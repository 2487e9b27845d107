"""Media jobs, the idempotency keys of their submissions, the keys that links to their results are signed with."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_DUE = sa.text("due_ms IS NOT NULL")
_KEPT = sa.text("expires_ms IS NOT NULL")


def _text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def upgrade() -> None:
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text, primary_key=True),
        *map(_text, ("account_id", "key_id")),
        *(sa.Column(name, sa.Text) for name in ("sub_account_id", "tag", "client_request_id")),
        *map(_text, ("modality", "asked_model", "model", "request", "warnings")),
        sa.Column("webhook_url", sa.Text),
        *map(_text, ("stage", "error_code", "error")),
        sa.Column("progress", sa.Float),
        *map(_integer, ("created_ms", "updated_ms")),
        *(sa.Column(name, sa.BigInteger) for name in ("submitted_ms", "ended_ms", "cancelled_ms")),
        _integer("deadline_ms"),
        sa.Column("due_ms", sa.BigInteger),
        sa.Column("tries", sa.Integer, nullable=False),
        _text("node"),
        *map(_text, ("handle", "submit_key", "polled", "attempt_id", "call_id", "price_id", "units")),
        sa.Column("cost_nanousd", sa.BigInteger),
        _text("results"),
        sa.Column("expires_ms", sa.BigInteger),
    )
    op.create_index("jobs_due", "jobs", ["due_ms"], sqlite_where=_DUE, postgresql_where=_DUE)
    op.create_index("jobs_expiring", "jobs", ["expires_ms"], sqlite_where=_KEPT, postgresql_where=_KEPT)
    op.create_index("jobs_by_account", "jobs", ["account_id", "created_ms", "id"])
    op.create_index("jobs_by_attempt", "jobs", ["attempt_id"])
    op.create_table(
        "job_submissions",
        *map(_text, ("account_id", "owner_id", "idempotency_key")),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        _text("job_id"),
        _integer("created_ms"),
        sa.PrimaryKeyConstraint("account_id", "owner_id", "idempotency_key"),
    )
    op.create_index("job_submissions_by_age", "job_submissions", ["created_ms"])
    op.create_table(
        "signing_keys",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _integer("created_ms"),
        sa.Column("retired_ms", sa.BigInteger),
    )
