"""The key of detection power holds a hash of the series, because PostgreSQL's ordered indexes refuse long names. Its figures are only measured again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _create(sa.Column("series_key", sa.LargeBinary(), nullable=False))


def downgrade() -> None:
    _create()


def _create(*key: sa.Column[bytes]) -> None:
    op.drop_table("power")
    op.create_table(
        "power",
        sa.Column("stream", sa.Text(), nullable=False),
        *key,
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("channel", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("smallest", sa.Double(), nullable=True),
        sa.Column("delay", sa.Integer(), nullable=True),
        sa.Column("caught", sa.Double(), nullable=False),
        sa.Column("spread", sa.Double(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("found_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(
            "stream", "series_key" if key else "series", "channel", "kind", name=op.f("pk_power")
        ),
    )
