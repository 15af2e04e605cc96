"""``quarantine list|add|remove``: intervals that are excluded from training."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigOption,
    JsonOption,
    StreamName,
    StreamOption,
    WhyOption,
    config_and_database,
    database_of_file,
    require_stream,
)
from pipeline.cli.output import print_note, show_json, show_table
from pipeline.cli.times import parse_time, show_second, show_time

app = typer.Typer(no_args_is_help=True, help="Manage intervals that are excluded from training.")

_TIME = "ISO 8601 (UTC unless it has a zone), or an age such as 2h or 7d."


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    by_hand: Annotated[bool, typer.Option("--by-hand", help="Only ranges that people excluded.")] = False,
    json: JsonOption = False,
) -> None:
    """List the intervals that the next training excludes.

    They are ranges added by hand, labelled anomalies and flagged points.
    """
    from pipeline.jobs.requests import excluded_intervals

    found: list[dict[str, Any]] = []
    with config_and_database(config, stream) as (loaded, database):
        names = [stream] if stream is not None else list(loaded.streams)
        for name in names:
            require_stream(loaded, name)
            found += excluded_intervals(database, loaded, name, by_hand)
    if json:
        show_json(
            [
                one | {"from": show_time(one.pop("start_ns")), "to": show_time(one.pop("end_ns"))}
                for one in found
            ]
        )
        return
    rows = [
        (
            one["id"],
            one["stream"],
            one["series"] or "all",
            show_second(one["start_ns"]),
            show_second(one["end_ns"]),
            one["points"],
            one["why"],
            one["by"],
        )
        for one in found
    ]
    show_table(
        ("id", "stream", "series", "from", "to", "points", "why", "by"),
        rows,
        "no excluded intervals",
        wrap=("series", "why"),
    )


@app.command()
def add(
    stream: StreamName,
    start: Annotated[
        Any, typer.Option("--from", parser=parse_time, metavar="TIME", help=f"Beginning: {_TIME}")
    ],
    end: Annotated[
        Any, typer.Option("--to", parser=parse_time, metavar="TIME", help=f"End, exclusive: {_TIME}")
    ],
    series: Annotated[
        str | None, typer.Option(metavar="SERIES", help="Series; left out: all series of the stream.")
    ] = None,
    why: WhyOption = "by hand",
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Exclude a range of time from training."""
    from time import time_ns

    from pipeline.access.audited_changes import range_excluded
    from pipeline.cli.argument_values import author_name
    from pipeline.core.errors import InputError
    from storage.model_store import quarantine
    from storage.model_store.quarantine import ExcludedRange

    if start >= end:
        raise InputError("--from is not before --to: the range is empty")
    with config_and_database(config) as (loaded, database):
        require_stream(loaded, stream)
        with database.begin() as connection:
            excluded = ExcludedRange(0, stream, series, start, end, why, author_name(by), time_ns())
            number = quarantine.add(connection, excluded)
            record(connection, by, range_excluded(number, excluded))
    print(number)
    print_note(f"excluded from trainings of {stream}; undo with: forewatch quarantine remove {number}")


@app.command()
def remove(
    id_: Annotated[int, typer.Argument(metavar="ID", help="Number of the range.")],
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Return a range to training."""
    from time import time_ns

    from pipeline.access.audited_changes import range_returned
    from pipeline.cli.argument_values import author_name
    from pipeline.core.errors import InputError
    from storage.model_store import quarantine

    with database_of_file(config) as database, database.begin() as connection:
        record(connection, by, range_returned(id_))
        if not quarantine.remove(connection, id_, author_name(by), time_ns()):
            raise InputError(
                f"there is no range {id_}; list the ranges with `forewatch quarantine list --by-hand`"
            )
    print(f"range {id_} is no longer excluded from training")
