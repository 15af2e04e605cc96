"""Owner, heartbeat and partitions of a fault; the commit time of the first event of an alert.

Processes of version 0.1 keep working: their rows take the defaults, an empty owner and no partitions.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from storage.sql.column_types import Json

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_IDENTITY = ["stream", "kind", "topic", "partition"]


def upgrade() -> None:
    op.add_column("faults", sa.Column("owner", sa.Text(), server_default="", nullable=False))
    op.add_column("faults", sa.Column("beat", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("faults", sa.Column("partitions", Json, nullable=True))
    op.add_column("alerts", sa.Column("committed_ns", sa.BigInteger(), nullable=True))
    _index([*_IDENTITY, "owner"], [*_IDENTITY, "started_ns", "owner"])


def downgrade() -> None:
    _keep_one_open_fault()
    _index(_IDENTITY, [*_IDENTITY, "started_ns"])
    op.drop_column("alerts", "committed_ns")
    for name in ("partitions", "beat", "owner"):
        op.drop_column("faults", name)


def _index(while_open: list[str], started: list[str]) -> None:
    op.drop_index("uq_faults_open", "faults")
    op.drop_index("uq_faults_started_ns", "faults")
    ended = sa.text("ended_ns IS NULL")
    op.create_index(
        "uq_faults_open", "faults", while_open, unique=True, postgresql_where=ended, sqlite_where=ended
    )
    op.create_index("uq_faults_started_ns", "faults", started, unique=True)


def _keep_one_open_fault() -> None:
    """Delete rows that only the owner distinguishes: the earlier indexes allow one of them."""
    kept = "SELECT min(id) FROM faults GROUP BY stream, kind, topic, partition, started_ns"
    op.execute(f"DELETE FROM faults WHERE id NOT IN ({kept})")
    kept = "SELECT min(id) FROM faults WHERE ended_ns IS NULL GROUP BY stream, kind, topic, partition"
    op.execute(f"DELETE FROM faults WHERE ended_ns IS NULL AND id NOT IN ({kept})")
