"""Options that several commands share: one name, one meaning, one help text."""

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
        help="Begin here: ISO 8601 (UTC unless it names a zone), or how long ago: 2h, 7d.",
    ),
]
ToOption = Annotated[
    Any, typer.Option("--to", parser=parse_time, metavar="TIME", help="End before this; written like --from.")
]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many, the newest.")]
ByOption = Annotated[
    str | None, typer.Option("--by", metavar="NAME", help="Who; left out: the user that is logged in.")
]
WhyOption = Annotated[str, typer.Option("--why", metavar="TEXT", help="Why; it is kept.")]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON for programs instead of a table for people.")]

DEFAULT_CONFIG = Path("forewatch.yaml")


@contextmanager
def config_and_database(file: Path, stream: str | None = None) -> Iterator[tuple[Config, Database]]:
    """The config and its database, for commands that look into it; it is closed at the end of the block.

    A ``stream`` that the config does not know is no mistake, for the database keeps what an earlier config
    named; but it may be a slip of the pen.
    """
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
    """The stream called ``name``. Raises InputError with the names that there are."""
    from pipeline.config.diagnostics import closest
    from pipeline.core.errors import InputError

    if name not in config.streams:
        raise InputError(f"the config has no stream {name!r}: {closest(name, config.streams)}")
    return config.streams[name]
