"""Commands ``anomalies list``, ``show`` and ``explain``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

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
    database_of_file,
)
from pipeline.cli.output import format_number, show_fields, show_json, show_list, show_table
from pipeline.cli.times import show_second, show_time
from pipeline.config.text_settings import TextSettings, read_text_settings
from pipeline.core.end_text import told_anomaly, told_statement
from pipeline.core.types import END_REASON_TEXTS, Anomaly, AnomalyState, Severity
from pipeline.core.verdict_words import former_cause, former_forecaster

if TYPE_CHECKING:
    from storage.results.labels import Review

app = typer.Typer(no_args_is_help=True, help="List, show and explain anomalies.")

#: Keys of ``as_dict`` that ``show`` prints in a table of their own, or that are kept for programs only.
_NOT_SHOWN = ("channels", "labels", "guard", "evidence")

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the anomaly, or its first characters.")]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    series: Annotated[
        str | None,
        typer.Option(
            metavar="PATTERN",
            help="Only series whose name matches; * is any text, ? is one character.",
        ),
    ] = None,
    severity: Annotated[
        Severity | None, typer.Option(help="Only anomalies of this severity or above.")
    ] = None,
    state: Annotated[AnomalyState | None, typer.Option(help="Only anomalies in this state.")] = None,
    since: FromOption = None,
    until: ToOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List anomalies, newest first."""
    from storage.results import anomalies

    with database_of_file(config, stream) as database, database.read() as connection:
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
    texts = read_text_settings(config)
    columns = ("id", "start", "lasted", "severity", "series", "what")
    rows = (_row(a, _of_stream(texts, a)) for a in found)
    objects = (as_dict(a, _of_stream(texts, a)) for a in found)
    show_list(json, objects, columns, rows, empty="no anomalies", wrap=("series", "what"))


@app.command()
def show(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one anomaly with all its stored fields."""
    from storage.results import anomalies, labels

    with database_of_file(config) as database, database.read() as connection:
        anomaly = anomalies.get(connection, id_)
        review = labels.reviews(connection, [anomaly.id]).get(anomaly.id)
    shown = as_dict(anomaly, _of_stream(read_text_settings(config), anomaly))
    if json:
        show_json(shown | {"review": _review(review)})
        return
    fields = {key: value for key, value in shown.items() if key not in _NOT_SHOWN}
    fields |= {"labels": ", ".join(f"{name}={value}" for name, value in anomaly.labels.items())}
    if (text := END_REASON_TEXTS.get(anomaly.end_reason)) is not None:
        fields |= {"end_reason": f"{anomaly.end_reason}: {text}"}
    if review is not None:
        comment = f": {review.comment}" if review.comment else ""
        reviewed = f"{review.label}, by {review.author} at {show_second(review.created_ns)}{comment}"
        fields |= {"review": reviewed}
    show_fields(fields)
    print()
    columns = ("channel", "observed", "expected", "lower", "upper", "contribution")
    show_table(columns, (tuple(channel.values()) for channel in shown["channels"]), "no channels")


@app.command()
def explain(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Explain the verdict of an anomaly.

    The verdict is recomputed from the recorded history, and differences from the stored one are shown.
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


def _of_stream(texts: Mapping[str, TextSettings], anomaly: Anomaly) -> TextSettings:
    """Return the settings of a sentence, the defaults for an unknown stream."""
    return texts.get(anomaly.stream, TextSettings())


def _row(anomaly: Anomaly, texts: TextSettings) -> tuple[str | None, ...]:
    """Return the row of an anomaly in the list."""
    return (
        str(anomaly.id)[:8],
        show_second(anomaly.began_ns),
        _duration(anomaly),
        anomaly.severity.value,
        f"{anomaly.stream}/{anomaly.series}",
        _largest_deviation(anomaly, texts),
    )


def as_dict(anomaly: Anomaly, texts: TextSettings | None = None) -> dict[str, Any]:
    """Return the JSON object of an anomaly: times in ISO 8601, one object for each channel.

    After the end its numbers are those of the farthest reading, which its sentence states.

    Args:
        anomaly: the anomaly.
        texts: units and time zone of its sentence.
    """
    statement, peak = _statement(anomaly, texts or TextSettings()), anomaly
    anomaly = told_anomaly(anomaly)
    return {
        "id": str(anomaly.id),
        "stream": anomaly.stream,
        "series": anomaly.series,
        "labels": anomaly.labels,
        "state": anomaly.state.value,
        "end_reason": anomaly.end_reason.value or None,
        "severity": anomaly.severity.value,
        "direction": anomaly.direction,
        "start": show_time(anomaly.began_ns),
        "end": show_time(anomaly.lasted_until_ns),
        "peak": show_time(anomaly.peak_ns),
        "points": anomaly.points,
        "readings": anomaly.readings,
        "score": anomaly.score,
        "surprise": anomaly.surprise,
        "forecaster": anomaly.forecaster,
        "cause": anomaly.cause,
        **_deviation(anomaly, statement),
        **_relation(peak),
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


def _statement(anomaly: Anomaly, texts: TextSettings) -> str | None:
    """Return the sentence, None for numbers under the decision "surprise"."""
    return told_statement(anomaly, texts.units.get(anomaly.channels[anomaly.leading_channel]), texts.timezone)


def _deviation(anomaly: Anomaly, statement: str | None) -> dict[str, Any]:
    """Return the sentence of an anomaly and what else explains it."""
    if anomaly.event is not None:
        return {"statement": statement, "event": asdict(anomaly.event)}
    return {"ratio": anomaly.ratio, "statement": statement} if anomaly.ratio else {}


def _relation(anomaly: Anomaly) -> dict[str, Any]:
    """Return what the other channels imply at the peak, nothing for other causes."""
    if anomaly.context is None or anomaly.context.partner is None:
        return {}
    names = ("partner", "partner_value", "implied")
    return {"relation": {name: getattr(anomaly.context, name) for name in names}}


def _review(review: Review | None) -> dict[str, Any] | None:
    """Return the JSON object of the label that a person gave an anomaly."""
    if review is None:
        return None
    at = show_time(review.created_ns)
    return {"label": review.label, "by": review.author, "comment": review.comment, "at": at}


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


def _duration(anomaly: Anomaly) -> str:
    """Return the duration of the deviation, and whether it is open."""
    from pipeline.config.field_types import format_duration

    lasted = format_duration(timedelta(microseconds=(anomaly.lasted_until_ns - anomaly.began_ns) // 1000))
    return f"{lasted}, open" if anomaly.state is AnomalyState.OPEN else lasted


def _largest_deviation(anomaly: Anomaly, texts: TextSettings) -> str:
    """Describe the leading channel: its quantity and usual range, or observed, expected and band.

    Args:
        anomaly: the anomaly.
        texts: units and time zone of its sentence.
    """
    if text := _statement(anomaly, texts):
        return text
    most = _channels(anomaly)[anomaly.leading_channel]
    band = f"({format_number(most['lower'])} … {format_number(most['upper'])})"
    observed, expected = format_number(most["observed"]), format_number(most["expected"])
    return f"{most['channel']} {observed} instead of {expected} {band}"
