"""The view ``forewatch_anomalies``: anomalies for people and their SQL tools.

Its columns are a contract: later versions add some, and rename or remove none. A migration that rewrites the
tables ``anomalies`` or ``labels`` drops the view first and creates it again.
"""

from __future__ import annotations

from sqlalchemy import Connection

ANOMALIES_VIEW = "forewatch_anomalies"
#: Numbers of the leading channel, each a column of the table with one number for each channel.
_NUMBERS = ("observed", "expected", "lower", "upper")
#: Start and end of the deviation in ns, those of the flagged points where they are not stored.
_STARTED = "(CASE WHEN a.onset_ns > 0 THEN a.onset_ns ELSE a.start_ns END)"
_ENDED = "(CASE WHEN a.outside_until_ns > 0 THEN a.outside_until_ns ELSE a.end_ns END)"
_READINGS = "CASE WHEN a.span_readings > 0 THEN a.span_readings ELSE a.points END"
#: Column of the view → expression of a time in ns.
_TIMES = {"started": _STARTED, "ended": _ENDED, "peaked": "a.peak_ns", "updated": "a.updated_ns"}
#: The same for the view of schema 15, whose tables have no deviations.
_FORMER_TIMES = _TIMES | {"started": "a.start_ns", "ended": "a.end_ns"}
#: Column of the view → expression, the same in both databases.
_PLAIN = {
    "stream": "a.stream",
    "series": "a.series",
    "labels": "a.labels",
    "state": "a.state",
    "severity": "a.severity",
    "direction": "a.direction",
    "cause": "a.evidence",
    "points": "a.points",
    "score": "a.score",
    "surprisal": "a.surprise",
    "ratio": "CASE WHEN a.ratio > 0 THEN a.ratio END",
    "duration_seconds": f"({_ENDED} - {_STARTED}) / 1000000000.0",
    "end_reason": "NULLIF(a.end_reason, '')",
    "forecaster": "a.guard",
    "model": "a.model_version",
    "event": "a.event",
    "review": "r.label",
    "reviewer": "r.author",
    "review_comment": "r.comment",
    "topic": "a.topic",
    "partition": "a.partition",
    "first_offset": "a.first_offset",
    "last_offset": "a.last_offset",
    "revision": "a.revision",
    "readings": _READINGS,
}


def create_views(connection: Connection, *, of_deviations: bool = True) -> None:
    """Create the view.

    Args:
        connection: A connection.
        of_deviations: False before schema 19, whose table has times of flagged points only.
    """
    make = _postgres if connection.dialect.name == "postgresql" else _sqlite
    times, plain = _TIMES, _PLAIN
    if not of_deviations:
        times = _FORMER_TIMES
        plain = _PLAIN | {"duration_seconds": "(a.end_ns - a.start_ns) / 1000000000.0"}
        del plain["readings"]
    connection.exec_driver_sql(f"CREATE VIEW {ANOMALIES_VIEW} AS {make(times, plain)}")


def drop_views(connection: Connection) -> None:
    """Drop the view, if it exists."""
    connection.exec_driver_sql(f"DROP VIEW IF EXISTS {ANOMALIES_VIEW}")


def _postgres(times: dict[str, str], plain: dict[str, str]) -> str:
    moment = "TIMESTAMPTZ 'epoch' + ({} / 1000) * INTERVAL '1 microsecond'"
    number = "CASE WHEN jsonb_typeof(a.{0} -> k.at) = 'number' THEN (a.{0} -> k.at)::float8 END"
    leading = (
        "SELECT (ordinality - 1)::int AS at FROM jsonb_array_elements(a.contribution) WITH ORDINALITY"
        " ORDER BY value DESC, ordinality LIMIT 1"
    )
    columns = {"id": "a.id", "channel": "a.channels ->> k.at"}
    columns |= {name: moment.format(time) for name, time in times.items()}
    return _select(columns | _numbers(number) | plain, f" LEFT JOIN LATERAL ({leading}) AS k ON true")


def _sqlite(times: dict[str, str], plain: dict[str, str]) -> str:
    moment = "strftime('%Y-%m-%dT%H:%M:%fZ', {} / 1000000000.0, 'unixepoch')"
    leading = "(SELECT key FROM json_each(a.contribution) ORDER BY value DESC, key LIMIT 1)"
    item = "json_extract(a.{0}, '$[' || " + leading + " || ']')"
    number = f"CASE WHEN typeof({item}) <> 'text' THEN {item} END"
    parts = ((1, 8), (9, 4), (13, 4), (17, 4), (21, 12))
    dashed = " || '-' || ".join(f"substr(a.id, {first}, {length})" for first, length in parts)
    columns = {"id": dashed, "channel": item.format("channels")}
    columns |= {name: moment.format(time) for name, time in times.items()}
    return _select(columns | _numbers(number) | plain, "")


def _numbers(expression: str) -> dict[str, str]:
    return {name: expression.format(name) for name in _NUMBERS}


def _select(columns: dict[str, str], join: str) -> str:
    """Return the query of the view.

    Retracted anomalies, which have no points, are left out.
    """
    listed = ", ".join(f"{expression} AS {name}" for name, expression in columns.items())
    tables = f"anomalies AS a LEFT JOIN labels AS r ON r.anomaly_id = a.id{join}"
    return f"SELECT {listed} FROM {tables} WHERE a.points > 0"
