"""Commands ``kafka up``, ``down`` and ``status``: a local Apache Kafka broker for evaluation and tests."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption
from pipeline.cli.output import print_note, show_fields, show_json

app = typer.Typer(no_args_is_help=True, help="A local Apache Kafka broker, without Docker or Java.")

_DEFAULT_DIR = Path(".forewatch") / "kafka"
Folder = Annotated[
    Path, typer.Option("--dir", metavar="FOLDER", help="Folder of the data and the log of the broker.")
]


@app.command()
def up(
    folder: Folder = _DEFAULT_DIR,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port of the broker; 0 reuses its last port or takes a free one."
        ),
    ] = 0,
) -> None:
    """Start the broker unless it is running, and print its address.

    The first start downloads Apache Kafka.
    """
    from pipeline.local_kafka.broker import LocalBroker

    print(LocalBroker(folder, port, announce=print_note).up())


@app.command()
def down(folder: Folder = _DEFAULT_DIR) -> None:
    """Stop the broker; its data is kept."""
    from pipeline.local_kafka.broker import LocalBroker

    stopped = LocalBroker(folder, announce=print_note).down()
    print_note("stopped" if stopped else f"no broker is running in {folder}")


@app.command()
def status(folder: Folder = _DEFAULT_DIR, json: JsonOption = False) -> None:
    """Show whether the broker is running and answers.

    The exit code is 3 if it does not answer.
    """
    from pipeline.local_kafka.broker import LocalBroker

    found = LocalBroker(folder, announce=print_note).status()
    fields = {
        "address": found.address,
        "running": found.running,
        "answers": found.answers,
        "process": found.pid,
        "folder": str(found.data_dir),
    }
    if json:
        show_json(fields)
    else:
        show_fields(
            {
                name: {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
                for name, value in fields.items()
            }
        )
    if not found.answers:
        raise typer.Exit(3)
