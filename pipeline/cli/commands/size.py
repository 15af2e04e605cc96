"""Command ``size``: the resources for a number of series and a rate."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import JsonOption
from pipeline.cli.output import print_note, show_fields, show_json

if TYPE_CHECKING:
    from pipeline.services.sizing import Size


class Decision(StrEnum):
    """Rules of an alarm."""

    USUAL_RANGE = "usual_range"
    SURPRISE = "surprise"


class Tier(StrEnum):
    """Detectors with measured figures."""

    LIGHT = "light"
    STANDARD = "standard"
    STRONG = "strong"


def size(
    series: Annotated[int, typer.Option("--series", "-n", min=1, help="Number of series.")],
    rate: Annotated[
        float, typer.Option("--rate", "-r", min=0.001, help="Records per second of all series together.")
    ],
    detector: Annotated[Tier, typer.Option("--detector", "-d", help="Detector.")] = Tier.STANDARD,
    channels: Annotated[int, typer.Option("--channels", min=1, max=1000, help="Values of a record.")] = 1,
    workers: Annotated[
        int, typer.Option("--workers", min=1, max=256, help="Worker processes of a member (`workers`).")
    ] = 1,
    decision: Annotated[
        Decision, typer.Option("--decision", help="Rule of an alarm.")
    ] = Decision.USUAL_RANGE,
    helm: Annotated[bool, typer.Option("--helm", help="Print values of the Helm chart.")] = False,
    json: JsonOption = False,
) -> None:
    """Estimate processes, memory and disk for a load.

    The figures were measured on one kind of machine (docs/lab-notes/benchmarks.md), with small JSON records.
    Each member is planned for half of a core. Measure on your own machine before you rely on it.
    """
    from dataclasses import asdict
    from math import isfinite

    from pipeline.core.errors import InputError
    from pipeline.services.sizing import Load, helm_values, size_of

    if not isfinite(rate):
        raise InputError(f"--rate {rate}: give a number of records per second")
    found = size_of(Load(series, rate, detector.value, channels, decision.value, workers=workers))
    if helm:
        show_json(helm_values(found))
    elif json:
        show_json(asdict(found))
    else:
        show_fields(_rows(found))
        print_note("an estimate from other machines: measure before you rely on it")


def _rows(found: Size) -> dict[str, str]:
    """Return the lines of the table."""
    return {
        "members": f"{found.members} (one of them may be lost)",
        "workers of a member": str(found.workers_in_a_member),
        "partitions": str(found.partitions),
        "CPU": f"{found.cpu_cores:g} cores, {found.member_cpu_cores:g} a member (each worker scores on one)",
        "memory of a member": f"{_bytes(found.member_memory_bytes)}, limit "
        f"{_bytes(found.member_memory_limit_bytes)} ({found.series_in_a_member:,} series of "
        f"{found.state_bytes_a_series:,} bytes)",
        "database": f"{_bytes(found.database_bytes)} for the states, and what anomalies and alerts need",
        "snapshots": f"at most {_bytes(found.snapshot_write_bytes_per_second)}/s are written",
        "recorded history": f"{_bytes(found.history_bytes_a_day)} a day",
    }


def _bytes(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"
