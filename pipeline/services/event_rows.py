"""Recorded events of one series with their texts and verdicts."""

from __future__ import annotations

from typing import Any, Final

from sqlalchemy import Connection

from detectors.sequences.code_numbers import END_NUMBER
from detectors.sequences.stream_detector import EVENT_CHANNEL
from pipeline.config.schema import Stream
from pipeline.core.durations import DAY_NS
from pipeline.services.anomaly_text import finite
from pipeline.services.stored_templates import stored_event_texts
from storage.history.reader import HistoryReader

#: Events of a series that are shown, the newest.
MAX_EVENTS: Final = 400
#: Longest time before the end of the range from which they are read.
MAX_SPAN_NS: Final = 30 * DAY_NS
_NUMBER = f"value:{EVENT_CHANNEL}"


def event_rows(
    connection: Connection,
    history: HistoryReader,
    stream: tuple[str, Stream],
    series: str,
    bounds: tuple[int, int],
) -> list[dict[str, Any]]:
    """Return the newest events of a range, the oldest of them first.

    Args:
        connection: A transaction.
        history: The recorded history.
        stream: Name and configuration of the stream.
        series: Name of the series.
        bounds: First time, and end of the range, in ns.
    """
    since, until = max(bounds[0], bounds[1] - MAX_SPAN_NS), bounds[1]
    columns = ["surprise", "flag", _NUMBER]
    table = history.read(stream[0], series=series, since_ns=since, until_ns=until, columns=columns)
    some = table.slice(max(0, table.num_rows - MAX_EVENTS))
    if not some.num_rows:
        return []
    text = stored_event_texts(connection, *stream)
    values = [some.column(name).to_pylist() for name in ("time", _NUMBER, "surprise", "flag")]
    return [
        {
            "time_ms": time / 1e6,
            "code": text(number),
            "end": number == END_NUMBER,
            "surprise": finite(surprise),
            "flag": bool(flag),
        }
        for time, number, surprise, flag in zip(*values, strict=True)
    ]
