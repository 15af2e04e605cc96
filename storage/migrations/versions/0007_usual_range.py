"""Size of the deviation of an anomaly, and what continues an open one under the decision "usual_range"."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

#: Column → type and default of rows that exist.
_COLUMNS: dict[str, tuple[sa.types.TypeEngine[Any], str]] = {
    "ratio": (sa.Double(), "0"),
    "every_ns": (sa.BigInteger(), "0"),
    "first_flag_seq": (sa.BigInteger(), "-1"),
    "told_seq": (sa.BigInteger(), "-1"),
}


def upgrade() -> None:
    for name, (kind, default) in _COLUMNS.items():
        op.add_column("anomalies", sa.Column(name, kind, server_default=default, nullable=False))


def downgrade() -> None:
    for name in reversed(_COLUMNS):
        op.drop_column("anomalies", name)
