"""The cause at the peak of an anomaly."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("anomalies", sa.Column("evidence", sa.Text(), server_default="none", nullable=False))


def downgrade() -> None:
    op.drop_column("anomalies", "evidence")
