"""``templates list``: the templates of the log lines of a stream."""

from __future__ import annotations

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    StreamName,
    config_and_database,
    require_stream,
)
from pipeline.cli.output import show_json, show_table

app = typer.Typer(no_args_is_help=True, help="List the templates of log lines.")


@app.callback()
def group() -> None:
    """List the templates of log lines."""


@app.command("list")
def list_(stream: StreamName, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List the templates of a stream by partition.

    They are those of the newest snapshots, the most frequent first.
    """
    from pipeline.services.stored_templates import stored_templates

    with config_and_database(config) as (loaded, database):
        require_stream(loaded, stream)
        found = stored_templates(loaded, database, stream)
    if json:
        show_json(
            [
                {"partition": str(one.partition), "code": one.code, "lines": one.lines, "template": one.text}
                for one in found
            ]
        )
        return
    show_table(
        ("partition", "code", "lines", "template"),
        [(str(one.partition), one.code, one.lines, one.text) for one in found],
        "no templates are stored yet",
    )
