"""Tables of uploaded files and of batches, beside the gateway's others. Owns columns and keys; no queries. A change needs a migration.

Bytes are in the blob store under the file's id. A file whose `expires_ms` has passed is not there for anyone: one being uploaded is
written with a day's, one deleted gets the present, and the sweep removes bytes and row.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, Index, Table, Text, false, text

from aigate.keeper.db.tables import metadata

_RUNNING = text("ended_ms IS NULL")


def _text(name: str, **options: object) -> Column:
    return Column(name, Text, nullable=False, **options)


def _integer(name: str) -> Column:
    return Column(name, BigInteger, nullable=False)


files = Table(
    "files",
    metadata,
    _text("id", primary_key=True),  # file-…, rising with time
    _text("account_id"),
    _text("owner_id"),  # core/account.py keeper_of
    _text("filename"),
    _text("purpose"),
    _integer("size_bytes"),  # -1: is being uploaded
    _integer("created_ms"),
    Column("expires_ms", BigInteger),
    Index("files_by_owner", "account_id", "owner_id", "id"),
    Index("files_by_expiry", "expires_ms"),
)

batches = Table(
    "batches",
    metadata,
    _text("id", primary_key=True),  # batch_…, rising with time
    _text("account_id"),
    _text("owner_id"),  # core/account.py keeper_of
    _text("key_id"),  # whom its calls are made for
    Column("tag", Text),
    _text("endpoint"),
    _text("input_file_id"),
    Column("output_expires_s", BigInteger),
    _text("metadata"),  # JSON object
    Column("webhook_url", Text),
    _text("status"),  # core/batch.py
    _text("ends_as"),  # the status to come, from finalizing on
    _text("errors"),  # JSON list
    _integer("total"),
    _integer("completed"),
    _integer("failed"),
    Column("is_divided", Boolean, nullable=False, server_default=false()),  # which of its lines go to providers' own batches is settled
    _integer("fence"),  # of its last checkpoint: no line from this number on has been sent
    Column("output_file_id", Text),
    Column("error_file_id", Text),
    Column("usage", Text),  # JSON of what its calls used and cost, once it has ended
    _integer("created_ms"),
    _integer("expires_ms"),
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
    _text("id", primary_key=True),  # part_…
    _text("batch_id", index=True),
    _text("slug"),  # of their model
    _text("lines"),  # JSON list of numbers
    _text("state"),  # db/native_parts.py
    _text("uploaded"),
    _text("handle"),
    _integer("created_ms"),
)
