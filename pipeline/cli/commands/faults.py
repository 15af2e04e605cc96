"""``faults list``: what is or was wrong with the watching, not with the watched."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    config_and_database,
)
from pipeline.cli.output import show_json, show_table
from pipeline.cli.times import show_second, show_time

app = typer.Typer(no_args_is_help=True, help="What was wrong with the watching itself.")


@app.callback()
def group() -> None:
    """A group of one command keeps its name."""


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    open_only: Annotated[bool, typer.Option("--open", help="Only those that last.")] = False,
    since: FromOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List faults, newest first."""
    from storage.results import faults

    with config_and_database(config, stream) as (_, database), database.read() as connection:
        found = faults.query(connection, stream=stream, open_only=open_only, since_ns=since, limit=limit)
    if json:
        show_json(
            [
                asdict(fault) | {"started": show_time(fault.started_ns), "ended": show_time(fault.ended_ns)}
                for fault in found
            ]
        )
        return
    rows = (
        (
            show_second(f.started_ns),
            show_second(f.ended_ns) or "lasts",
            f.stream,
            f.kind.value,
            f.partition,
            f.message,
        )
        for f in found
    )
    show_table(
        ("started", "ended", "stream", "kind", "partition", "what to know"),
        rows,
        "no faults",
        wrap=("what to know",),
    )
