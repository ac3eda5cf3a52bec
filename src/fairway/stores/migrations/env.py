"""Runs migrations on the connection that `stores/migrate.py` gives, inside its transaction.

A developer's own `alembic` command has no such connection: use `fairway.stores.migrate.config`.
"""

from __future__ import annotations

from alembic import context

from fairway.stores import schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    version_table=schema.VERSION_TABLE,
)
context.run_migrations()
