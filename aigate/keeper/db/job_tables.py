"""Tables of jobs, their results' signing keys and the idempotency keys of submissions. Owns columns and keys; no queries.

A job's row is the whole truth of it: what was asked, how far it is, where it stands at the provider, what came out. Its money is the
ledger's (`attempt_id`). Times are unix milliseconds.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, PrimaryKeyConstraint, Table, Text, text

from aigate.keeper.db.columns import integer_column, text_column

metadata = MetaData()

_DUE = text("due_ms IS NOT NULL")
_KEPT = text("expires_ms IS NOT NULL")


jobs = Table(
    "jobs",
    metadata,
    text_column("id", primary_key=True),  # job_…
    text_column("account_id"),
    text_column("key_id"),
    Column("sub_account_id", Text),
    Column("tag", Text),
    Column("client_request_id", Text),
    text_column("modality"),
    text_column("asked_model"),
    text_column("model"),  # slug
    text_column("request"),  # JSON of core/job.py JobRequest, as it is sent
    text_column("warnings"),  # the x-aig-warning value
    Column("webhook_url", Text),
    # how far it is
    text_column("stage"),  # keeper/db/jobs.py
    text_column("error_code"),  # "" = none
    text_column("error"),
    Column("progress", Float),
    integer_column("created_ms"),
    integer_column("updated_ms"),
    Column("submitted_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Column("cancelled_ms", BigInteger),  # when its caller wanted it cancelled
    integer_column("deadline_ms"),
    Column("due_ms", BigInteger),  # something is to be done for it then; NULL = nothing
    Column("tries", Integer, nullable=False),  # of the stage that it is in
    text_column("node"),  # that sends, or sent it; "" = none yet
    # at the provider
    text_column("handle"),  # "" = not told yet
    text_column("submit_key"),  # sent as the idempotency key; also names its webhook route
    text_column("polled"),  # JSON of jobdialects Polled that ended it there; "" = still running
    # money
    text_column("attempt_id"),
    text_column("call_id"),
    text_column("price_id"),
    text_column("units"),  # JSON, at most: what the hold stands on
    Column("cost_nanousd", BigInteger),  # NULL = not settled
    # results
    text_column("results"),  # JSON list of keeper/db/jobs.py StoredResult
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
    text_column("account_id"),
    text_column("owner_id"),  # core/account.py tenant_of
    text_column("idempotency_key"),
    Column("digest", LargeBinary, nullable=False),  # of the route and the body
    text_column("job_id"),
    integer_column("created_ms"),
    PrimaryKeyConstraint("account_id", "owner_id", "idempotency_key"),
    Index("job_submissions_by_age", "created_ms"),
)

# What links to results are signed with. The newest signs; older ones are good until they are retired.
signing_keys = Table(
    "signing_keys",
    metadata,
    text_column("id", primary_key=True),  # fk_…, in every link as `k`
    Column("sealed", LargeBinary, nullable=False),
    integer_column("created_ms"),
    Column("retired_ms", BigInteger),  # from then on its links are refused
)
