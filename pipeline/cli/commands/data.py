"""Commands ``data list`` and ``data fetch``: open data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.output import print_note, show_table

app = typer.Typer(help="Open data sets to measure detectors with.", no_args_is_help=True)

Folder = Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Data folder; each set has one in it.")]


@app.command("list")
def list_(folder: Folder = Path("data")) -> None:
    """List the sets, their origins and what is there."""
    from pipeline.evaluate.open_data import states

    columns = ("set", "folder", "what", "origin", "licence", "state")
    rows = (
        (one.name, str(folder / one.folder), one.title, one.origin, one.licence, state)
        for one, state in states(folder)
    )
    show_table(columns, rows, "", wrap=("what", "origin"))


@app.command("fetch")
def fetch(
    sets: Annotated[
        list[str] | None, typer.Argument(metavar="[SET]...", help="Sets, all that can be fetched by default.")
    ] = None,
    folder: Folder = Path("data"),
    mirror: Annotated[
        str | None,
        typer.Option(help="Address of a server with the files by their paths, in place of the origins."),
    ] = None,
) -> None:
    """Fetch open data sets and verify their hashes.

    Files that are there are kept. Where a file cannot be fetched, the exit code is 3, and the message names
    its address, its hash and the place to put it.
    """
    from pipeline.core.errors import InputError
    from pipeline.evaluate.open_data import fetch_set, open_sets

    known = open_sets(mirror)
    chosen = sets or [name for name, one in known.items() if one.files]
    if unknown := [name for name in chosen if name not in known]:
        raise InputError(f"there is no set {unknown[0]}; there are {', '.join(known)}")
    for name in chosen:
        fetched = fetch_set(known[name], folder)
        print_note(f"{name}: fetched {fetched} files, all {len(known[name].files)} are in {folder}")
