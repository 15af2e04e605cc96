"""``kafka up|down|status``: a real Apache Kafka on this machine, for trying things out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import JsonOption
from pipeline.cli.output import print_note, show_fields, show_json

app = typer.Typer(no_args_is_help=True, help="A local Apache Kafka, without Docker or Java.")

_DEFAULT_DIR = Path(".forewatch") / "kafka"
Folder = Annotated[Path, typer.Option("--dir", metavar="FOLDER", help="Folder of its data and log.")]


@app.command()
def up(
    folder: Folder = _DEFAULT_DIR,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0: the one it had, or a free one.")
    ] = 0,
) -> None:
    """Start it (unless it runs) and print its address. The first start downloads Kafka."""
    from pipeline.local_kafka.broker import LocalBroker

    print(LocalBroker(folder, port, announce=print_note).up())


@app.command()
def down(folder: Folder = _DEFAULT_DIR) -> None:
    """Stop it; its data stay."""
    from pipeline.local_kafka.broker import LocalBroker

    stopped = LocalBroker(folder, announce=print_note).down()
    print_note("stopped" if stopped else f"no broker runs in {folder}")


@app.command()
def status(folder: Folder = _DEFAULT_DIR, json: JsonOption = False) -> None:
    """Show whether it runs and answers. Exit code 3 if it does not."""
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
