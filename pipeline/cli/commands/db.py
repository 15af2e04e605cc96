"""``db upgrade|current``: the schema of the database."""

from __future__ import annotations

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, config_and_database
from pipeline.cli.output import print_note, show_fields, show_json

app = typer.Typer(no_args_is_help=True, help="The tables of the database, and their version.")


@app.command()
def upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the tables, or bring them to this version.

    Safe to repeat; what is in them stays.
    """
    with config_and_database(config) as (_, database):
        before = database.current()
        database.upgrade()
        print_note(
            f"{database}: {before or 'empty'} → {database.head()}"
            if before != database.head()
            else f"{database} is up to date ({before})"
        )


@app.command()
def current(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show the version of the tables, and the one needed."""
    with config_and_database(config) as (_, database):
        found = {"database": str(database), "current": database.current(), "needed": database.head()}
    if json:
        show_json(found)
    else:
        show_fields(found)
