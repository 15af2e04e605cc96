"""Column for the time of the next revision by a late record."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column; records that have revised verdicts do it no more."""
    op.add_column("late_records", sa.Column("due_ns", sa.BigInteger(), nullable=True, server_default="0"))
    op.execute(sa.text("UPDATE late_records SET due_ns = NULL WHERE revised_ns IS NOT NULL"))
    op.drop_index("ix_late_records_pending", table_name="late_records")
    op.create_index("ix_late_records_due", "late_records", ["due_ns", "stream"])
    op.create_index("ix_late_records_series", "late_records", ["series"], postgresql_using="hash")


def downgrade() -> None:
    """Drop the column."""
    op.drop_index("ix_late_records_series", table_name="late_records")
    op.drop_index("ix_late_records_due", table_name="late_records")
    op.create_index("ix_late_records_pending", "late_records", ["revised_ns", "stream"])
    op.drop_column("late_records", "due_ns")
