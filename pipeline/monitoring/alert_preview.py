"""Messages of the last week of a stream under other rules.

Another sensitivity scores the recorded points again.

Nothing is stored, and nothing is sent.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from pipeline.alerts.simulation import SimulationReport, simulate
from pipeline.config.alerts import AlertsConfig
from pipeline.config.schema import ALARM_RATES, Config
from pipeline.config.yaml_limits import YamlTooLarge, load_limited
from pipeline.config.yaml_text import yaml_of
from pipeline.core.durations import DAY_NS
from pipeline.core.errors import InputError
from pipeline.core.types import Anomaly
from pipeline.monitoring.history_replay import read_recorded
from pipeline.monitoring.sensitivity_trial import anomalies_at_rate
from storage.results import anomalies, faults
from storage.sql.database import Database

PREVIEW_DAYS = 7
MAX_SIMULATED = 5_000
MAX_RESCORED_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class AlertPreview:
    """Messages between two times, and the anomalies that they are about."""

    since_ns: int
    until_ns: int
    anomalies: int
    report: SimulationReport


def rules_text(config: Config, stream: str) -> str:
    """Return the alert rules of a stream as YAML, without default values."""
    rules = config.streams[stream].alerts.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return yaml_of(rules)


def with_rules(config: Config, stream: str, text: str) -> Config:
    """Return a config of one stream with other alert rules.

    A preview asks about the rules, not about the age of stored records.

    Raises:
        InputError: The text is not a valid block `alerts` of a stream.
    """
    try:
        rules = AlertsConfig.model_validate(load_limited(YAML(typ="safe"), text) or {})
    except (YamlTooLarge, RecursionError) as error:
        raise InputError(f"rules: {error}; write them plainly") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise InputError(f"rules: {where}{getattr(error, 'problem', None) or 'not YAML'}") from None
    except ValidationError as error:
        said = (f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise InputError(f"rules: {'; '.join(said)}") from None
    _require_known(config, stream, rules)
    chosen = config.streams[stream].model_copy(update={"alerts": rules.model_copy(update={"max_age": None})})
    return config.model_copy(update={"streams": {stream: chosen}})


def preview_alerts(
    config: Config,
    database: Database,
    stream: str,
    *,
    rules: str | None = None,
    sensitivity: str | None = None,
) -> AlertPreview:
    """Route the anomalies of the last week of a stream.

    Args:
        config: The configuration.
        database: Its database.
        stream: Name of the stream.
        rules: Other alert rules as YAML (default: those of the config).
        sensitivity: Score the newest recorded points again with low, normal or high.

    Raises:
        InputError: The rules or the sensitivity cannot be used, or nothing is recorded.
        OSError: The recorded history cannot be read.
    """
    if not config.endpoints:
        raise InputError(
            "the config has no endpoint, so that no message would be sent; add one under endpoints:"
        )
    changed = with_rules(config, stream, rules_text(config, stream) if rules is None else rules)
    if sensitivity is not None:
        past, until_ns = _rescored(config, database, stream, sensitivity)
    with database.read() as connection:
        if sensitivity is None:
            newest = anomalies.query(connection, stream=stream, limit=1)
            until_ns = newest[0].end_ns + 1 if newest else time.time_ns()
        since_ns = until_ns - PREVIEW_DAYS * DAY_NS
        if sensitivity is None:
            past = anomalies.query(
                connection, stream=stream, since_ns=since_ns, until_ns=until_ns, limit=MAX_SIMULATED
            )
        happened = faults.query(connection, stream=stream, since_ns=since_ns)
    past_faults = [one for one in happened if one.started_ns < until_ns]
    report = simulate(changed, past, past_faults, since_ns, until_ns)
    return AlertPreview(since_ns, until_ns, len(past), report)


def _rescored(config: Config, database: Database, stream: str, sensitivity: str) -> tuple[list[Anomaly], int]:
    """Return the anomalies of another sensitivity, and the end of the points."""
    if sensitivity not in ALARM_RATES:
        raise InputError(f"sensitivity={sensitivity}: write one of {', '.join(ALARM_RATES)}")
    chosen = config.streams[stream]
    rows = read_recorded(config.history_path, stream, chosen, MAX_RESCORED_ROWS)
    until_ns = int(rows.points.time.max()) + 1
    since_ns = until_ns - PREVIEW_DAYS * DAY_NS
    found = anomalies_at_rate(database, chosen, ALARM_RATES[sensitivity], rows, since_ns)
    return found[-MAX_SIMULATED:], until_ns


def _require_known(config: Config, stream: str, rules: AlertsConfig) -> None:
    """Raise InputError for an endpoint or a file that the config does not name."""
    named = [
        *(rules.to or ()),
        *(rules.faults.to or ()),
        *(name for one in rules.rules for name in one.to or ()),
    ]
    for name in named:
        if name not in config.endpoints:
            known = ", ".join(config.endpoints)
            raise InputError(f"rules: the config has no endpoint {name!r}; it has {known}")
    allowed = _calendars(config.streams[stream].alerts)
    for path in _calendars(rules) - allowed:
        raise InputError(f"rules: calendar {path}: a preview reads only calendars that the config names")


def _calendars(rules: AlertsConfig) -> set[Path]:
    return {one.calendar for one in rules.silences.values() if one.calendar is not None}


def by_day(preview: AlertPreview) -> list[int]:
    """Return the number of messages of each day."""
    counts = [0] * PREVIEW_DAYS
    for _, at_ns, _ in preview.report.sent:
        counts[min(PREVIEW_DAYS - 1, max(0, int((at_ns - preview.since_ns) // DAY_NS)))] += 1
    return counts


def values_of(preview: AlertPreview, stream: str) -> dict[str, Any]:
    """Return the counts of a preview."""
    report = preview.report
    return {
        "anomalies": preview.anomalies,
        "messages": len(report.sent),
        "pages": report.streams[stream].pages if stream in report.streams else 0,
        "dropped": len(report.dropped),
        "by_day": by_day(preview),
    }
