"""The tables of the alerts: outbox, alerts, deliveries, silences, labels."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

JSON = sa.JSON().with_variant(JSONB(), "postgresql")
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    _alert_events()
    _alerts()
    _alert_members()
    _alert_lanes()
    _alert_streams()
    _alert_budgets()
    _notices()
    _deliveries()
    _delivery_lanes()
    _delivery_attempts()
    _delivery_workers()
    _endpoint_states()
    _silences()
    _labels()


def downgrade() -> None:
    for table in (
        "labels",
        "silences",
        "endpoint_states",
        "delivery_workers",
        "delivery_attempts",
        "delivery_lanes",
        "deliveries",
        "notices",
        "alert_budgets",
        "alert_streams",
        "alert_lanes",
        "alert_members",
        "alerts",
        "alert_events",
    ):
        op.drop_table(table)


def _partial(name: str, table: str, columns: list[str], where: str, unique: bool = False) -> None:
    op.create_index(
        name, table, columns, unique=unique, postgresql_where=sa.text(where), sqlite_where=sa.text(where)
    )


def _alert_events() -> None:
    op.create_table(
        "alert_events",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("event_id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("alert_id", sa.Uuid(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_alert_events"),
    )
    op.create_index("ix_alert_events_created_ns", "alert_events", ["created_ns"])
    _partial("ix_alert_events_pending", "alert_events", ["stream", "id"], "state = 'pending'")
    _partial("ix_alert_events_waiting", "alert_events", ["alert_id"], "state = 'waiting'")
    op.create_index("uq_alert_events_event_id", "alert_events", ["event_id"], unique=True)


def _alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("rule", sa.Text(), nullable=False),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("labels", JSON, nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("urgency", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("surprise", sa.Double(), nullable=False),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("open_count", sa.Integer(), nullable=False),
        sa.Column("opened_ns", sa.BigInteger(), nullable=False),
        sa.Column("ended_ns", sa.BigInteger(), nullable=False),
        sa.Column("resolved_ns", sa.BigInteger(), nullable=True),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("flush_ns", sa.BigInteger(), nullable=True),
        sa.Column("quiet_ns", sa.BigInteger(), nullable=True),
        sa.Column("sent_ns", sa.BigInteger(), nullable=True),
        sa.Column("sent_count", sa.Integer(), nullable=False),
        sa.Column("sent_surprise", sa.Double(), nullable=False),
        sa.Column("severities", JSON, nullable=False),
        sa.Column("held_by", sa.Text(), nullable=True),
        sa.Column("flapping", sa.Boolean(), nullable=False),
        sa.Column("acked_ns", sa.BigInteger(), nullable=True),
        sa.Column("acked_by", sa.Text(), nullable=True),
        sa.Column("told", JSON, nullable=False),
        sa.PrimaryKeyConstraint("alert_id", name="pk_alerts"),
    )
    op.create_index("ix_alerts_created_ns", "alerts", ["created_ns"])
    _partial("ix_alerts_flush_ns", "alerts", ["stream", "flush_ns"], "flush_ns IS NOT NULL")
    _partial("uq_alerts_live", "alerts", ["stream", "rule", "group_key"], "state <> 'closed'", unique=True)


def _alert_members() -> None:
    op.create_table(
        "alert_members",
        sa.Column("subject", sa.Uuid(), nullable=False),
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("series", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("severity", sa.Text(), nullable=False),
        sa.Column("surprise", sa.Double(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("subject", name="pk_alert_members"),
    )
    op.create_index("ix_alert_members_alert_id_surprise", "alert_members", ["alert_id", "surprise"])
    op.create_index("ix_alert_members_start_ns", "alert_members", ["start_ns"])
    op.create_index(
        "ix_alert_members_stream_series_start_ns", "alert_members", ["stream", "series", "start_ns"]
    )


def _alert_lanes() -> None:
    op.create_table(
        "alert_lanes",
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("resolved_ns", sa.BigInteger(), nullable=True),
        sa.Column("openings", JSON, nullable=False),
        sa.PrimaryKeyConstraint("lane", name="pk_alert_lanes"),
    )


def _alert_streams() -> None:
    op.create_table(
        "alert_streams",
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("recent", JSON, nullable=False),
        sa.PrimaryKeyConstraint("stream", name="pk_alert_streams"),
    )


def _alert_budgets() -> None:
    op.create_table(
        "alert_budgets",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("state", JSON, nullable=False),
        sa.Column("updated_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_alert_budgets"),
    )


def _notices() -> None:
    op.create_table(
        "notices",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("events", sa.Integer(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
    )
    op.create_index("ix_notices_alert_id", "notices", ["alert_id"])
    op.create_index("ix_notices_created_ns", "notices", ["created_ns"])


def _deliveries() -> None:
    op.create_table(
        "deliveries",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("notice_id", sa.Uuid(), nullable=False),
        sa.Column("alert_id", sa.Uuid(), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("finished_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_deliveries"),
    )
    op.create_index("ix_deliveries_alert_id_endpoint", "deliveries", ["alert_id", "endpoint"])
    op.create_index("ix_deliveries_created_ns", "deliveries", ["created_ns"])
    _partial("ix_deliveries_pending", "deliveries", ["endpoint", "lane", "sequence"], "state = 'pending'")


def _delivery_lanes() -> None:
    op.create_table(
        "delivery_lanes",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("lane", sa.Text(), nullable=False),
        sa.Column("due_ns", sa.BigInteger(), nullable=True),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("endpoint", "lane", name="pk_delivery_lanes"),
    )
    _partial(
        "ix_delivery_lanes_due",
        "delivery_lanes",
        ["endpoint", "due_ns"],
        "due_ns IS NOT NULL AND owner IS NULL",
    )
    _partial("ix_delivery_lanes_owner", "delivery_lanes", ["owner"], "owner IS NOT NULL")


def _delivery_attempts() -> None:
    op.create_table(
        "delivery_attempts",
        sa.Column("id", ROW_ID, nullable=False),
        sa.Column("delivery_id", sa.Uuid(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("started_ns", sa.BigInteger(), nullable=False),
        sa.Column("latency_ns", sa.BigInteger(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("next_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_attempts"),
    )
    op.create_index("ix_delivery_attempts_delivery_id", "delivery_attempts", ["delivery_id"])
    op.create_index("ix_delivery_attempts_started_ns", "delivery_attempts", ["started_ns"])


def _delivery_workers() -> None:
    op.create_table(
        "delivery_workers",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.Column("started_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_delivery_workers"),
    )


def _endpoint_states() -> None:
    op.create_table(
        "endpoint_states",
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("disabled_ns", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("failing_ns", sa.BigInteger(), nullable=True),
        sa.Column("quiet_until_ns", sa.BigInteger(), nullable=True),
        sa.Column("delivered_ns", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("endpoint", name="pk_endpoint_states"),
    )


def _silences() -> None:
    op.create_table(
        "silences",
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.Column("stream", sa.Text(), nullable=True),
        sa.Column("match", JSON, nullable=False),
        sa.Column("starts_ns", sa.BigInteger(), nullable=False),
        sa.Column("ends_ns", sa.BigInteger(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_silences"),
    )
    op.create_index("ix_silences_ends_ns", "silences", ["ends_ns"])


def _labels() -> None:
    op.create_table(
        "labels",
        sa.Column("anomaly_id", sa.Uuid(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("anomaly_id", name="pk_labels"),
    )
