"""View of anomalies for people and their SQL tools."""

from __future__ import annotations

from alembic import op

from storage.sql.views import create_views, drop_views

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the view."""
    drop_views(op.get_bind())
    create_views(op.get_bind(), of_deviations=False)


def downgrade() -> None:
    """Drop the view."""
    drop_views(op.get_bind())
