"""Commands ``alerts list|show|test|ack|label|ledger``."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
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
    database_of_file,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_list, show_table
from pipeline.cli.times import parse_time, show_second, show_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.alerting.alerts import AlertRecord

app = typer.Typer(no_args_is_help=True, help="List, show, acknowledge and label alerts; try out rules.")

#: Keys of --json that differ from the attributes.
_JSON_KEYS = {"queue": "lane", "suppressed_by": "held_by", "notified": "told"}

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the alert; the first characters are enough.")]


class ReviewLabelChoice(StrEnum):
    """Label that a person gives an anomaly."""

    TRUE = "true"
    FALSE = "false"
    MAINTENANCE = "maintenance"


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    stream: StreamOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Also closed alerts.")] = False,
    since: FromOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List alerts that are not closed, newest first.

    Silenced alerts are included.
    """
    from pipeline.alerts.messages.text import group_text
    from storage.alerting import alerts
    from storage.alerting.states import AlertState

    with database_of_file(config, stream) as database, database.read() as connection:
        found = alerts.query(
            connection,
            stream=stream,
            states=None if all_ else (AlertState.WAITING, AlertState.OPEN),
            since_ns=since,
            limit=limit,
        )
    rows = (
        (
            str(a.alert_id)[:13],
            show_second(a.opened_ns),
            a.stream,
            group_text(a.group_key),
            a.severity,
            a.urgency,
            f"{a.open_count} of {a.count}",
            _state(a),
        )
        for a in found
    )
    show_list(
        json,
        (_as_dict(alert) for alert in found),
        ("id", "since", "stream", "series or group", "severity", "urgency", "open anomalies", "state"),
        rows,
        "no alerts",
    )


