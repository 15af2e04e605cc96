"""``anomalies list|show|explain``: what was found, and why."""

from __future__ import annotations

from dataclasses import asdict
from datetime import timedelta
from typing import Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    ToOption,
    config_and_database,
)
from pipeline.cli.output import format_number, show_fields, show_json, show_table
from pipeline.cli.times import show_second, show_time
from pipeline.core.types import Anomaly, AnomalyState, Severity
from pipeline.core.verdict_words import former_cause, former_forecaster

app = typer.Typer(no_args_is_help=True, help="What was found: list, look at one, explain one.")

#: Keys of ``as_dict`` that ``show`` prints as tables of their own, or that only programs read.
_NOT_SHOWN = ("channels", "labels", "guard", "evidence")

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id; the first characters are enough.")]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    series: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN", help="Only series like this; * stands for any text, ? for one character."
        ),
    ] = None,
    severity: Annotated[Severity | None, typer.Option(help="Only this severe, or worse.")] = None,
    state: Annotated[AnomalyState | None, typer.Option(help="Only open or only closed ones.")] = None,
    since: FromOption = None,
    until: ToOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List anomalies, newest first."""
    from storage.results import anomalies

    with config_and_database(config, stream) as (_, database), database.read() as connection:
        found = anomalies.query(
            connection,
            stream=stream,
            series=series,
            state=state,
            severity=severity,
            since_ns=since,
            until_ns=until,
            limit=limit,
        )
    if json:
        show_json([as_dict(anomaly) for anomaly in found])
        return
    show_table(
        ("id", "start", "lasted", "severity", "series", "what"),
        map(_row, found),
        "no anomalies",
        wrap=("series", "what"),
    )


@app.command()
def show(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one anomaly with all that is stored of it."""
    from storage.results import anomalies

    with config_and_database(config) as (_, database), database.read() as connection:
        anomaly = anomalies.get(connection, id_)
    if json:
        show_json(as_dict(anomaly))
        return
    fields = {key: value for key, value in as_dict(anomaly).items() if key not in _NOT_SHOWN}
    show_fields(fields | {"labels": ", ".join(f"{name}={value}" for name, value in anomaly.labels.items())})
    print()
    columns = ("channel", "observed", "expected", "lower", "upper", "contribution")
    show_table(columns, (tuple(channel.values()) for channel in _channels(anomaly)), "no channels")


@app.command()
def explain(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Say why a verdict was given, and whether it still holds.

    It is computed again from the stored points.
    """
    from pipeline.services.explain import explain as recompute
    from storage.results import anomalies

    with config_and_database(config) as (loaded, database):
        with database.read() as connection:
            anomaly = anomalies.get(connection, id_)
        explanation = recompute(loaded, database, anomaly)
    if json:
        show_json(asdict(explanation))
    else:
        print(explanation)


def as_dict(anomaly: Anomaly) -> dict[str, Any]:
    """An anomaly for programs: times in ISO 8601, one object a channel."""
    return {
        "id": str(anomaly.id),
        "stream": anomaly.stream,
        "series": anomaly.series,
        "labels": anomaly.labels,
        "state": anomaly.state.value,
        "severity": anomaly.severity.value,
        "direction": anomaly.direction,
        "start": show_time(anomaly.start_ns),
        "end": show_time(anomaly.end_ns),
        "peak": show_time(anomaly.peak_ns),
        "points": anomaly.points,
        "score": anomaly.score,
        "surprise": anomaly.surprise,
        "forecaster": anomaly.forecaster,
        "cause": anomaly.cause,
        "model_version": anomaly.model_version,
        "config_hash": anomaly.config_hash,
        "topic": anomaly.partition.topic,
        "partition": anomaly.partition.number,
        "first_offset": anomaly.first_offset,
        "last_offset": anomaly.last_offset,
        "peak_offset": anomaly.peak_offset,
        "revision": anomaly.revision,
        "channels": _channels(anomaly),
        # Deprecated names of forecaster and cause, with the words of forewatch 0.1.0.
        "guard": former_forecaster(anomaly.forecaster),
        "evidence": former_cause(anomaly.cause),
    }


def _channels(anomaly: Anomaly) -> list[dict[str, Any]]:
    names = ("channel", "observed", "expected", "lower", "upper", "contribution")
    columns = (
        anomaly.channels,
        anomaly.observed,
        anomaly.expected,
        anomaly.lower,
        anomaly.upper,
        anomaly.contribution,
    )
    return [dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True)]


def _row(anomaly: Anomaly) -> tuple[Any, ...]:
    """One line: the channel that contributed most speaks for the anomaly."""
    from pipeline.config.types import format_duration

    most = max(_channels(anomaly), key=lambda channel: channel["contribution"])
    lasted = format_duration(timedelta(microseconds=(anomaly.end_ns - anomaly.start_ns) // 1000))
    band = f"({format_number(most['lower'])} … {format_number(most['upper'])})"
    return (
        str(anomaly.id)[:8],
        show_second(anomaly.start_ns),
        f"{lasted}, open" if anomaly.state is AnomalyState.OPEN else lasted,
        anomaly.severity.value,
        f"{anomaly.stream}/{anomaly.series}",
        f"{most['channel']} {format_number(most['observed'])} instead of {format_number(most['expected'])} {band}",
    )
