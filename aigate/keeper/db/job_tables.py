"""Tables of jobs, their results' signing keys and the idempotency keys of submissions. Owns columns and keys; no queries.

A job's row is the whole truth of it: what was asked, how far it is, where it stands at the provider, what came out. Its money is the
ledger's (`attempt_id`). Times are unix milliseconds.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text, text

metadata = MetaData()

_DUE = text("due_ms IS NOT NULL")
_KEPT = text("expires_ms IS NOT NULL")


def _text(name: str, **options: object) -> Column:
    return Column(name, Text, nullable=False, **options)


def _integer(name: str, **options: object) -> Column:
    return Column(name, BigInteger, nullable=False, **options)


jobs = Table(
    "jobs",
    metadata,
    _text("id", primary_key=True),  # job_…
    _text("account_id"),
    _text("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("client_request_id", Text),
    _text("modality"),
    _text("asked_model"),
    _text("model"),  # slug
    _text("request"),  # JSON of core/job.py JobRequest, as it is sent
    _text("warnings"),  # the x-aig-warning value
    Column("webhook_url", Text),
    # how far it is
    _text("stage"),  # keeper/db/jobs.py
    _text("error_code"),  # "" = none
    _text("error"),
    Column("progress", Float),
    _integer("created_ms"),
    _integer("updated_ms"),
    Column("submitted_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("cancelled_ms", BigInteger),  # when its caller wanted it cancelled
    _integer("deadline_ms"),
    Column("due_ms", BigInteger),  # something is to be done for it then; NULL = nothing
    Column("tries", Integer, nullable=False),  # of the stage that it is in
    _text("node"),  # that sends, or sent it; "" = none yet
    # at the provider
    _text("handle"),  # "" = not told yet
    _text("submit_key"),  # sent as the idempotency key; also names its webhook route
    _text("polled"),  # JSON of jobdialects Polled that ended it there; "" = still running
    # money
    _text("attempt_id"),
    _text("call_id"),
    _text("price_id"),
    _text("units"),  # JSON, at most: what the hold stands on
    Column("cost_nanousd", BigInteger),  # NULL = not settled
    # results
    _text("results"),  # JSON list of keeper/db/jobs.py StoredResult
    Column("expires_ms", BigInteger),  # when results and request are forgotten; NULL = not ended, or done
    Index("jobs_due", "due_ms", sqlite_where=_DUE, postgresql_where=_DUE),
    Index("jobs_expiring", "expires_ms", sqlite_where=_KEPT, postgresql_where=_KEPT),
    Index("jobs_by_account", "account_id", "created_ms", "id"),
    Index("jobs_by_attempt", "attempt_id"),
)

# The same key with the same body is the same job; a tenant's own.
job_submissions = Table(
    "job_submissions",
    metadata,
    _text("account_id"),
    _text("owner_id"),  # core/account.py keeper_of
    _text("idempotency_key"),
    Column("digest", LargeBinary, nullable=False),  # of the route and the body
    _text("job_id"),
    _integer("created_ms"),
    PrimaryKeyConstraint("account_id", "owner_id", "idempotency_key"),
    Index("job_submissions_by_age", "created_ms"),
)

# What links to results are signed with. The newest signs; older ones are good until they are retired.
signing_keys = Table(
    "signing_keys",
    metadata,
    _text("id", primary_key=True),  # fk_…, in every link as `k`
    Column("sealed", LargeBinary, nullable=False),
    _integer("created_ms"),
    Column("retired_ms", BigInteger),  # from then on its links are refused
)
