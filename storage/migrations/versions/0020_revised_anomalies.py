"""Column for the time at which late points changed an anomaly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; of anomalies of earlier versions it is not known."""
    op.add_column("anomalies", sa.Column("revised_ns", sa.BigInteger(), server_default="0", nullable=False))


def downgrade() -> None:
    """Drop the column."""
    op.drop_column("anomalies", "revised_ns")
