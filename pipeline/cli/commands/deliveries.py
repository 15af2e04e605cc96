"""Commands ``deliveries list|show|redeliver`` and ``deliver``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigArgument,
    ConfigOption,
    JsonOption,
    LimitOption,
    database_of_file,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_list, show_table
from pipeline.cli.times import parse_time, show_second, show_time
from storage.alerting.states import DeliveryState

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.alerting.deliveries import Delivery

app = typer.Typer(no_args_is_help=True, help="List, show and repeat deliveries of messages to endpoints.")

#: Keys of --json that differ from the attributes.
_JSON_KEYS = {"queue": "lane", "notification_id": "notice_id"}

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", "-e", metavar="NAME", help="Only deliveries to this endpoint.")
]
SinceOption = Annotated[
    Any,
    typer.Option(
        "--since", parser=parse_time, metavar="TIME", help="Only newer deliveries: 2h, 7d, or ISO 8601."
    ),
]


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: EndpointOption = None,
    state: Annotated[DeliveryState | None, typer.Option(help="Only deliveries in this state.")] = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List deliveries, newest first."""
    from pipeline.alerts.messages.text import group_text
    from storage.alerting import deliveries

    with database_of_file(config) as database, database.read() as connection:
        found = deliveries.query(connection, endpoint=endpoint, state=state, since_ns=since, limit=limit)
    rows = (
        (
            d.id.hex[:8],
            show_second(d.created_ns),
            d.endpoint,
            d.kind,
            group_text(d.queue),
            d.state,
            d.reason,
            d.attempts,
            show_second(d.finished_ns),
        )
        for d in found
    )
    show_list(
        json,
        (_as_dict(one) for one in found),
        ("id", "created", "endpoint", "kind", "series or group", "state", "reason", "attempts", "finished"),
        rows,
        "no deliveries",
    )


@app.command()
def show(
    id_: Annotated[
        str,
        typer.Argument(
            metavar="ID", help="Id of the delivery, or the webhook-id; the first characters are enough."
        ),
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show one delivery with every attempt and the message."""
    from storage.alerting import deliveries

    with database_of_file(config) as database, database.read() as connection:
        delivery = _one(connection, id_)
        attempts = deliveries.attempts_of(connection, delivery.id)
        body = deliveries.body_of(connection, delivery.notification_id)
        due_ns = (
            deliveries.next_attempt_ns(connection, delivery.endpoint, delivery.queue)
            if delivery.state == "pending"
            else None
        )
    fields = _as_dict(delivery) | {"next attempt": show_second(due_ns)}
    if json:
        show_json(fields | {"attempts": [_attempt(a) for a in attempts], "message": body})
        return
    show_fields(fields)
    print()
    columns = ("attempt", "started", "outcome", "status", "seconds", "answer")
    show_table(columns, [tuple(_attempt(a).values()) for a in attempts], "no attempts yet")
    print(f"\n{_message(body)}")


@app.command()
def redeliver(
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="ID",
            help="Ids of deliveries; without any: all that match the options.",
            show_default=False,
        ),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: EndpointOption = None,
    since: SinceOption = None,
    state: Annotated[
        DeliveryState, typer.Option(help="State of the deliveries that are sent again, if no id is given.")
    ] = DeliveryState.DEAD,
    force: Annotated[
        bool, typer.Option("--force", help="Also deliveries whose alert has delivered a newer message.")
    ] = False,
) -> None:
    """Send deliveries again, with the same id and a new schedule.

    Without ids, dead deliveries are sent again. A delivery is skipped if its alert has delivered a newer
    message since.
    """
    from time import time_ns

    from pipeline.access.audited_changes import redelivered
    from pipeline.core.errors import InputError
    from storage.alerting import deliveries, delivery_queue

    if not ids and endpoint is None and since is None:
        raise InputError("give ids, --endpoint NAME or --since TIME")
    with database_of_file(config) as database, database.begin() as connection:
        if ids:
            found = [_one(connection, one) for one in ids]
        else:
            found = deliveries.query(connection, endpoint=endpoint, state=state, since_ns=since)
        wanted = {one.id: one for one in found}
        queued = delivery_queue.redeliver(connection, list(wanted), time_ns(), force=force)
        for one in queued:
            stream = deliveries.stream_of(connection, wanted[one])
            record(connection, None, redelivered(wanted[one], stream, force))
    print(f"{len(queued)} of {len(wanted)} deliveries are queued again")
    if len(queued) < len(wanted):
        print_note(
            "the others are pending, or their alert has delivered a newer message (--force sends these too)"
        )


def deliver(config: ConfigArgument = DEFAULT_CONFIG) -> None:
    """Deliver alerts in a separate process until SIGTERM.

    Any number of these processes may run beside the daemons, which deliver too. Use it with PostgreSQL, to
    separate deliveries from scoring; a SQLite database serves one process at a time.
    """
    from pipeline.alerts.service import AlertService
    from pipeline.config.loader import load_config
    from pipeline.core.errors import InputError
    from pipeline.core.stop_signals import stop_on_signals
    from pipeline.database import open_database_when_available
    from pipeline.observability.metrics import Metrics
    from pipeline.observability.process_exit import log_exit

    with log_exit("deliver"):
        stopping = stop_on_signals()
        loaded = load_config(config)
        if not loaded.endpoints:
            raise InputError(f"{config} has no endpoints; add one under `endpoints`")
        with open_database_when_available(loaded, stopping) as database:
            AlertService(loaded, database, Metrics(), stopping).run()


def _one(connection: Connection, text: str) -> Delivery:
    from pipeline.cli.argument_values import hex_prefix, only_match
    from storage.alerting import deliveries

    found = deliveries.with_prefix(connection, hex_prefix(text))
    ids = [d.id.hex[:13] for d in found]
    return only_match(found, ids, text, "delivery", "forewatch deliveries list")


def _as_dict(delivery: Delivery) -> dict[str, Any]:
    values = asdict(delivery) | {
        "created": show_time(delivery.created_ns),
        "finished": show_time(delivery.finished_ns),
    }
    return {_JSON_KEYS.get(key, key): value for key, value in values.items() if not key.endswith("_ns")}


def _attempt(attempt: dict[str, Any]) -> dict[str, Any]:
    return {
        "attempt": attempt["attempt"],
        "started": show_time(attempt["started_ns"]),
        "outcome": attempt["outcome"],
        "status": attempt["status"],
        "seconds": round(attempt["latency_ns"] / 1e9, 3),
        "answer": attempt["answer"],
    }


def _message(body: str | None) -> str:
    from pipeline.alerts.messages.payload import decode

    if body is None:
        return "the message is no longer stored"
    payload = decode(body)
    return f"{payload.type}: {payload.data.title}\n\n{payload.data.text}"
