"""``run`` and ``backfill``: the same pipeline over the live log and over history."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import Annotated

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigArgument,
    FromOption,
    JsonOption,
    ToOption,
    require_stream,
)


def run(
    config: ConfigArgument = DEFAULT_CONFIG,
    watch: Annotated[
        bool, typer.Option("--watch", help="Take a changed config by itself (SIGHUP always does).")
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    It then finishes its batch, commits, and leaves its partitions to others.
    """
    from pipeline.daemon.daemon import run_daemon

    raise typer.Exit(run_daemon(config, watch))


def backfill(
    config: ConfigArgument,
    stream: Annotated[
        str, typer.Option("--stream", "-s", metavar="NAME", help="The stream whose records these are.")
    ],
    files: Annotated[
        list[str] | None, typer.Argument(metavar="FILES", help="More input files.", show_default=False)
    ] = None,
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            metavar="FILE",
            help="Read these files (CSV or Parquet; patterns work) instead of the stream's source.",
        ),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    scores: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write every point with its verdict here: .csv or .parquet."),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Run a stream over history.

    The history is in files, or in a time range of the stream's own source. The verdicts are those that the
    daemon would give.
    """
    from pipeline.cli.output import show_fields, show_json
    from pipeline.config.loader import load_config
    from pipeline.core.errors import InputError

    loaded = load_config(config)
    require_stream(loaded, stream)
    paths = _files([*(inputs or ()), *(files or ())])
    if paths and (start is not None or end is not None):
        raise InputError("--input or a time range, not both: files are read whole")
    if not paths and start is None and end is None:
        raise InputError(
            "backfill what? Name files with --input, or a time range of the stream's own source with --from and --to"
        )
    if start is not None and end is not None and start >= end:
        raise InputError("--from is not before --to: the range is empty")
    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise InputError(f"--scores {scores}: the ending says the format; give .csv or .parquet")
    from pipeline.observability.progress_bar import progress

    # imports the detectors: mistakes are told before that
    from pipeline.services.backfill import run_backfill

    with progress("backfill") as shown:
        report = run_backfill(loaded, stream, paths or None, start, end, scores, shown)
    fields = report.as_dict()
    if json:
        show_json(fields)
    else:
        show_fields(fields)


def _files(patterns: list[str]) -> list[Path]:
    """The files that the patterns name, in their order. Raises InputError where one names none."""
    from pipeline.core.errors import InputError

    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob(pattern, recursive=True)) or ([pattern] if Path(pattern).is_file() else [])
        if not matches:
            raise InputError(f"--input {pattern}: no such file")
        found += [Path(match) for match in matches]
    return found
