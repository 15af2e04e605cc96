"""``calibration``: stated probabilities and intervals against history."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    StreamName,
    config_and_database,
    require_stream,
)
from pipeline.cli.output import print_note, show_json, show_table

if TYPE_CHECKING:
    from pipeline.monitoring.calibration_report import AgeCounts, CalibrationReport

_LEGEND = (
    "young: rows 200 to 2,000 of a series, old: later ones; a row counts for 1 in N from row N of its "
    "series on. Within is a factor of 2 (1 in 10,000: 3). Much more than stated: faults in the history, or a "
    "series that moves to new levels."
)


def calibration(
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows; the newest of every series are read.")
    ] = 1_000_000,
    json: JsonOption = False,
) -> None:
    """Compare stated probabilities and intervals with history.

    The recorded history of the stream is scored once more by its current model. Printed are the share of
    rows with a probability of at most 1 in 10, 100, 1,000 and 10,000, and the share of values inside the
    prediction interval, of each channel and of all, for young rows of a series (200 to 2,000) and old ones.
    """
    from pipeline.monitoring.calibration_report import measure_calibration
    from pipeline.monitoring.history_replay import read_recorded

    with config_and_database(config) as (loaded, database):
        chosen = require_stream(loaded, stream)
        recorded = read_recorded(loaded.history_path, stream, chosen, rows)
        report = measure_calibration(database, stream, chosen, recorded)
    if json:
        show_json(report.as_dict())
    else:
        _print(report)


def _shown_channels(report: CalibrationReport) -> list[tuple[str, AgeCounts]]:
    """Return the counts by channel; those of all channels are those of an only one."""
    channels = list(report.channels.items())
    return channels[:1] if len(channels) == 2 else channels


def _print(report: CalibrationReport) -> None:
    print(f"{report.stream}: {report.series:,} series, {report.rows:,} rows, decision {report.decision}")
    columns = ("channel", "age", "stated", "rows", "observed", "95 % interval", "observed / stated", "within")
    show_table(columns, frequency_cells(report), "no series has 200 rows in the recorded history")
    print(_LEGEND)
    print()
    show_table(
        ("channel", "age", "values", f"inside the {report.interval:.4g} interval"),
        [
            (channel, age, f"{counts.values:,}", f"{counts.coverage:.4f}")
            for channel, both in _shown_channels(report)
            for age, counts in both.by_age()
            if counts.values
        ],
        "",
    )
    if report.unread:
        print_note(f"{report.unread:,} older rows were not read; --rows raises the limit")


def frequency_cells(report: CalibrationReport) -> list[tuple[Any, ...]]:
    """Return the cells of the table of frequencies."""
    return [
        (
            channel,
            age,
            f"1 in {10**one.decade:,}",
            f"{one.rows:,}",
            f"{one.rare:,} ({one.frequency:.3g})",
            f"{one.low:.2g} to {one.high:.2g}",
            f"{one.factor:.2f}",
            "yes" if one.within else "no",
        )
        for channel, both in _shown_channels(report)
        for age, counts in both.by_age()
        for one in counts.frequencies()
        if one.rows
    ]
