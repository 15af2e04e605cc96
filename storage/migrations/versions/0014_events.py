"""Column for the event of an anomaly in a stream of events."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.sql.column_types import Json

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column."""
    op.add_column("anomalies", sa.Column("event", Json, nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("anomalies", "event")
