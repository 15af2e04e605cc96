"""Columns for start, end and readings of a deviation, also in the view."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.sql.views import create_views, drop_views

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_COLUMNS = ("onset_ns", "outside_until_ns", "span_readings")


def upgrade() -> None:
    """Add the columns; anomalies of earlier versions have 0."""
    drop_views(op.get_bind())
    for name in _COLUMNS:
        op.add_column("anomalies", sa.Column(name, sa.BigInteger(), server_default="0", nullable=False))
    create_views(op.get_bind())


def downgrade() -> None:
    """Drop the columns."""
    drop_views(op.get_bind())
    for name in _COLUMNS:
        op.drop_column("anomalies", name)
    create_views(op.get_bind(), of_deviations=False)
