"""Run by the migration library for each upgrade: works on the connection, and inside the transaction, that `run.upgrade` handed over."""

from alembic import context

from aigate.keeper.db.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
