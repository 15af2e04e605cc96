"""Tables of backfills on a cluster: parts, and the anomalies that they found."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.sql.column_types import SafeJson

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.create_table(
        "backfill_shards",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("first_late_id", sa.BigInteger(), nullable=False),
        sa.Column("counts", SafeJson(), nullable=False),
        sa.Column("anomalies", sa.BigInteger(), nullable=False),
        sa.Column("series", sa.BigInteger(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("done_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("run", "shard", name="pk_backfill_shards"),
    )
    op.create_index("ix_backfill_shards_created_ns", "backfill_shards", ["created_ns"])
    op.create_table(
        "backfill_anomalies",
        sa.Column("run", sa.Text(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("anomaly", sa.Uuid(), nullable=False),
        sa.PrimaryKeyConstraint("run", "shard", "anomaly", name="pk_backfill_anomalies"),
    )


def downgrade() -> None:
    """Drop the tables."""
    op.drop_table("backfill_anomalies")
    op.drop_table("backfill_shards")
