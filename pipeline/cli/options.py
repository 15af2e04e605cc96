"""Options that several commands share, each with one name and one help text."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import print_note
from pipeline.cli.times import parse_time

if TYPE_CHECKING:
    from pipeline.config.schema import Config, Stream
    from storage.sql.database import Database

ConfigArgument = Annotated[Path, typer.Argument(metavar="CONFIG", help="Config file.", show_default=True)]
ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", metavar="FILE", envvar="FOREWATCH_CONFIG", help="Config file.")
]
StreamOption = Annotated[str | None, typer.Option("--stream", "-s", metavar="NAME", help="Only this stream.")]
StreamName = Annotated[str, typer.Option("--stream", "-s", metavar="NAME", help="The stream.")]
FromOption = Annotated[
    Any,
    typer.Option(
        "--from",
        parser=parse_time,
        metavar="TIME",
        help="Start of the time range: ISO 8601 (UTC by default), or an age such as 2h or 7d.",
    ),
]
ToOption = Annotated[
    Any,
    typer.Option(
        "--to",
        parser=parse_time,
        metavar="TIME",
        help="End of the time range (exclusive), in the format of --from.",
    ),
]
LimitOption = Annotated[
    int, typer.Option("--limit", "-n", min=1, help="Maximum number of rows; the newest are shown.")
]
ByOption = Annotated[
    str | None,
    typer.Option("--by", metavar="NAME", help="Author of the change (default: the user who is logged in)."),
]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="Reason of the change; it is stored.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

DEFAULT_CONFIG = Path("forewatch.yaml")


@contextmanager
def database_of_file(file: Path, stream: str | None = None) -> Iterator[Database]:
    """Connect to the database that a config file names, for the duration of the block.

    Only what concerns the database is read, unless that is wrong: see ``pipeline.config.database_key``. A
    ``stream`` that the config does not name is only reported on stderr.
    """
    from pipeline.config.database_key import read_database_key
    from storage.sql.database import Database

    key = read_database_key(file)
    if key is None or (stream is not None and stream not in key.streams):
        with config_and_database(file, stream) as (_, database):
            yield database
        return
    database = Database(key.url, key.password)
    try:
        yield database
    finally:
        database.close()


@contextmanager
def config_and_database(file: Path, stream: str | None = None) -> Iterator[tuple[Config, Database]]:
    """Load a config and connect to its database for the duration of the block.

    A ``stream`` that the config does not name is only reported on stderr: the database keeps the streams of
    earlier configs.
    """
    from pipeline.cli.logs import configure_chosen_logs

    configure_chosen_logs()
    from pipeline.config.diagnostics import closest
    from pipeline.config.loader import load_config
    from pipeline.database import database_of

    config = load_config(file)
    if stream is not None and stream not in config.streams:
        print_note(f"the config has no stream {stream!r}: {closest(stream, config.streams)}")
    database = database_of(config)
    try:
        yield config, database
    finally:
        database.close()


def require_stream(config: Config, name: str) -> Stream:
    """Return the stream called ``name``.

    Raises:
        InputError: The config has no such stream; the message lists the names.
    """
    from pipeline.config.diagnostics import closest
    from pipeline.core.errors import InputError

    if name not in config.streams:
        raise InputError(f"the config has no stream {name!r}: {closest(name, config.streams)}")
    return config.streams[name]
