"""Commands ``db upgrade``, ``current`` and ``check``: the schema and the content of the database."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, config_and_database
from pipeline.cli.output import print_note, show_fields, show_json, show_list

app = typer.Typer(no_args_is_help=True, help="Create, upgrade or check the database.")


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


@app.command()
def check(
    config: ConfigOption = DEFAULT_CONFIG,
    repair: Annotated[
        bool, typer.Option("--repair", help="Delete damaged states: their series start with a warm-up.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Read everything that is stored, and list what is damaged.

    Snapshots, states of silent series, positions, models and recorded history are checked. The exit code is 4 if
    something is damaged and was not deleted.
    """
    from pipeline.core.errors import StorageError
    from pipeline.services.storage_check import check_storage, repair_storage

    with config_and_database(config) as (loaded, database):
        found = list(check_storage(loaded, database))
        removed = repair_storage(database, found) if repair else 0
    names = ("kind", "where", "problem", "advice")
    rows = [tuple(str(getattr(one, name)) for name in names) for one in found]
    plain = [dict(zip(names, row, strict=True)) for row in rows]
    show_list(json, plain, names, rows, empty="nothing is damaged", wrap=("problem", "advice"))
    if removed:
        print_note(f"deleted: {removed}")
    if len(found) > removed:
        raise typer.Exit(StorageError.exit_code)
