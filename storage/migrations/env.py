"""Alembic's entry: always on the connection, and in the transaction, that ``storage.sql.migrate`` hands over."""

from __future__ import annotations

from alembic import context

from storage.sql.migrate import VERSION_TABLE
from storage.tables import access, alerting, models  # noqa: F401  their tables are part of the metadata
from storage.tables.stream import Base

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=connection.dialect.name == "sqlite",
)
context.run_migrations()
