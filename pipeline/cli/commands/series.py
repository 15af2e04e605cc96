"""``series show``: the forecaster status of a series."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    StreamName,
    config_and_database,
    require_stream,
)
from pipeline.cli.output import show_fields, show_json, show_table
from pipeline.cli.times import show_second, show_time
from pipeline.core.verdict_words import former_forecaster

app = typer.Typer(no_args_is_help=True, help="Show the forecaster status of a series.")


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
    """Show the forecaster of a series and the next candidate.

    Forecasters are static, last_value, seasonal, gaussian and lstm. The status is computed from the stored
    points of the series.
    """
    from dataclasses import asdict

    from pipeline.services.forecaster_status import series_status

    with config_and_database(config) as (loaded, database):
        require_stream(loaded, stream)
        found = series_status(loaded, database, stream, series)
    if json:
        shown = asdict(found) | {"last": show_time(found.last_ns)}
        for one in (shown, *shown["channels"]):
            one["guard"] = former_forecaster(one["forecaster"])  # deprecated
        show_json(shown)
        return
    fields = {
        "stream": found.stream,
        "series": found.series,
        "forecaster": found.forecaster,
        "model": found.model_version,
    }
    show_fields(fields | {"last point": show_second(found.last_ns)})
    print()
    rows = [(one.channel, one.forecaster, one.points, one.why, one.next) for one in found.channels]
    show_table(("channel", "forecaster", "points", "why", "next"), rows, "no channels", wrap=("why", "next"))
