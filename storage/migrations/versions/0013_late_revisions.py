"""Column for late records that have revised the verdicts of their series."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; records that are there count as revised."""
    op.add_column("late_records", sa.Column("revised_ns", sa.BigInteger(), nullable=True))
    op.execute(sa.text("UPDATE late_records SET revised_ns = created_ns"))
    op.create_index("ix_late_records_pending", "late_records", ["revised_ns", "stream"])


def downgrade() -> None:
    """Drop the column."""
    op.drop_index("ix_late_records_pending", table_name="late_records")
    op.drop_column("late_records", "revised_ns")
