"""Commands ``run`` and ``backfill``: the pipeline over live and over historical records."""

from __future__ import annotations

from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigArgument,
    FromOption,
    JsonOption,
    ToOption,
    config_and_database,
    require_stream,
)

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.daemon.background_service import BackgroundService


def run(
    config: ConfigArgument = DEFAULT_CONFIG,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Reload the config when its file changes (SIGHUP reloads it in any case)."
        ),
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    On shutdown it finishes the current batch, commits it and releases its partitions. With `workers` in the
    config, several processes share the partitions.
    """
    from pipeline.config.loader import load_config
    from pipeline.core.usable_cores import usable_cores
    from pipeline.observability.process_exit import log_exit

    with log_exit("run"):
        loaded = load_config(config)
        count = usable_cores() if loaded.workers == "auto" else loaded.workers
        if count > 1:
            from pipeline.daemon.supervisor import run_supervisor

            code = run_supervisor(config, loaded, count, watch, _services(loaded))
        else:
            # This import loads the detectors, which a supervisor does not need.
            from pipeline.daemon.daemon import run_daemon

            code = run_daemon(config, watch, _services)
    if code:
        raise typer.Exit(code)


def _services(config: Config) -> list[BackgroundService]:
    """Return the server of the dashboard; a reload of the config can start it."""
    from pipeline.api.daemon_service import DashboardService

    return [DashboardService(config)]


def backfill(
    config: ConfigArgument,
    stream: Annotated[
        str, typer.Option("--stream", "-s", metavar="NAME", help="Stream that the records belong to.")
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
            help="CSV or Parquet files (or glob patterns) to read instead of the source of the stream.",
        ),
    ] = None,
    start: FromOption = None,
    end: ToOption = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write every point with its verdict to this file (.csv or .parquet)."
        ),
    ] = None,
    json: JsonOption = False,
) -> None:
    """Score historical records of a stream.

    The records come from files, or from a time range of the source of the stream. The verdicts are the same
    as those of the daemon.
    """
    from pipeline.cli.output import show_fields, show_json
    from pipeline.config.loader import load_config
    from pipeline.core.errors import InputError

    loaded = load_config(config)
    require_stream(loaded, stream)
    paths = _files([*(inputs or ()), *(files or ())])
    if paths and (start is not None or end is not None):
        raise InputError(
            "--input and a time range cannot be combined: files are read completely; leave out one of them"
        )
    if not paths and start is None and end is None:
        raise InputError(
            "no records are selected; name files with --input, or a time range of the source "
            "with --from and --to"
        )
    if start is not None and end is not None and start >= end:
        raise InputError("the time range is empty: --from must be before --to")
    if scores is not None and scores.suffix not in (".csv", ".parquet"):
        raise InputError(f"--scores {scores}: unknown file format; the name must end in .csv or .parquet")
    from pipeline.observability.progress_bar import progress

    # This import loads the detectors, so errors of the arguments are reported first.
    from pipeline.services.backfill import run_backfill

    with progress("backfill") as shown:
        report = run_backfill(loaded, stream, paths or None, start, end, scores, shown)
    fields = report.as_dict()
    _record_backfill(config, stream, {"files": [str(path) for path in paths], **fields})
    if json:
        show_json(fields)
    else:
        show_fields(fields)
    if report.nothing_decoded:
        raise InputError(report.nothing_decoded)


def _record_backfill(config: Path, stream: str, detail: dict[str, Any]) -> None:
    from pipeline.access.audited_changes import backfilled

    with config_and_database(config) as (_, database), database.begin() as connection:
        record(connection, None, backfilled(stream, detail))


def _files(patterns: list[str]) -> list[Path]:
    """Return the files that match the patterns, in their order.

    Raises:
        InputError: A pattern matches no file.
    """
    from pipeline.core.errors import InputError

    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob(pattern, recursive=True)) or ([pattern] if Path(pattern).is_file() else [])
        if not matches:
            raise InputError(f"--input {pattern}: no such file; check the path")
        found += [Path(match) for match in matches]
    return found
