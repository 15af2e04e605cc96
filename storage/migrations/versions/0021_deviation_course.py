"""Column for how a deviation went, beside its peak."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.sql.column_types import Json

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; anomalies of earlier versions have none."""
    op.add_column("anomalies", sa.Column("course", Json, nullable=True))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("anomalies", "course")
