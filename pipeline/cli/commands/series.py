"""``series show``: how one series is guarded."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, StreamName, opened, stream_of
from pipeline.cli.output import show_fields, show_json, show_table
from pipeline.cli.times import show_second, show_time

app = typer.Typer(no_args_is_help=True, help="How a series is guarded.")


@app.command()
def show(
    series: Annotated[
        str,
        typer.Argument(metavar="SERIES", help="Its whole name, as anomalies show it behind the stream's."),
    ],
    stream: StreamName,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show which rung guards a series, why, and what comes next.

    The rungs are static, last, seasonal, river, lstm. It is computed from the stored points of the series.
    """
    from dataclasses import asdict

    from pipeline.services.forecaster_status import guarded

    with opened(config) as (loaded, database):
        stream_of(loaded, stream)
        found = guarded(loaded, database, stream, series)
    if json:
        show_json(asdict(found) | {"last": show_time(found.last_ns)})
        return
    fields = {
        "stream": found.stream,
        "series": found.series,
        "guard": found.guard,
        "model": found.model_version,
    }
    show_fields(fields | {"last point": show_second(found.last_ns)})
    print()
    rows = [(one.channel, one.guard, one.points, one.why, one.next) for one in found.channels]
    show_table(("channel", "guard", "points", "why", "next"), rows, "no channels", wrap=("why", "next"))
