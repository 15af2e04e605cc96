"""``verify``: compare stored verdicts with those of the order of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    StreamName,
    ToOption,
    config_and_database,
    require_stream,
)
from pipeline.cli.output import print_note, show_json, show_table
from pipeline.cli.times import show_second, show_time

if TYPE_CHECKING:
    from pipeline.core.types import Anomaly
    from pipeline.services.revision import Difference


def verify(
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    since: FromOption = None,
    until: ToOption = None,
    json: JsonOption = False,
) -> None:
    """Compare verdicts with those in the order of time.

    The recorded history and the stored late points are scored again in the order of time and compared with
    the stored anomalies. Open anomalies are left out. Each difference is listed, and makes the exit code 1.
    """
    from pipeline.services.revision import verify as compare

    with config_and_database(config, stream) as (settings, database):
        require_stream(settings, stream)
        series, found = compare(database, settings, stream, since, until)
    if json:
        show_json({"stream": stream, "series": series, "differences": [_as_dict(one) for one in found]})
    elif found:
        columns = ("series", "due", "start", "stored", "right")
        rows = (
            (one.series, one.kind, show_second(_known(one).start_ns), _text(one.stored), _text(one.right))
            for one in found
        )
        show_table(columns, rows, empty="")
    elif not series:
        print_note(f"stream {stream} has no recorded point yet: there is nothing to compare")
    else:
        print_note(f"the verdicts of {series} series are those of the order of time")
    if found:
        raise typer.Exit(1)


def _known(one: Difference) -> Anomaly:
    known = one.right or one.stored
    assert known is not None
    return known


def _text(anomaly: Anomaly | None) -> str | None:
    if anomaly is None or not anomaly.points:
        return None
    return f"{anomaly.severity}, {anomaly.points} points until {show_second(anomaly.end_ns)}"


def _as_dict(one: Difference) -> dict[str, Any]:
    known = _known(one)
    return {
        "series": one.series,
        "due": one.kind,
        "id": known.id,
        "start": show_time(known.start_ns),
        "stored": _text(one.stored),
        "right": _text(one.right),
    }
