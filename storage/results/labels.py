"""What people say of anomalies: true ones and maintenance are kept out of training, false ones go back into
it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal
from uuid import UUID

from sqlalchemy import Connection, select

from storage.sql.column_types import insert
from storage.tables.alerting import LabelRow
from storage.tables.stream import AnomalyRow

Label = Literal["true", "false", "maintenance"]


def put(
    connection: Connection, anomaly_id: UUID, label: Label, author: str, comment: str, now_ns: int
) -> None:
    """The last word on an anomaly counts."""
    values = {
        "anomaly_id": anomaly_id,
        "label": label,
        "author": author,
        "comment": comment,
        "created_ns": now_ns,
    }
    statement = insert(connection, LabelRow).values(values)
    changed = {column.name: column for column in statement.excluded if column.name != "anomaly_id"}
    connection.execute(statement.on_conflict_do_update(index_elements=["anomaly_id"], set_=changed))


@dataclass(frozen=True, slots=True)
class Said:
    """The last word on one anomaly, and whose it is."""

    label: str
    author: str


def said(connection: Connection, stream: str) -> dict[UUID, Said]:
    """Every labelled anomaly of a stream."""
    statement = select(LabelRow.anomaly_id, LabelRow.label, LabelRow.author).join(
        AnomalyRow, AnomalyRow.id == LabelRow.anomaly_id
    )
    return {
        row.anomaly_id: Said(row.label, row.author)
        for row in connection.execute(statement.where(AnomalyRow.stream == stream))
    }


def of(connection: Connection, anomalies: Collection[UUID]) -> dict[UUID, str]:
    """The labels of those that have one."""
    statement = select(LabelRow.anomaly_id, LabelRow.label).where(LabelRow.anomaly_id.in_(list(anomalies)))
    return {row.anomaly_id: row.label for row in connection.execute(statement)}
