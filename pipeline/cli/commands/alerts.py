"""``alerts list|show|test|ack|label|ledger``: what became of anomalies, and what would become of them."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigArgument,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    StreamOption,
    config_and_database,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_table
from pipeline.cli.times import parse_time, show_second, show_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from pipeline.alerts.simulation import SimulationReport, StreamReport
    from storage.alerting.alerts import AlertRecord

app = typer.Typer(no_args_is_help=True, help="Alerts: list, show, acknowledge, label, try out rules.")

#: Keys of --json that differ from the attributes.
_JSON_KEYS = {"queue": "lane", "suppressed_by": "held_by", "notified": "told"}

Id = Annotated[str, typer.Argument(metavar="ID", help="Its id; the first characters are enough.")]


class Truth(StrEnum):
    TRUE = "true"
    FALSE = "false"
    MAINTENANCE = "maintenance"


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Also those that are over.")] = False,
    since: FromOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List alerts that last, newest first; silenced ones, too."""
    from storage.alerting import alerts
    from storage.alerting.states import AlertState

    with config_and_database(config, stream) as (_, database), database.read() as connection:
        found = alerts.query(
            connection,
            stream=stream,
            states=None if all_ else (AlertState.WAITING, AlertState.OPEN),
            since_ns=since,
            limit=limit,
        )
    if json:
        show_json([_as_dict(alert) for alert in found])
        return
    rows = (
        (
            str(a.alert_id)[:13],
            show_second(a.opened_ns),
            a.stream,
            a.group_key,
            a.severity,
            a.urgency,
            f"{a.open_count} of {a.count}",
            _state(a),
        )
        for a in found
    )
    show_table(
        ("id", "since", "stream", "series or group", "severity", "urgency", "open", "state"),
        rows,
        "no alerts",
    )


