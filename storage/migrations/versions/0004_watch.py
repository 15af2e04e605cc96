"""State of the monitors: detection power by series, and the drift monitor."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "power",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("smallest", sa.Double(), nullable=True),
        sa.Column("delay", sa.Integer(), nullable=True),
        sa.Column("caught", sa.Double(), nullable=False),
        sa.Column("spread", sa.Double(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("found_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "series", "channel", "kind", name=op.f("pk_power")),
    )
    op.create_table(
        "drift_states",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("quiet_until_ns", sa.BigInteger(), nullable=True),
        sa.Column("saved_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "topic", "partition", name=op.f("pk_drift_states")),
    )


def downgrade() -> None:
    op.drop_table("drift_states")
    op.drop_table("power")
