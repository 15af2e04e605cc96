"""Command ``backfill``: the pipeline over historical records."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    ConfigArgument,
    FromOption,
    JsonOption,
    ToOption,
    config_and_database,
    require_stream,
)

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice
    from pipeline.services.backfill import BackfillReport
    from pipeline.services.backfill_plan import BackfillPlan, Shard

#: Numbers of workers for which a plan states the time.
PLANNED_WORKERS = (1, 2, 4, 16, 100)


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
    filled: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write every value to this file (.csv or .parquet), with gaps filled and smoothed from both "
            "sides by a bidirectional network. Needs forewatch[train].",
        ),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE",
            help="Divide the work: local or local:N for N processes on this machine, or the address of a "
            "Dask scheduler (tcp://host:8786, tls://host:8786). Needs PostgreSQL.",
        ),
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Only print the parts, and the time for several numbers of workers."),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Score historical records of a stream.

    The records come from files, or from a time range of the source of the stream. Without either they come
    from the files of a stream that reads files. The verdicts are the same as those of the daemon. With
    --cluster, a command that was interrupted continues when it is run again.
    """
    from pipeline.cli.output import show_fields, show_json
    from pipeline.config.loader import load_config
    from pipeline.core.errors import InputError

    loaded = load_config(config)
    require_stream(loaded, stream)
    paths = _selected(loaded, stream, [*(inputs or ()), *(files or ())], start, end)
    for option, file in (("--scores", scores), ("--filled", filled)):
        if file is not None and file.suffix not in (".csv", ".parquet"):
            raise InputError(f"{option} {file}: unknown file format; the name must end in .csv or .parquet")
    if filled is not None:
        others = [*paths, *([scores] if scores else [])]
        _check_filled(loaded, stream, filled, others, alone=cluster is None and not plan)
    # These imports load the detectors, so errors of the arguments are reported first.
    if plan or cluster is not None:
        from pipeline.jobs.cluster_backfill import ClusterBackfill, ClusterChoice

        choice = None if cluster is None else ClusterChoice.of(cluster)
        work = ClusterBackfill(loaded, stream, _names(paths, choice), start, end, scores)
        if plan:
            _show_plan(work, choice, json)
            return
        assert choice is not None
        fields, nothing_decoded = _on_cluster(work, choice)
    else:
        report = _in_this_process(loaded, stream, paths, (start, end), scores, filled)
        fields, nothing_decoded = report.as_dict(), report.nothing_decoded
    _record_backfill(config, stream, {"files": [str(path) for path in paths], **fields})
    if json:
        show_json(fields)
    else:
        show_fields(fields)
    if nothing_decoded:
        raise InputError(nothing_decoded)


def _check_filled(config: Config, stream: str, path: Path, others: Sequence[Path], *, alone: bool) -> None:
    """Raise InputError, before anything is scored, if no file can be filled."""
    from pipeline.core.errors import InputError
    from pipeline.core.extras import require_training
    from pipeline.services.gap_filling import check_filled_path

    if not alone:
        raise InputError("--filled needs all rows in one process: leave out --cluster and --plan")
    if config.streams[stream].of_events:
        raise InputError(f"--filled: stream {stream} has events, which have no values to fill in")
    check_filled_path(path, others)
    require_training()


def _in_this_process(
    config: Config,
    stream: str,
    paths: list[Path],
    span: tuple[int | None, int | None],
    scores: Path | None,
    filled: Path | None,
) -> BackfillReport:
    from pipeline.observability.progress_bar import progress
    from pipeline.services.backfill import run_backfill

    with progress("backfill") as shown:
        return run_backfill(config, stream, paths or None, *span, scores, shown, filled=filled)


def _on_cluster(work: ClusterBackfill, choice: ClusterChoice) -> tuple[dict[str, Any], str]:
    """Return the summary, and the reason why no record could be decoded."""
    from pipeline.observability.progress_bar import progress

    with progress("backfill") as shown:
        done = work.run(choice, shown)
    return done.as_dict(), done.report.nothing_decoded


def _names(paths: list[Path], choice: ClusterChoice | None) -> tuple[str, ...] | None:
    """Return the names of the files; other machines need absolute ones."""
    if not paths:
        return None
    elsewhere = choice is not None and choice.scheduler is not None
    return tuple(str(path.absolute() if elsewhere else path) for path in paths)