@app.command()
def show(id_: Id, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show one alert with its anomalies and deliveries."""
    from storage.alerting import alerts, deliveries

    with database_of_file(config) as database, database.read() as connection:
        alert = _alert(connection, id_)
        members = alerts.members_of(connection, alert.alert_id, 20)
        sent = deliveries.query(connection, alert_id=alert.alert_id)
    if json:
        show_json(
            _as_dict(alert)
            | {"anomalies": [str(m.subject) for m in members], "deliveries": [str(d.id) for d in sent]}
        )
        return
    show_fields(_fields(alert))
    print()
    rows = [
        (str(m.subject)[:13], m.series, m.state, m.severity, show_second(m.start_ns), show_second(m.end_ns))
        for m in members
    ]
    show_table(("anomaly", "series", "state", "severity", "from", "to"), rows, "no anomalies")
    print()
    queued = [
        (d.id.hex[:8], show_second(d.created_ns), d.endpoint, d.kind, d.state, d.reason, d.attempts)
        for d in sent
    ]
    show_table(
        ("delivery", "created", "endpoint", "kind", "state", "reason", "attempts"),
        queued,
        "no deliveries",
    )


@app.command()
def ack(id_: Id, config: ConfigOption = DEFAULT_CONFIG, by: ByOption = None) -> None:
    """Acknowledge an alert.

    Its receivers are notified, and it is not repeated.
    """
    from time import time_ns

    from pipeline.access.audited_changes import acknowledged
    from pipeline.cli.argument_values import author_name
    from pipeline.services.reviews import acknowledge

    with database_of_file(config) as database, database.begin() as connection:
        alert = _alert(connection, id_)
        author = author_name(by)
        acknowledge(connection, alert, author, time_ns())
        record(connection, by, acknowledged(alert, author))
    print(f"{alert.alert_id} is acknowledged")


@app.command()
def label(
    id_: Annotated[
        str, typer.Argument(metavar="ANOMALY", help="Id of the anomaly; the first characters are enough.")
    ],
    label: Annotated[
        ReviewLabelChoice,
        typer.Argument(
            metavar="LABEL",
            help="true: a real anomaly. false: no anomaly; its alert is retracted. maintenance: known work.",
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    comment: Annotated[str, typer.Option(help="Why.")] = "",
    by: ByOption = None,
) -> None:
    """Label an anomaly as true, false or maintenance.

    True anomalies and maintenance are excluded from training. A false one is used for training again, and its
    alert is retracted.
    """
    from time import time_ns

    from pipeline.access.audited_changes import labelled
    from pipeline.cli.argument_values import author_name
    from pipeline.services.reviews import label_anomaly
    from storage.results import anomalies, labels

    with config_and_database(config) as (loaded, database), database.begin() as connection:
        anomaly = anomalies.get(connection, id_)
        review = labels.Review(label.value, author_name(by), comment, time_ns())
        before = labels.reviews(connection, [anomaly.id]).get(anomaly.id)
        label_anomaly(connection, loaded, anomaly, review)
        record(connection, by, labelled(anomaly, before, review))
    print(f"{anomaly.id} is labelled {label.value}")


@app.command("test")
def try_out(
    config: ConfigArgument = DEFAULT_CONFIG,
    last: Annotated[
        Any,
        typer.Option(
            "--last", parser=parse_time, metavar="DURATION", help="Length of the past to simulate: 24h, 7d."
        ),
    ] = "7d",
    stream: StreamOption = None,
    show_all: Annotated[
        bool,
        typer.Option(
            "--show",
            help="Also list the messages that would be sent and the anomalies that are dropped, with times.",
        ),
    ] = False,
    json: JsonOption = False,
) -> None:
    """Simulate the current rules on past anomalies.

    Nothing is sent. The report counts messages by endpoint and events by result, and compares pages with the budget.
    """
    from time import time_ns

    from pipeline.alerts.simulation import simulate
    from pipeline.cli.simulation_report import print_report, report_values
    from pipeline.core.errors import InputError
    from storage.alerting import outbox
    from storage.results import anomalies, faults

    now_ns = time_ns()
    with config_and_database(config, stream) as (loaded, database):
        if not loaded.endpoints:
            raise InputError(f"{config} has no endpoints; add one under `endpoints` to simulate alerts")
        streams = loaded.streams
        with database.read() as connection:
            past = anomalies.query(connection, stream=stream, since_ns=last)
            found = [anomaly for anomaly in past if anomaly.stream in streams]
            every_fault = faults.query(connection, stream=stream, since_ns=last)
            past_faults = [fault for fault in every_fault if fault.stream in streams]
            commits = outbox.first_commits(connection, last)
    report = simulate(loaded, found, past_faults, last, now_ns, commits)
    if json:
        show_json(report_values(report, loaded.endpoints))
    else:
        print_report(report, loaded.endpoints, show_all)


@app.command()
def ledger(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Count all events and deliveries by state and reason."""
    from storage.alerting import deliveries, outbox

    with database_of_file(config) as database, database.read() as connection:
        events, sent = outbox.count_by_state(connection), deliveries.count_by_state(connection)
    rows = [
        ("events", "", state, reason, count) for (state, reason), count in sorted(events.items(), key=str)
    ]
    rows += [
        ("deliveries", endpoint, state, reason, count)
        for (endpoint, state, reason), count in sorted(sent.items(), key=str)
    ]
    columns = ("what", "endpoint", "state", "reason", "count")
    values = (dict(zip(columns, row, strict=True)) for row in rows)
    show_list(json, values, columns, rows, "no events yet")
    if not json:
        print_note(f"{sum(events.values())} events and {sum(sent.values())} deliveries in total")


def _alert(connection: Connection, text: str) -> AlertRecord:
    from pipeline.cli.argument_values import hex_prefix, only_match
    from storage.alerting import alerts

    found = alerts.with_prefix(connection, hex_prefix(text))
    ids = [str(a.alert_id)[:18] for a in found]
    return only_match(found, ids, text, "alert", "forewatch alerts list --all")


def _state(alert: AlertRecord) -> str:
    if alert.state == "closed":
        return alert.outcome or "closed"
    if alert.suppressed_by is not None:
        return f"suppressed by {alert.suppressed_by}"
    return "acknowledged" if alert.acked_ns is not None else alert.state


def _fields(alert: AlertRecord) -> dict[str, Any]:
    """Return the fields of an alert for people."""
    from pipeline.alerts.messages.text import group_text, where

    return {
        "id": alert.alert_id,
        "stream": alert.stream,
        "series or group": group_text(alert.group_key),
        "labels": where(alert.labels, "") or None,
        "kind": alert.kind,
        "rule": alert.rule,
        "state": _state(alert),
        "urgency": alert.urgency,
        "severity": alert.severity,
        "surprise": alert.surprise,
        "anomalies": f"{alert.count}, {alert.open_count} open",
        "flapping": "yes" if alert.flapping else "no",
        "opened": show_time(alert.opened_ns),
        "resolved": show_time(alert.resolved_ns),
        "last notification": show_time(alert.sent_ns),
        "next evaluation": show_time(alert.flush_ns),
        "acknowledged": show_time(alert.acked_ns),
        "acknowledged by": alert.acked_by,
        "notified endpoints": ", ".join(alert.notified) or None,
    }


def _as_dict(alert: AlertRecord) -> dict[str, Any]:
    values = {_JSON_KEYS.get(key, key): value for key, value in asdict(alert).items()}
    known = {key: value for key, value in values.items() if not key.endswith("_ns")}
    times = ("opened", "created", "flush", "sent", "resolved", "acked")
    return known | {name: show_time(getattr(alert, f"{name}_ns")) for name in times}
