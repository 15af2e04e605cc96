"""Command ``faults list``: pipeline faults, such as a database or source that does not answer."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    database_of_file,
)
from pipeline.cli.output import show_list
from pipeline.cli.times import show_second, show_time
from pipeline.core.types import Fault

app = typer.Typer(no_args_is_help=True, help="Pipeline faults: problems of the monitoring itself.")


@app.callback()
def group() -> None:
    """Keep the name of the group although it has one command."""


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only faults that are open now.")] = False,
    since: FromOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List faults, newest first."""
    from storage.results import faults

    with database_of_file(config, stream) as database, database.read() as connection:
        found = faults.query(connection, stream=stream, open_only=open_only, since_ns=since, limit=limit)
    columns = ("started", "ended", "stream", "kind", "partition", "message")
    rows = (
        (
            show_second(f.started_ns),
            show_second(f.ended_ns) or "open",
            f.stream,
            f.kind.value,
            f.partition,
            f.message,
        )
        for f in found
    )
    show_list(json, map(_as_dict, found), columns, rows, empty="no faults", wrap=("message",))


def _as_dict(fault: Fault) -> dict[str, Any]:
    """Return the JSON object of a fault."""
    return asdict(fault) | {"started": show_time(fault.started_ns), "ended": show_time(fault.ended_ns)}
