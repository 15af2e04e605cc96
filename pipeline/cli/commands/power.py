"""``power``: the detection power of a stream, series by series."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, config_and_database, require_stream
from pipeline.cli.output import show_json, show_table

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.core.types import Power
    from storage.sql.database import Database

# Heading → key of the JSON output.
STREAM_COLUMNS = {
    "kind": "kind",
    "series": "series",
    "minimum_size": "smallest",
    "delay": "delay",
    "undetectable": "blind",
}
SERIES_COLUMNS = {
    "series": "series",
    "channel": "channel",
    "kind": "kind",
    "minimum_size": "smallest",
    "delay": "delay",
    "detected": "caught",
    "deviation": "spread",
}
POINTS = 20_000  # newest points of each series


def power(
    stream: Annotated[str, typer.Option("--stream", "-s", metavar="NAME", help="Stream to measure.")],
    config: ConfigOption = DEFAULT_CONFIG,
    series: Annotated[
        int, typer.Option("--series", "-n", min=1, help="Maximum number of series, drawn by the seed.")
    ] = 16,
    seed: Annotated[
        int, typer.Option("--seed", min=0, help="Seed for the series, the channels and the directions.")
    ] = 0,
    details: Annotated[bool, typer.Option("--details", help="Show every series instead of medians.")] = False,
    kept: Annotated[
        bool,
        typer.Option("--kept", help="Show the last figures of the daemon instead of measuring."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Measure which changes a stream would detect now.

    Spikes, dips, shifts, drifts and flat lines of growing size are put on copies of the newest points of some
    series, and scored by the champion. Sizes are in robust standard deviations of the series. A running daemon
    measures one series after another (metrics forewatch_power_*) and stores the last figures of each.
    """
    from pipeline.monitoring.detection_power import as_rows, stored_power, summaries

    with config_and_database(config) as (loaded, database):
        require_stream(loaded, stream)
        found = stored_power(database, stream) if kept else _measured(loaded, database, stream, series, seed)
    medians = [one.as_dict() for one in summaries(one for some in found.values() for one in some)]
    rows = as_rows(found)
    if json:
        show_json({"stream": stream, "kinds": medians, "series": rows})
        return
    columns = SERIES_COLUMNS if details else STREAM_COLUMNS
    show_table(
        tuple(columns),
        [[row[key] for key in columns.values()] for row in (rows if details else medians)],
        "the daemon has not measured any series yet",
    )


def _measured(
    config: Config, database: Database, name: str, series: int, seed: int
) -> dict[str, list[Power]]:
    from pipeline.core.errors import InputError
    from pipeline.models.champion import champion_of
    from pipeline.monitoring.detection_power import MIN_POINTS, measure
    from pipeline.training.dataset import from_history
    from pipeline.training.synthetic_changes import ROWS

    stream = config.streams[name]
    data = from_history(config.history_path, name, stream.channels, most_points=POINTS)
    found = measure(champion_of(database, name, stream).detector, data, series, seed)
    if not found:
        raise InputError(
            f"stream {name}: no series has {MIN_POINTS + ROWS} points in the history (there "
            f"are {len(data.series)} series, {len(data)} points); "
            "let the daemon run for a while with storage.history on"
        )
    return found
