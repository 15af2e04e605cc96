"""Anomalies: intervals of one series, written with the batch that changed them."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields
from functools import cache
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Row, Select, delete, or_, select
from sqlalchemy.dialects.postgresql import Insert

from pipeline.core.errors import InputError
from pipeline.core.types import (
    Anomaly,
    AnomalyState,
    DeviationContext,
    DeviationCourse,
    EndReason,
    EventFinding,
    Partition,
    Severity,
)
from pipeline.core.verdict_words import current_cause, current_forecaster
from storage.sql.column_types import has_json_text, insert_for, matches
from storage.sql.damaged_rows import damaged_rows, read_rows
from storage.sql.statements import StreamChoice, of_streams, page_of
from storage.tables.stream import AnomalyRow

_INTEGERS = (
    "start_ns",
    "end_ns",
    "peak_ns",
    "points",
    "first_offset",
    "last_offset",
    "peak_offset",
    "revision",
)
_PER_CHANNEL = ("observed", "expected", "lower", "upper", "contribution")
_AT_ONCE = 500  # ids in one IN list
#: Field → column, where the names differ: the columns keep the names of forewatch 0.1.0.
_COLUMN_OF = {"forecaster": "guard", "cause": "evidence"}
_FIELDS = [field.name for field in fields(Anomaly)]
_COLUMNS = [column for column in AnomalyRow.__table__.columns if column.name != "updated_ns"]


def upsert(connection: Connection, anomalies: Sequence[Anomaly]) -> None:
    """Write each anomaly in its current revision.

    An anomaly is one row, and an older revision never replaces a newer one.
    """
    if not anomalies:
        return
    now = time.time_ns()
    # PostgreSQL does not change a row twice in one statement, and only the last revision counts.
    latest = {anomaly.id: anomaly for anomaly in anomalies}
    connection.execute(
        _upsert(connection.dialect.name),
        [_values(anomaly) | {"updated_ns": now} for anomaly in latest.values()],
    )


def open_of(connection: Connection, stream: str, partition: Partition) -> list[Anomaly]:
    """Return the open anomalies of a partition, for its new owner."""
    statement = _select().where(AnomalyRow.stream == stream, AnomalyRow.topic == partition.topic)
    statement = statement.where(
        AnomalyRow.partition == partition.number, AnomalyRow.state == AnomalyState.OPEN.value
    )
    return _readable(connection, statement)


def query(
    connection: Connection,
    *,
    stream: StreamChoice = None,
    series: str | None = None,
    state: AnomalyState | None = None,
    severity: Severity | None = None,
    since_ns: int | None = None,
    until_ns: int | None = None,
    after: tuple[int, UUID] | None = None,
    limit: int | None = None,
    labels: Mapping[str, str] | None = None,
    retracted: bool = False,
) -> list[Anomaly]:
    """Return anomalies by start, newest first.

    ``series`` is a pattern (``*`` any text, ``?`` one character), ``severity`` the lowest one. Anomalies that
    overlap the time range [since_ns, until_ns) are returned. ``after`` is (start, id) of the last anomaly of
    the page before. ``labels`` are labels of its series, all of which it has. Retracted anomalies, which have
    no points, are left out; with ``retracted`` only they are returned.
    """
    order = ((AnomalyRow.start_ns, True), (AnomalyRow.id, False))
    counted = AnomalyRow.points == 0 if retracted else AnomalyRow.points > 0
    statement = page_of(_select().where(counted), order, after, limit)
    for name, value in (labels or {}).items():
        statement = statement.where(has_json_text(connection, AnomalyRow.labels, name, value))
    if stream is not None:
        statement = statement.where(of_streams(AnomalyRow.stream, stream))
    if series is not None:
        statement = statement.where(
            matches(AnomalyRow.series, series) if set(series) & set("*?") else AnomalyRow.series == series
        )
    if state is not None:
        statement = statement.where(AnomalyRow.state == state.value)
    if severity is not None:
        levels = list(Severity)
        statement = statement.where(
            AnomalyRow.severity.in_([level.value for level in levels[levels.index(severity) :]])
        )
    if since_ns is not None:
        statement = statement.where(AnomalyRow.end_ns >= since_ns)
    if until_ns is not None:
        statement = statement.where(AnomalyRow.start_ns < until_ns)
    return _readable(connection, statement)


def of_series(
    connection: Connection, stream: str, series: Sequence[str], since_ns: int | None = None
) -> list[Anomaly]:
    """Return all anomalies of some series by start, also retracted ones.

    Args:
        connection: A connection.
        stream: Name of the stream.
        series: Names of the series.
        since_ns: Earliest end of a closed anomaly, None for all.
    """
    statement = _select().where(AnomalyRow.stream == stream).order_by(AnomalyRow.start_ns, AnomalyRow.id)
    if since_ns is not None:
        recent = or_(AnomalyRow.end_ns >= since_ns, AnomalyRow.state == AnomalyState.OPEN.value)
        statement = statement.where(recent)
    parts = [series[at : at + _AT_ONCE] for at in range(0, len(series), _AT_ONCE)]
    return [
        anomaly
        for part in parts
        for anomaly in _readable(connection, statement.where(AnomalyRow.series.in_(part)))
    ]


def get(connection: Connection, prefix: str) -> Anomaly:
    """Return the anomaly whose id starts with ``prefix`` (dashes are ignored).

    Raises InputError if there is none, or more than one.
    """
    digits = prefix.replace("-", "").lower()
    if not 1 <= len(digits) <= 32 or set(digits) - set("0123456789abcdef"):
        raise InputError(
            f"{prefix!r} is not an anomaly id: give at least the first characters of one, as `forewatch anomalies list` shows it"
        )
    within = AnomalyRow.id.between(UUID(digits.ljust(32, "0")), UUID(digits.ljust(32, "f")))
    rows = connection.execute(select(AnomalyRow.id).where(within).order_by(AnomalyRow.id).limit(6)).all()
    if not rows:
        raise InputError(f"there is no anomaly {prefix}; `forewatch anomalies list` shows those there are")
    if len(rows) > 1:
        shown = ", ".join(str(row.id) for row in rows[:5]) + (", …" if len(rows) > 5 else "")
        raise InputError(f"{prefix} is the beginning of several anomalies: {shown}; give more of it")
    found = _readable(connection, _select().where(AnomalyRow.id == rows[0].id))
    if not found:
        raise InputError(f"the row of anomaly {rows[0].id} is damaged; run: forewatch db check")
    return found[0]


def having(connection: Connection, ids: Collection[UUID]) -> list[Anomaly]:
    """Return the existing anomalies among ``ids``, by start."""
    statement = _select().order_by(AnomalyRow.start_ns, AnomalyRow.id)
    wanted = list(ids)
    parts = [wanted[at : at + _AT_ONCE] for at in range(0, len(wanted), _AT_ONCE)]
    return [
        anomaly
        for part in parts
        for anomaly in _readable(connection, statement.where(AnomalyRow.id.in_(part)))
    ]


def prune(connection: Connection, before_ns: int, limit: int) -> int:
    """Delete up to ``limit`` closed anomalies unchanged since ``before_ns``, and return their number.

    The age is that of the wall clock, not of event time, so that results of a backfill over old data are kept.
    """
    old = (
        select(AnomalyRow.id)
        .where(AnomalyRow.updated_ns < before_ns, AnomalyRow.state == AnomalyState.CLOSED.value)
        .limit(limit)
    )
    return connection.execute(delete(AnomalyRow).where(AnomalyRow.id.in_(old))).rowcount


@cache
def _upsert(dialect: str) -> Insert:
    """Build the statement once: building it takes longer than executing it."""
    statement = insert_for(dialect, AnomalyRow)
    return statement.on_conflict_do_update(
        index_elements=["id"],
        set_={column.name: column for column in statement.excluded if column.name != "id"},
        where=AnomalyRow.revision <= statement.excluded.revision,
    )


def _select() -> Select[Any]:
    return select(*_COLUMNS)


def _values(anomaly: Anomaly) -> dict[str, Any]:
    values = {_COLUMN_OF.get(name, name): getattr(anomaly, name) for name in _FIELDS}
    values["topic"], values["partition"] = anomaly.partition
    for name in ("event", "context", "course"):
        values[name] = None if values[name] is None else asdict(values[name])
    words = ("state", "severity", "end_reason")
    return values | {name: str(values[name]) for name in words}


def damaged(connection: Connection) -> list[tuple[UUID, str]]:
    """Read every anomaly, and return id and problem of each row that cannot be read."""
    return damaged_rows(connection, _COLUMNS, AnomalyRow.id, _anomaly)


def remove(connection: Connection, id_: UUID) -> None:
    """Delete an anomaly whose row is damaged."""
    connection.execute(delete(AnomalyRow).where(AnomalyRow.id == id_))


def _readable(connection: Connection, statement: Select[Any]) -> list[Anomaly]:
    return read_rows(connection, statement, AnomalyRow.id, _anomaly)


def _anomaly(row: Row[Any]) -> Anomaly:
    values = dict(row._mapping)
    values["partition"] = Partition(values.pop("topic"), values["partition"])
    values["state"], values["severity"] = AnomalyState(values["state"]), Severity(values["severity"])
    values["end_reason"] = EndReason(values["end_reason"])
    # Rows of forewatch 0.1.0 hold former words.
    values["forecaster"] = current_forecaster(values.pop("guard"))
    values["cause"] = current_cause(values.pop("evidence"))
    values["event"] = None if values["event"] is None else EventFinding(**values["event"])
    values["context"] = None if values["context"] is None else DeviationContext(**values["context"])
    values["course"] = None if values["course"] is None else DeviationCourse.of(values["course"])
    anomaly = Anomaly(**values)
    if not all(type(getattr(anomaly, name)) is int for name in _INTEGERS):
        raise ValueError("a number is none")  # SQLite stores any value in any column
    if any(len(getattr(anomaly, name)) != len(anomaly.channels) for name in _PER_CHANNEL):
        raise ValueError("its channels and their numbers do not match")
    return anomaly
