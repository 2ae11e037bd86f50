"""What alembic runs to migrate a store: on the connection it is given, which has begun a transaction."""

from __future__ import annotations

from alembic import context

from llmops.stores.tables import METADATA

context.configure(
    connection=context.config.attributes["connection"], target_metadata=METADATA, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
