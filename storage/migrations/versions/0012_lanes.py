"""Index for the anomalies of a time range, which the lanes of the dashboard show."""

from __future__ import annotations

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index."""
    op.create_index("ix_anomalies_stream_end_ns", "anomalies", ["stream", "end_ns"])


def downgrade() -> None:
    """Drop the index."""
    op.drop_index("ix_anomalies_stream_end_ns", "anomalies")
