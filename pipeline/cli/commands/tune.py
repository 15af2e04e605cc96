"""``tune``: the anomalies that each sensitivity would have raised."""

from __future__ import annotations

from pathlib import Path
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
from pipeline.cli.times import parse_span

if TYPE_CHECKING:
    from pipeline.monitoring.sensitivity_trial import TrialReport

SHOWN_EVENTS = 40  # newest events of the text output; JSON and the page have all


def tune(
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    last: Annotated[
        Any,
        typer.Option(
            parser=parse_span,
            metavar="DURATION",
            help="Length of the span in which anomalies count, up to the newest recorded row; older rows are "
            "only learned.",
        ),
    ] = "14d",
    rows: Annotated[
        int, typer.Option(min=1, help="Maximum number of rows; the newest of every series are read.")
    ] = 1_000_000,
    page: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with timelines and pictures.")
    ] = None,
    json: JsonOption = False,
) -> None:
    """Show which anomalies each sensitivity would have raised.

    The recorded history of the stream is scored once for each sensitivity (low, normal, high) by its current
    model and configuration, from the first recorded row on. Nothing is stored, and nothing is sent.
    """
    from pipeline.core.errors import InputError
    from pipeline.monitoring.history_replay import read_recorded
    from pipeline.monitoring.sensitivity_trial import try_sensitivities

    if page is not None and not page.parent.is_dir():
        raise InputError(f"--page {page}: there is no folder {page.parent}")
    with config_and_database(config) as (loaded, database):
        chosen = require_stream(loaded, stream)
        recorded = read_recorded(loaded.history_path, stream, chosen, rows)
        report = try_sensitivities(database, stream, chosen, recorded, last)
    if page is not None:
        from pipeline.monitoring.sensitivity_page import page as page_of

        try:
            page.write_text(page_of(report, recorded), encoding="utf-8", errors="replace")
        except OSError as error:
            raise InputError(f"--page {page}: cannot be written: {error.strerror}") from None
        print_note(f"wrote {page}")
    if json:
        show_json(report.as_dict())
    else:
        _print(report)


def _print(report: TrialReport) -> None:
    from pipeline.cli.times import show_second
    from pipeline.core.types import Severity
    from pipeline.monitoring.sensitivity_trial import event_cells

    span = f"{show_second(report.since_ns)} to {show_second(report.until_ns - 1)}"
    print(f"{report.stream}: {report.series:,} series, {report.rows:,} rows, anomalies from {span}")
    show_table(
        ("sensitivity", "alarm_rate", "anomalies", "per series and month", *Severity),
        [
            (
                f"{one.sensitivity} (configured)" if one.configured else one.sensitivity,
                one.alarm_rate,
                len(one.anomalies),
                f"{report.rate(one):.2f}",
                *(one.count(severity) for severity in Severity),
            )
            for one in report.trials
        ],
        "",
    )
    events = report.configured.anomalies
    print()
    columns = ("start", "duration", "series", "severity", "cause", "statement", "raised by")
    show_table(
        columns,
        event_cells(report, events[-SHOWN_EVENTS:]),
        f"sensitivity {report.configured.sensitivity} raises no anomaly in this span",
        wrap=("statement",),
    )
    if len(events) > SHOWN_EVENTS:
        print_note(f"the newest {SHOWN_EVENTS} of {len(events)}; --json and --page have all of them")
    if report.unread:
        print_note(f"{report.unread:,} older rows were not read; --rows raises the limit")
