"""Column for the reason why an anomaly is closed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; rows of earlier versions have no reason."""
    op.add_column("anomalies", sa.Column("end_reason", sa.Text(), server_default="", nullable=False))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("anomalies", "end_reason")