@app.command()
def show(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one alert: its anomalies, and what was sent to whom."""
    from storage.alerting import alerts, deliveries

    with config_and_database(config) as (_, database), database.read() as connection:
        alert = _alert(connection, id_)
        members = alerts.members_of(connection, alert.alert_id, 20)
        sent = deliveries.query(connection, alert_id=alert.alert_id)
    if json:
        show_json(
            _as_dict(alert)
            | {"anomalies": [str(m.subject) for m in members], "deliveries": [str(d.id) for d in sent]}
        )
        return
    show_fields(_as_dict(alert))
    print()
    rows = [
        (str(m.subject)[:13], m.series, m.state, m.severity, show_second(m.start_ns), show_second(m.end_ns))
        for m in members
    ]
    show_table(("anomaly", "series", "state", "severity", "from", "to"), rows, "no anomalies")
    print()
    notified = [
        (d.id.hex[:8], show_second(d.created_ns), d.endpoint, d.kind, d.state, d.reason, d.attempts)
        for d in sent
    ]
    show_table(
        ("delivery", "created", "endpoint", "kind", "state", "reason", "attempts"),
        notified,
        "nothing was sent",
    )


@app.command()
def ack(id_: Id, config: ConfigOption = DEFAULT_CONFIG, by: ByOption = None) -> None:
    """Say that somebody looks after an alert.

    It is not repeated, and its receivers are told.
    """
    from time import time_ns
    from uuid import uuid4

    from pipeline.cli.identity import author_name
    from pipeline.core.errors import InputError
    from storage.alerting import outbox
    from storage.alerting.states import EventKind

    with config_and_database(config) as (_, database), database.begin() as connection:
        alert = _alert(connection, id_)
        if alert.state != "open":
            raise InputError(f"alert {id_} is {_state(alert)}: there is nothing to acknowledge")
        outbox.add_events(
            connection,
            [
                outbox.OutboxEvent(
                    uuid4(), alert.stream, EventKind.ACKNOWLEDGED, alert.alert_id, author_name(by), time_ns()
                )
            ],
        )
    print(f"{alert.alert_id} is acknowledged")


@app.command()
def label(
    id_: Annotated[
        str, typer.Argument(metavar="ANOMALY", help="Id of the anomaly; the first characters are enough.")
    ],
    label: Annotated[
        Truth,
        typer.Argument(
            metavar="TRUTH",
            help="true: it was one. false: it was none; who was told is told so. maintenance: known work.",
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    by: ByOption = None,
) -> None:
    """Say whether an anomaly was one.

    A true one and maintenance are kept out of training, a false one goes back into it, and an alert about it
    is retracted.
    """
    from dataclasses import replace
    from time import time_ns

    from pipeline.alerts.outbox import OutboxWriter
    from pipeline.cli.identity import author_name
    from pipeline.core.types import AnomalyState
    from storage.results import anomalies, labels

    now_ns = time_ns()
    with config_and_database(config) as (loaded, database), database.begin() as connection:
        anomaly = anomalies.get(connection, id_)
        labels.put(connection, anomaly.id, label.value, author_name(by), comment, now_ns)
        if label is Truth.FALSE:
            retracted = replace(anomaly, state=AnomalyState.CLOSED, points=0)
            OutboxWriter(anomaly.stream, enabled=bool(loaded.endpoints)).on_changes(
                connection, [retracted], now_ns
            )
    print(f"{anomaly.id} is labelled {label.value}")


@app.command("test")
def try_out(
    config: ConfigArgument = DEFAULT_CONFIG,
    last: Annotated[
        Any,
        typer.Option("--last", parser=parse_time, metavar="DURATION", help="How much of the past: 24h, 7d."),
    ] = "7d",
    stream: StreamOption = None,
    show_all: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Also every message that would have been sent and every anomaly that was dropped, and when.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Try the rules on the anomalies of the past.

    They go through the rules as they are now; the report says who would have been told what, and what was
    dropped by which rule. Nothing is sent.
    """
    from time import time_ns

    from pipeline.alerts.simulation import simulate
    from pipeline.core.errors import InputError
    from storage.results import anomalies, faults

    now_ns = time_ns()
    with config_and_database(config, stream) as (loaded, database):
        if not loaded.endpoints:
            raise InputError(f"{config} has no endpoints: there is nobody to tell")
        with database.read() as connection:
            found = [
                a
                for a in anomalies.query(connection, stream=stream, since_ns=last)
                if a.stream in loaded.streams
            ]
            troubles = [
                f
                for f in faults.query(connection, stream=stream, since_ns=last)
                if f.stream in loaded.streams
            ]
    rehearsal = simulate(loaded, found, troubles, last, now_ns)
    if json:
        show_json(_report(rehearsal, loaded.endpoints))
    else:
        _print(rehearsal, list(loaded.endpoints), show_all)


@app.command()
def ledger(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Account for every event and every delivery."""
    from storage.alerting import deliveries, outbox

    with config_and_database(config) as (_, database), database.read() as connection:
        events, sent = outbox.count_by_state(connection), deliveries.count_by_state(connection)
    rows = [
        ("events", "", state, reason, count) for (state, reason), count in sorted(events.items(), key=str)
    ]
    rows += [
        ("deliveries", endpoint, state, reason, count)
        for (endpoint, state, reason), count in sorted(sent.items(), key=str)
    ]
    if json:
        show_json(
            [dict(zip(("what", "endpoint", "state", "reason", "count"), row, strict=True)) for row in rows]
        )
        return
    show_table(("what", "endpoint", "state", "reason", "count"), rows, "nothing has happened yet")
    print_note(f"{sum(events.values())} events and {sum(sent.values())} deliveries in all")


def _alert(connection: Connection, text: str) -> AlertRecord:
    from pipeline.cli.identity import hex_prefix
    from pipeline.core.errors import InputError
    from storage.alerting import alerts

    found = alerts.with_prefix(connection, hex_prefix(text))
    if not found:
        raise InputError(f"there is no alert {text}; `forewatch alerts list --all` shows those there are")
    if len(found) > 1:
        raise InputError(
            f"{text} is the beginning of several alerts: {', '.join(str(a.alert_id)[:18] for a in found)}; give more of it"
        )
    return found[0]


def _state(alert: AlertRecord) -> str:
    if alert.state == "closed":
        return alert.outcome or "closed"
    if alert.suppressed_by is not None:
        return f"held by {alert.suppressed_by}"
    return "acknowledged" if alert.acked_ns is not None else alert.state


def _as_dict(alert: AlertRecord) -> dict[str, Any]:
    values = {_JSON_KEYS.get(key, key): value for key, value in asdict(alert).items()}
    known = {key: value for key, value in values.items() if not key.endswith("_ns")}
    times = ("opened", "created", "flush", "sent", "resolved", "acked")
    return known | {name: show_time(getattr(alert, f"{name}_ns")) for name in times}


def _report(rehearsal: SimulationReport, endpoints: Any) -> dict[str, Any]:
    return {
        "days": rehearsal.days,
        "streams": {name: asdict(report) for name, report in rehearsal.streams.items()},
        "endpoints": {name: sum(e == name for e, _, _ in rehearsal.sent) for name in endpoints},
        "messages": [
            {
                "at": show_time(at_ns),
                "endpoint": endpoint,
                "type": p.type,
                "title": p.data.title,
                "rule": p.data.rule,
                "urgency": p.data.urgency,
            }
            for endpoint, at_ns, p in rehearsal.sent
        ],
        "dropped": [
            {
                "at": show_time(at_ns),
                "why": why,
                "stream": a.stream,
                "series": a.series,
                "severity": a.severity,
                "anomaly": str(a.id),
            }
            for at_ns, why, a in rehearsal.dropped
        ],
    }


def _print(rehearsal: SimulationReport, endpoints: list[str], show_all: bool) -> None:
    kinds = ("opened", "updated", "repeated", "resolved", "revised", "retracted")
    rows = []
    for name in endpoints:
        mine = [(at_ns, p) for endpoint, at_ns, p in rehearsal.sent if endpoint == name]
        counts = [sum(p.kind == kind for _, p in mine) for kind in kinds]
        opened = sum(p.kind == "opened" for _, p in mine)
        rows.append((name, len(mine), *counts, f"{opened / rehearsal.days:.1f}"))
    show_table(("endpoint", "messages", *kinds, "alerts a day"), rows, "no endpoints")
    print()
    event_results = [
        (name, r.anomalies, fate, count)
        for name, r in rehearsal.streams.items()
        for fate, count in sorted(r.event_results.items())
    ]
    show_table(
        ("stream", "anomalies", "what became of their events", "events"),
        event_results,
        "no anomalies in this time",
    )
    for name, report in rehearsal.streams.items():
        print(_budget_line(name, report, rehearsal.days))
    if show_all:
        print()
        notified = [
            (show_second(at_ns), endpoint, p.kind, p.data.urgency, p.data.rule, p.data.title)
            for endpoint, at_ns, p in rehearsal.sent
        ]
        show_table(("at", "endpoint", "kind", "urgency", "rule", "title"), notified, "no messages")
        print()
        lost = [
            (show_second(at_ns), why, a.stream, a.series, a.severity, str(a.id)[:13])
            for at_ns, why, a in rehearsal.dropped
        ]
        show_table(
            ("at", "dropped by", "stream", "series", "severity", "anomaly"), lost, "nothing was dropped"
        )


def _budget_line(name: str, report: StreamReport, days: float) -> str:
    a_day = report.pages / days
    line = f"{name}: {report.pages} pages in {days:.1f} days, {a_day:.2f} a day"
    if report.pages_per_day is None:
        return f"{line}; no budget"
    line += f"; the budget is {report.pages_per_day:g} a day"
    if a_day >= 0.8 * report.pages_per_day:
        return line
    return f"{line}: fewer anomalies came than it would bear; a higher alarm_rate of the stream finds smaller ones, too"
