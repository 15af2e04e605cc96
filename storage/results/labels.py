"""Labels of anomalies by reviewers.

Training excludes true anomalies and maintenance, and includes false ones.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import Connection, select

from storage.sql.column_types import insert
from storage.sql.statements import Bounds, in_parts, of_streams, page_of, where_given
from storage.tables.alerting import LabelRow
from storage.tables.stream import AnomalyRow

Label = Literal["true", "false", "maintenance"]


def put(
    connection: Connection, anomaly_id: UUID, label: Label, author: str, comment: str, now_ns: int
) -> None:
    """Set the label of an anomaly; the last one counts.

    Args:
        connection: A transaction.
        anomaly_id: The anomaly.
        label: Judgement of the author.
        author: The person.
        comment: Reason.
        now_ns: Current time.
    """
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
class GivenLabel:
    """Last label of one anomaly, and its author."""

    label: str
    author: str


def latest_labels(connection: Connection, stream: str) -> dict[UUID, GivenLabel]:
    """Return every labelled anomaly of a stream."""
    statement = select(LabelRow.anomaly_id, LabelRow.label, LabelRow.author).join(
        AnomalyRow, AnomalyRow.id == LabelRow.anomaly_id
    )
    return {
        row.anomaly_id: GivenLabel(row.label, row.author)
        for row in connection.execute(statement.where(AnomalyRow.stream == stream))
    }


def of(connection: Connection, anomalies: Collection[UUID]) -> dict[UUID, str]:
    """Return the labels of those anomalies that have one."""
    statement = select(LabelRow.anomaly_id, LabelRow.label).where(LabelRow.anomaly_id.in_(list(anomalies)))
    return {row.anomaly_id: row.label for row in connection.execute(statement)}


@dataclass(frozen=True, slots=True)
class Review:
    """Label of an anomaly with its author, the reason and the time."""

    label: Label
    author: str
    comment: str
    created_ns: int


@dataclass(frozen=True, slots=True)
class LabelledAnomaly:
    """Label with the anomaly that has it."""

    anomaly_id: UUID
    stream: str
    series: str
    review: Review


def page(connection: Connection, bounds: Bounds) -> list[LabelledAnomaly]:
    """Return a part of the labels, the newest first.

    ``after`` is (created, id of the anomaly).
    """
    order = ((LabelRow.created_ns, True), (LabelRow.anomaly_id, False))
    review = (LabelRow.label, LabelRow.author, LabelRow.comment, LabelRow.created_ns)
    columns: list[Any] = [LabelRow.anomaly_id, AnomalyRow.stream, AnomalyRow.series, *review]
    statement = select(*columns).join(AnomalyRow, AnomalyRow.id == LabelRow.anomaly_id)
    statement = where_given(
        page_of(statement, order, bounds.after, bounds.limit),
        (bounds.stream, of_streams(AnomalyRow.stream, bounds.stream)),
        (bounds.since_ns, LabelRow.created_ns >= (bounds.since_ns or 0)),
        (bounds.until_ns, LabelRow.created_ns < (bounds.until_ns or 0)),
    )
    return [
        LabelledAnomaly(
            row.anomaly_id,
            row.stream,
            row.series,
            Review(row.label, row.author, row.comment, row.created_ns),
        )
        for row in connection.execute(statement)
    ]


def reviews(connection: Connection, anomalies: Collection[UUID]) -> dict[UUID, Review]:
    """Return the labels of those anomalies that have one, with author and reason."""
    columns = (LabelRow.anomaly_id, LabelRow.label, LabelRow.author, LabelRow.comment, LabelRow.created_ns)
    return {
        row.anomaly_id: Review(row.label, row.author, row.comment, row.created_ns)
        for part in in_parts(anomalies)
        for row in connection.execute(select(*columns).where(LabelRow.anomaly_id.in_(part)))
    }
