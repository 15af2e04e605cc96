"""Commands ``db upgrade``, ``current``, ``check``, ``backup`` and ``restore``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    JsonOption,
    config_and_database,
    database_of_file,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_list

app = typer.Typer(no_args_is_help=True, help="Create, upgrade, check, back up or restore the database.")


@app.command()
def upgrade(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Create the tables, or upgrade their schema.

    The data is kept. Running it again changes nothing.
    """
    from pipeline.access.audited_changes import Action, database_changed

    with database_of_file(config) as database:
        before = database.current()
        database.upgrade()
        if before not in (None, database.head()):
            change = database_changed(Action.DATABASE_UPGRADE, before=before, after=database.head())
            with database.begin() as connection:
                record(connection, None, change)
        print_note(
            f"{database}: {before or 'empty'} → {database.head()}"
            if before != database.head()
            else f"{database} is up to date ({before})"
        )


@app.command()
def current(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show the current and the needed version of the schema."""
    with database_of_file(config) as database:
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
    from pipeline.access.audited_changes import Action, database_changed
    from pipeline.core.errors import StorageError
    from pipeline.services.storage_check import check_storage, repair_storage

    with config_and_database(config) as (loaded, database):
        found = list(check_storage(loaded, database))
        removed = repair_storage(database, found) if repair else 0
        if removed:
            with database.begin() as connection:
                record(connection, None, database_changed(Action.DATABASE_REPAIR, deleted=removed))
    names = ("kind", "where", "problem", "advice")
    rows = [tuple(str(getattr(one, name)) for name in names) for one in found]
    plain = [dict(zip(names, row, strict=True)) for row in rows]
    show_list(json, plain, names, rows, empty="nothing is damaged", wrap=("problem", "advice"))
    if removed:
        print_note(f"deleted: {removed}")
    if len(found) > removed:
        raise typer.Exit(StorageError.exit_code)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="New file.")],
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Write a backup of the database to a file.

    Daemons may run meanwhile. PostgreSQL needs pg_dump of its version. Copy the recorded history and the
    models afterwards: the database never names a file that does not exist yet.
    """
    from pipeline.config.loader import load_config
    from pipeline.services.database_backup import back_up_database

    size = back_up_database(load_config(config), file)
    print_note(f"wrote {file} ({size:,} bytes)")


@app.command()
def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="File that `db backup` wrote.")],
    config: ConfigOption = DEFAULT_CONFIG,
    replace: Annotated[bool, typer.Option("--replace", help="Delete what the database has now.")] = False,
) -> None:
    """Restore the database from a backup.

    Stop all daemons before. They continue at the positions of the backup: records since then are read and
    scored again, and messages about them are sent again with the same ids.
    """
    from pipeline.access.audited_changes import Action, database_changed
    from pipeline.config.loader import load_config
    from pipeline.services.database_backup import restore_database

    restore_database(load_config(config), file, replace=replace)
    with database_of_file(config) as database:
        if database.current() == database.head():  # a table of an older version may be missing
            with database.begin() as connection:
                record(connection, None, database_changed(Action.DATABASE_RESTORE, file=str(file)))
    print_note("restored; a backup of an older version needs `forewatch db upgrade` before the start")
