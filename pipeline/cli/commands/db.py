"""Commands ``db upgrade`` and ``current``: the schema of the database."""

from __future__ import annotations

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, config_and_database
from pipeline.cli.output import print_note, show_fields, show_json

app = typer.Typer(no_args_is_help=True, help="Create or upgrade the database schema.")


@app.command()
def upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the tables, or upgrade their schema.

    The data is kept. Running it again changes nothing.
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
    """Show the current and the needed version of the schema."""
    with config_and_database(config) as (_, database):
        found = {"database": str(database), "current": database.current(), "needed": database.head()}
    if json:
        show_json(found)
    else:
        show_fields(found)
