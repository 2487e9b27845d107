"""Money: sub-accounts, budgets, leases, events, and sums by day; what the ledger already holds is summed into them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_RATES = ("rate_limit_rpm", "rate_limit_tpm", "max_streams")
_SUMS = ("requests", "attempts", "cost_nanousd", "input_tokens", "output_tokens")


def _text(name: str, **options: object) -> sa.Column:
    return sa.Column(name, sa.Text, nullable=False, **options)


def _integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger, nullable=False)


def _maybe_text(name: str) -> sa.Column:
    return sa.Column(name, sa.Text)


def _maybe_integer(name: str) -> sa.Column:
    return sa.Column(name, sa.BigInteger)


def _index(name: str, table: str, columns: list[str], *, where: str | None = None, unique: bool = False) -> None:
    condition = None if where is None else sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)


def upgrade() -> None:
    _extend_access_tables()
    _create_sub_accounts()
    _create_budgets()
    _create_leases()
    _create_sums()
    _sum_up_ledger()


def _extend_access_tables() -> None:
    for name in _RATES:
        op.add_column("accounts", _maybe_integer(name))
        op.add_column("keys", _maybe_integer(name))
    with op.batch_alter_table("keys") as keys:
        keys.add_column(sa.Column("next_digest", sa.LargeBinary))
        keys.add_column(_maybe_text("next_hint"))
        keys.create_unique_constraint("keys_next_digest_key", ["next_digest"])
    op.create_index("keys_by_sub_account", "keys", ["sub_account_id"])
    op.create_table(
        "provider_keys",
        _text("id", primary_key=True),
        _text("account_id"),
        _maybe_text("sub_account_id"),
        _text("provider"),
        _text("origin"),
        _text("name"),
        _text("hint"),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        _integer("created_ms"),
        _maybe_integer("revoked_ms"),
    )
    op.create_index("ix_provider_keys_account_id", "provider_keys", ["account_id"])


def _create_sub_accounts() -> None:
    op.create_table(
        "sub_accounts",
        _text("id", primary_key=True),
        _text("account_id"),
        _text("name"),
        _maybe_text("external_ref"),
        _maybe_text("default_tag"),
        _text("allowed_models"),
        *[_maybe_integer(name) for name in _RATES],
        _integer("created_ms"),
        _maybe_integer("deleted_ms"),
    )
    _index("sub_accounts_by_name", "sub_accounts", ["account_id", "name"], where="deleted_ms IS NULL", unique=True)
    _index("sub_accounts_by_ref", "sub_accounts", ["account_id", "external_ref"], where="deleted_ms IS NULL", unique=True)


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True),
        _text("scope"),
        _text("account_id"),
        _text("owner_id"),
        _maybe_integer("limit_nanousd"),
        _text("window_kind"),
        _text("mode"),
        _integer("version"),
        _integer("created_ms"),
        _maybe_integer("deleted_ms"),
    )
    _index("budgets_by_owner", "budgets", ["scope", "account_id", "owner_id"], unique=True)
    _index("budgets_changed", "budgets", ["version"], where="version > 0")
    op.create_table(
        "windows",
        _integer("budget_id"),
        _text("window"),
        _integer("spent_nanousd"),
        _integer("reserved_nanousd"),
        _integer("leased_nanousd"),
        _integer("requests"),
        _integer("attempts"),
        _integer("input_tokens"),
        _integer("output_tokens"),
        sa.PrimaryKeyConstraint("budget_id", "window"),
        sqlite_with_rowid=False,
    )


def _create_leases() -> None:
    op.create_table(
        "leases",
        _text("journal_id"),
        _integer("budget_id"),
        _text("window"),
        _integer("amount_nanousd"),
        sa.PrimaryKeyConstraint("journal_id", "budget_id", "window"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "grants",
        _text("journal_id"),
        _integer("number"),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("journal_id", "number"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "outbox",
        _text("id", primary_key=True),
        _text("type"),
        _text("account_id"),
        _text("payload"),
        _text("cause", unique=True),
        _integer("created_ms"),
        _maybe_integer("delivered_ms"),
    )
    _index("outbox_waiting", "outbox", ["created_ms"], where="delivered_ms IS NULL")


def _create_sums() -> None:
    _index("attempts_reserved", "attempts", ["attempt_id"], where="reserved_nanousd > 0")
    op.create_index("usage_totals_by_sub_account", "usage_totals", ["month", "account_id", "sub_account_id"])
    op.create_table(
        "usage_days",
        _text("account_id"),
        _text("owner_id"),
        _text("month"),
        _text("day"),
        _text("model"),
        *[_integer(name) for name in _SUMS],
        sa.PrimaryKeyConstraint("account_id", "owner_id", "month", "day", "model"),
        sqlite_with_rowid=False,
    )
    op.execute("INSERT INTO meta (name, value) VALUES ('grant_seq', '0'), ('limits_version', '1'), ('kept_month', '')")


# --- what the ledger already holds -----------------------------------------------------------------------------------------------


def _sum_up_ledger() -> None:
    owners = (
        ("account", "account_id", "all"),
        ("sub_account", "sub_account_id", "month"),
        ("key", "key_id", "month"),
        ("tag", "tag", "month"),
    )
    for scope, column, kind in owners:
        window = "'all'" if kind == "all" else "t.month"
        op.execute(
            f"""INSERT INTO budgets (scope, account_id, owner_id, limit_nanousd, window_kind, mode, version, created_ms, deleted_ms)
            SELECT DISTINCT '{scope}', account_id, {column}, CAST(NULL AS BIGINT), '{kind}', 'clamp', 0, 0, CAST(NULL AS BIGINT)
            FROM usage_totals"""
        )
        op.execute(
            f"""INSERT INTO windows (budget_id, "window", spent_nanousd, reserved_nanousd, leased_nanousd, requests, attempts,
                input_tokens, output_tokens)
            SELECT b.id, {window}, sum(t.cost_nanousd), 0, 0, sum(t.requests), sum(t.attempts), sum(t.input_tokens), sum(t.output_tokens)
           FROM usage_totals t JOIN budgets b ON b.scope = '{scope}' AND b.account_id = t.account_id AND b.owner_id = t.{column}
            GROUP BY 1, 2"""
        )
        op.execute(
            f"""UPDATE windows SET reserved_nanousd = (
                SELECT coalesce(sum(a.reserved_nanousd), 0) FROM attempts a JOIN budgets b ON b.id = windows.budget_id
                WHERE a.reserved_nanousd > 0 AND b.account_id = a.account_id AND b.owner_id = coalesce(a.{column}, '')
                AND (windows."window" = 'all' OR windows."window" = {_month("a.sent_ms")}))
            WHERE budget_id IN (SELECT id FROM budgets WHERE scope = '{scope}')"""
        )
    for owner in ("''", "key_id", "sub_account_id"):
        _sum_up_days(owner)


def _sum_up_days(owner: str) -> None:
    sums = {
        "calls": ("started_ms", "served_by", "count(*), 0, 0, 0, 0"),
        "attempts": ("sent_ms", "model", "0, count(*), sum(cost_nanousd), sum(input_tokens), sum(output_tokens)"),
    }
    for table, (at, model, values) in sums.items():
        grown = ", ".join(f"{name} = usage_days.{name} + excluded.{name}" for name in _SUMS)
        op.execute(
            f"""INSERT INTO usage_days (account_id, owner_id, month, day, model, {", ".join(_SUMS)})
            SELECT account_id, {owner}, {_month(at)}, {_day(at)}, {model}, {values} FROM {table}
            WHERE {owner} IS NOT NULL GROUP BY 1, 2, 3, 4, 5
            ON CONFLICT (account_id, owner_id, month, day, model) DO UPDATE SET {grown}"""
        )


def _month(column: str) -> str:
    if op.get_bind().dialect.name == "sqlite":
        return f"strftime('%Y-%m', {column} / 1000, 'unixepoch')"
    return f"to_char(to_timestamp({column} / 1000) AT TIME ZONE 'UTC', 'YYYY-MM')"


def _day(column: str) -> str:
    if op.get_bind().dialect.name == "sqlite":
        return f"strftime('%Y-%m-%d', {column} / 1000, 'unixepoch')"
    return f"to_char(to_timestamp({column} / 1000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
