"""``deliveries list|show|redeliver`` and ``deliver``: what was sent, what was not, and sending it."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigArgument,
    ConfigOption,
    JsonOption,
    LimitOption,
    config_and_database,
)
from pipeline.cli.output import print_note, show_fields, show_json, show_table
from pipeline.cli.times import parse_time, show_second, show_time

if TYPE_CHECKING:
    from sqlalchemy import Connection

    from storage.alerting.deliveries import Delivery

app = typer.Typer(no_args_is_help=True, help="Messages on their way: list, show, send again.")

#: Keys of --json that differ from the attributes.
_JSON_KEYS = {"queue": "lane", "notification_id": "notice_id"}

EndpointOption = Annotated[
    str | None, typer.Option("--endpoint", "-e", metavar="NAME", help="Only those of this endpoint.")
]
SinceOption = Annotated[
    Any,
    typer.Option("--since", parser=parse_time, metavar="TIME", help="Only newer ones: 2h, 7d, or ISO 8601."),
]


class State(StrEnum):
    PENDING = "pending"
    DELIVERED = "delivered"
    DEAD = "dead"
    SUPPRESSED = "suppressed"


@app.command("list")
def list_(
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: EndpointOption = None,
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    since: SinceOption = None,
    limit: LimitOption = 50,
    json: JsonOption = False,
) -> None:
    """List deliveries, newest first."""
    from storage.alerting import deliveries

    with config_and_database(config) as (_, database), database.read() as connection:
        found = deliveries.query(connection, endpoint=endpoint, state=state, since_ns=since, limit=limit)
    if json:
        show_json([_as_dict(one) for one in found])
        return
    rows = (
        (
            d.id.hex[:8],
            show_second(d.created_ns),
            d.endpoint,
            d.kind,
            d.queue,
            d.state,
            d.reason,
            d.attempts,
            show_second(d.finished_ns),
        )
        for d in found
    )
    show_table(
        ("id", "created", "endpoint", "kind", "series or group", "state", "reason", "attempts", "finished"),
        rows,
        "no deliveries",
    )


@app.command()
def show(
    id_: Annotated[
        str, typer.Argument(metavar="ID", help="Its id, or the webhook-id; the first characters are enough.")
    ],
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """Show one delivery with every attempt and the message."""
    from storage.alerting import deliveries

    with config_and_database(config) as (_, database), database.read() as connection:
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
        typer.Argument(metavar="ID", help="These; none: all that match.", show_default=False),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    endpoint: EndpointOption = None,
    since: SinceOption = None,
    state: Annotated[State, typer.Option(help="What is sent again where no id is given.")] = State.DEAD,
    force: Annotated[
        bool, typer.Option("--force", help="Also what was overtaken by something newer about the same alert.")
    ] = False,
) -> None:
    """Send deliveries again, with the same id and a fresh schedule.

    Without ids these are the dead letters. One whose alert has delivered something newer since stays as it
    is.
    """
    from time import time_ns

    from pipeline.core.errors import InputError
    from storage.alerting import deliveries, delivery_queue

    if not ids and endpoint is None and since is None:
        raise InputError("say which: ids, --endpoint NAME or --since TIME")
    with config_and_database(config) as (_, database), database.begin() as connection:
        if ids:
            wanted = [_one(connection, one).id for one in ids]
        else:
            wanted = [
                d.id for d in deliveries.query(connection, endpoint=endpoint, state=state, since_ns=since)
            ]
        queued = delivery_queue.redeliver(connection, wanted, time_ns(), force=force)
    print(f"{len(queued)} of {len(wanted)} are queued again")
    if len(queued) < len(wanted):
        print_note(
            "the others are on their way, or something newer about their alert was delivered since (--force sends them all the same)"
        )


def deliver(config: ConfigArgument = DEFAULT_CONFIG) -> None:
    """Deliver alerts in a process of its own until SIGTERM.

    Any number of them may run beside the daemons, which deliver by themselves, too. This is for PostgreSQL,
    where deliveries should not share a process with scoring; a SQLite database serves one process at a time.
    """
    import signal

    from pipeline.alerts.service import AlertService
    from pipeline.config.loader import load_config
    from pipeline.core.errors import InputError
    from pipeline.database import open_database
    from pipeline.observability.metrics import Metrics

    loaded = load_config(config)
    if not loaded.endpoints:
        raise InputError(f"{config} has no endpoints: there is nobody to deliver to")
    with open_database(loaded) as database:
        service = AlertService(loaded, database, Metrics())
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda number, frame: service.finish())
        service.run()


def _one(connection: Connection, text: str) -> Delivery:
    from pipeline.cli.identity import hex_prefix
    from pipeline.core.errors import InputError
    from storage.alerting import deliveries

    found = deliveries.with_prefix(connection, hex_prefix(text))
    if not found:
        raise InputError(f"there is no delivery {text}; `forewatch deliveries list` shows those there are")
    if len(found) > 1:
        raise InputError(
            f"{text} is the beginning of several deliveries: {', '.join(d.id.hex[:13] for d in found)}; give more of it"
        )
    return found[0]


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
        return "the message is no longer kept"
    payload = decode(body)
    return f"{payload.type}: {payload.data.title}\n\n{payload.data.text}"
