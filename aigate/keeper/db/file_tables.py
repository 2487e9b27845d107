"""Tables of uploaded files and of batches, beside the gateway's others. Owns columns and keys; no queries. A change needs a migration.

Bytes are in the blob store under the file's id. A file whose `expires_ms` has passed is not there for anyone: one being uploaded is
written with a day's, one deleted gets the present, and the sweep removes bytes and row.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text, false, text

from aigate.keeper.db.columns import integer_column, text_column
from aigate.keeper.db.tables import metadata

_RUNNING = text("ended_ms IS NULL")


files = Table(
    "files",
    metadata,
    text_column("id", primary_key=True),  # file-…, rising with time
    text_column("account_id"),
    text_column("owner_id"),  # core/account.py tenant_of
    text_column("filename"),
    text_column("purpose"),
    integer_column("size_bytes"),  # -1: is being uploaded
    integer_column("created_ms"),
    Column("expires_ms", BigInteger),
    Index("files_by_owner", "account_id", "owner_id", "id"),
    Index("files_by_expiry", "expires_ms"),
)

batches = Table(
    "batches",
    metadata,
    text_column("id", primary_key=True),  # batch_…, rising with time
    text_column("account_id"),
    text_column("owner_id"),  # core/account.py tenant_of
    text_column("key_id"),  # whom its calls are made for
    Column("tag", Text),
    text_column("endpoint"),
    text_column("input_file_id"),
    Column("output_expires_s", BigInteger),
    text_column("metadata"),  # JSON object
    Column("webhook_url", Text),
    text_column("status"),  # core/batch.py
    text_column("ends_as"),  # the status to come, from finalizing on
    text_column("errors"),  # JSON list
    integer_column("total"),
    integer_column("completed"),
    integer_column("failed"),
    Column("is_divided", Boolean, nullable=False, server_default=false()),  # which of its lines go to providers' own batches is settled
    integer_column("fence"),  # of its last checkpoint: no line from this number on has been sent
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("usage", Text),  # JSON of what its calls used and cost, once it has ended
    integer_column("created_ms"),
    integer_column("expires_ms"),
    Column("in_progress_ms", BigInteger),
    Column("cancelling_ms", BigInteger),
    Column("finalizing_ms", BigInteger),
    Column("ended_ms", BigInteger),
    Index("batches_by_owner", "account_id", "owner_id", "id"),
    Index("batches_running", "id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
    Index("batches_by_input", "input_file_id", sqlite_where=_RUNNING, postgresql_where=_RUNNING),
)

# Lines that are sent to a provider's own batch endpoint together.
native_parts = Table(
    "native_parts",
    metadata,
    text_column("id", primary_key=True),  # part_…
    text_column("batch_id", index=True),
    text_column("slug"),  # of their model
    text_column("lines"),  # JSON list of numbers
    text_column("state"),  # db/native_parts.py
    text_column("uploaded"),
    text_column("handle"),
    integer_column("created_ms"),
)
