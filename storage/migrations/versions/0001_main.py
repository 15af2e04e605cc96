"""The tables of the main job: positions, state, anomalies, what could not be scored, and faults."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _positions()
    _snapshots()
    _snapshot_pages()
    _series_states()
    _anomalies()
    _dead_letters()
    _late_records()
    _faults()
    if op.get_bind().dialect.name == "postgresql":
        # Pages are float arrays, or already compressed: trying to compress them again costs more than writing them.
        for table, column in (("snapshot_pages", "data"), ("series_states", "state")):
            op.execute(f"ALTER TABLE {table} ALTER COLUMN {column} SET STORAGE EXTERNAL")


def downgrade() -> None:
    for table in (
        "faults",
        "late_records",
        "dead_letters",
        "anomalies",
        "series_states",
        "snapshot_pages",
        "snapshots",
        "positions",
    ):
        op.drop_table(table)


def _positions() -> None:
    op.create_table(
        "positions",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("epoch", sa.BigInteger(), nullable=False),
        sa.Column("commits", sa.BigInteger(), nullable=False),
        sa.Column("next_offset", sa.BigInteger(), nullable=True),
        sa.Column("start_offset", sa.BigInteger(), nullable=True),
        sa.Column("identity", sa.Text(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("scored", sa.BigInteger(), nullable=False),
        sa.Column("late", sa.BigInteger(), nullable=False),
        sa.Column("duplicate", sa.BigInteger(), nullable=False),
        sa.Column("dead_lettered", sa.BigInteger(), nullable=False),
        sa.Column("filtered", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("watermark_ns", sa.BigInteger(), nullable=True),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "topic", "partition", name="pk_positions"),
    )


def _snapshots() -> None:
    op.create_table(
        "snapshots",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("snapshot_offset", sa.BigInteger(), nullable=False),
        sa.Column("state_version", sa.Text(), nullable=False),
        sa.Column("meta", JSON, nullable=False),
        sa.Column("pages", sa.Integer(), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "topic", "partition", name="pk_snapshots"),
    )


def _snapshot_pages() -> None:
    op.create_table(
        "snapshot_pages",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("page", sa.Integer(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "topic", "partition", "page", name="pk_snapshot_pages"),
    )


def _series_states() -> None:
    op.create_table(
        "series_states",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("series_key", sa.LargeBinary(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("state", sa.LargeBinary(), nullable=False),
        sa.Column("state_version", sa.Text(), nullable=False),
        sa.Column("last_ns", sa.BigInteger(), nullable=False),
        sa.Column("evicted_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("stream", "topic", "partition", "series_key", name="pk_series_states"),
    )
    op.create_index("ix_series_states_evicted_ns", "series_states", ["evicted_ns"])


def _anomalies() -> None:
    op.create_table(
        "anomalies",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("peak_ns", sa.BigInteger(), nullable=False),
        sa.Column("points", sa.BigInteger(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("surprise", sa.Double(), nullable=False),
        sa.Column("channels", JSON, nullable=False),
        sa.Column("observed", JSON, nullable=False),
        sa.Column("expected", JSON, nullable=False),
        sa.Column("lower", JSON, nullable=False),
        sa.Column("upper", JSON, nullable=False),
        sa.Column("contribution", JSON, nullable=False),
        sa.Column("guard", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("config_hash", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("first_offset", sa.BigInteger(), nullable=False),
        sa.Column("last_offset", sa.BigInteger(), nullable=False),
        sa.Column("peak_offset", sa.BigInteger(), nullable=False),
        sa.Column("last_flag_seq", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_anomalies"),
    )
    op.create_index(
        "ix_anomalies_open",
        "anomalies",
        ["stream", "topic", "partition"],
        postgresql_where=sa.text("state = 'open'"),
        sqlite_where=sa.text("state = 'open'"),
    )
    op.create_index("ix_anomalies_series", "anomalies", ["series"], postgresql_using="hash")
    op.create_index("ix_anomalies_stream_start_ns", "anomalies", ["stream", "start_ns"])
    op.create_index("ix_anomalies_start_ns", "anomalies", ["start_ns"])
    op.create_index("ix_anomalies_updated_ns", "anomalies", ["updated_ns"])


def _dead_letters() -> None:
    op.create_table(
        "dead_letters",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("timestamp_ns", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.LargeBinary(), nullable=True),
        sa.Column("value", sa.LargeBinary(), nullable=True),
        sa.Column("headers", JSON, nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("detail", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("replayed_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_dead_letters"),
    )
    op.create_index("ix_dead_letters_stream_created_ns", "dead_letters", ["stream", "created_ns"])
    op.create_index("ix_dead_letters_created_ns", "dead_letters", ["created_ns"])


def _late_records() -> None:
    op.create_table(
        "late_records",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("offset", sa.BigInteger(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("time_ns", sa.BigInteger(), nullable=False),
        sa.Column("values", JSON, nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_late_records"),
    )
    op.create_index("ix_late_records_stream_created_ns", "late_records", ["stream", "created_ns"])
    op.create_index("ix_late_records_created_ns", "late_records", ["created_ns"])


def _faults() -> None:
    op.create_table(
        "faults",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("topic", sa.Text(), nullable=False),
        sa.Column("partition", sa.Integer(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("detail", JSON, nullable=False),
        sa.Column("started_ns", sa.BigInteger(), nullable=False),
        sa.Column("ended_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_faults"),
    )
    op.create_index(
        "uq_faults_open",
        "faults",
        ["stream", "kind", "topic", "partition"],
        unique=True,
        postgresql_where=sa.text("ended_ns IS NULL"),
        sqlite_where=sa.text("ended_ns IS NULL"),
    )
    op.create_index(
        "uq_faults_started_ns", "faults", ["stream", "kind", "topic", "partition", "started_ns"], unique=True
    )
    op.create_index("ix_faults_started_ns", "faults", ["started_ns"])