def _show_plan(work: ClusterBackfill, choice: ClusterChoice | None, json: bool) -> None:
    """Print the parts of a backfill and the estimated times."""
    from pipeline.cli.output import print_note, show_json, show_table
    from pipeline.database import open_database
    from pipeline.services.backfill_plan import time_range

    with open_database(work.config) as database:
        plan, _ = work.plan(database)
    counts = sorted({*PLANNED_WORKERS, *([choice.workers] if choice and choice.workers else ())})
    seconds = {count: round(plan.seconds(count), 1) for count in counts}
    if json:
        show_json(_plan_fields(plan) | {"seconds_by_workers": seconds})
        return
    rows = [
        (
            shard.number,
            f"{shard.rows:,}",
            f"{shard.rows_read:,}",
            f"{plan.cost.seconds(shard):.0f} s",
            _input_of(shard),
        )
        for shard in plan.shards
    ]
    show_table(("part", "rows", "rows read", "time", "input"), rows, "no rows", wrap=("input",))
    print()
    times = [(count, _duration(one)) for count, one in seconds.items()]
    show_table(("workers", "estimated time"), times, "")
    period = time_range(plan)
    print_note(f"{plan.rows:,} rows in {len(plan.shards)} parts{', ' + period if period else ''}")
    for note in plan.notes:
        print_note(note)


def _plan_fields(plan: BackfillPlan) -> dict[str, Any]:
    """Return a plan as plain JSON."""
    parts = [
        {
            "part": shard.number,
            "rows": shard.rows,
            "rows_read": shard.rows_read,
            "seconds": round(plan.cost.seconds(shard), 1),
            "input": _input_of(shard),
        }
        for shard in plan.shards
    ]
    return {
        "run": plan.run,
        "stream": plan.stream,
        "rows": plan.rows,
        "parts": parts,
        "notes": list(plan.notes),
    }


def _input_of(shard: Shard) -> str:
    """Return the input of a part as text."""
    first = shard.parts[0]
    text = first.topic if shard.group is not None or first.end < 0 else str(first.partition)
    if len(shard.parts) > 1:
        text += f" and {len(shard.parts) - 1} more"
    if shard.group is None:
        return text
    if shard.group.by_range:
        limits = (shard.group.low or b"", shard.group.high or b"")
        low, high = (one.decode(errors="replace") for one in limits)
        return f"{text}: series from {low or 'the first'} to {high or 'the last'}"
    return f"{text}: series, group {shard.group.index + 1} of {shard.group.count}"


def _duration(seconds: float) -> str:
    from datetime import timedelta

    return str(timedelta(seconds=round(seconds)))


def _record_backfill(config: Path, stream: str, detail: dict[str, Any]) -> None:
    from pipeline.access.audited_changes import backfilled

    with config_and_database(config) as (_, database), database.begin() as connection:
        record(connection, None, backfilled(stream, detail))


def _selected(
    config: Config, stream: str, patterns: list[str], start: int | None, end: int | None
) -> list[Path]:
    """Return the files to read, none for a time range of the source.

    Raises:
        InputError: Nothing is selected, or both files and a time range are.
    """
    from pipeline.core.errors import InputError

    paths = _files(patterns, "--input ")
    if start is not None or end is not None:
        if paths:
            raise InputError(
                "--input and a time range cannot be combined: files are read completely; leave out one of "
                "them"
            )
        if start is not None and end is not None and start >= end:
            raise InputError("the time range is empty: --from must be before --to")
        return []
    if not paths and (own := config.streams[stream].source.files) is not None:
        paths = _files(own.paths, f"streams.{stream}.source.files.paths: ")
    if not paths:
        raise InputError(
            "no records are selected; name files with --input, or a time range of the source "
            "with --from and --to"
        )
    return paths


def _files(patterns: list[str], origin: str) -> list[Path]:
    """Return the files that match the patterns, in their order.

    Raises:
        InputError: A pattern matches no file; the message begins with ``origin``.
    """
    from pipeline.core.errors import InputError

    found: list[Path] = []
    for pattern in patterns:
        matches = sorted(glob(pattern, recursive=True)) or ([pattern] if Path(pattern).is_file() else [])
        if not matches:
            raise InputError(f"{origin}{pattern}: no such file; check the path")
        found += [Path(match) for match in matches]
    return found
