"""Commands ``endpoints list|ping|enable|secret``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.audit_record import record
from pipeline.cli.options import DEFAULT_CONFIG, ConfigOption, JsonOption, config_and_database
from pipeline.cli.output import print_note, show_json, show_list
from pipeline.cli.times import show_second

if TYPE_CHECKING:
    from pipeline.alerts.transport.base import DeliveryResult
    from pipeline.config.endpoints import EndpointConfig
    from pipeline.config.schema import Config

app = typer.Typer(no_args_is_help=True, help="List, test and enable endpoints, the receivers of alerts.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the endpoint in the config.")]


@app.command("list")
def list_(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """List the endpoints with their state and pending deliveries."""
    from storage.alerting import deliveries, endpoints
    from storage.alerting.endpoints import EndpointState

    with config_and_database(config) as (loaded, database), database.read() as connection:
        known, backlog = endpoints.states(connection), deliveries.backlog(connection)
    found = []
    for name, endpoint in loaded.endpoints.items():
        state = known.get(name) or EndpointState(name)
        found.append(
            {
                "name": name,
                "type": getattr(endpoint, "type", ""),
                "takes": "pages" if endpoint.urgency == "page" else "everything",
                "state": "disabled" if state.disabled_ns else "failing" if state.failing_ns else "ok",
                "since": show_second(state.disabled_ns or state.failing_ns),
                "pending": backlog.get(name, (0, 0))[0],
                "last delivery": show_second(state.delivered_ns),
                "reason": state.reason,
            }
        )
    columns = ("name", "type", "takes", "state", "since", "pending", "last delivery", "reason")
    rows = [tuple(row.values()) for row in found]
    show_list(json, found, columns, rows, "the config has no endpoints")


@app.command()
def ping(name: Name, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Send a test message and print the answer.

    The message is signed and sent like a real one, and nothing is written to the database. The exit code is 0
    if the receiver accepted it.
    """
    import asyncio
    import time

    from pipeline.config.loader import load_config

    endpoint = _endpoint(load_config(config), name)
    began = time.perf_counter()
    result = asyncio.run(_ping(endpoint))
    seconds = time.perf_counter() - began
    fields: dict[str, Any] = {
        "delivered": result.delivered,
        "status": result.status,
        "answer": result.answer,
        "seconds": round(seconds, 3),
    }
    if json:
        show_json(fields)
    else:
        accepted = "accepted" if result.delivered else "not accepted"
        print(f"{name}: {accepted}, {result.status or 'no status'} in {seconds:.3f} s: {result.answer}")
    raise typer.Exit(0 if result.delivered else 1)


@app.command()
def enable(name: Name, config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Enable an endpoint that was disabled.

    An endpoint is disabled if every attempt failed for long, or if it answered 410. `forewatch deliveries
    redeliver` sends the deliveries that are dead since.
    """
    from time import time_ns

    from pipeline.access.audited_changes import endpoint_enabled
    from pipeline.alerts.delivery.delivery_log import end_endpoint_fault
    from storage.alerting import endpoints

    with config_and_database(config) as (loaded, database):
        _endpoint(loaded, name)
        with database.begin() as connection:
            changed = endpoints.enable(connection, name)
            if changed:
                record(connection, None, endpoint_enabled(name))
            end_endpoint_fault(connection, name, time_ns())
    print(f"{name} is enabled" if changed else f"{name} was not disabled")


@app.command()
def secret() -> None:
    """Generate a secret for a webhook.

    Give it to the receiver, and to forewatch in a file or an environment variable.
    """
    from pipeline.alerts.transport.signing import new_secret

    print(new_secret())
    print_note(
        "store it in a file that only forewatch can read, and write in the config: secret: {file: PATH}"
    )


async def _ping(endpoint: EndpointConfig) -> DeliveryResult:
    from datetime import UTC, datetime
    from uuid import uuid4

    from pipeline.alerts.delivery.senders import sender_of
    from pipeline.alerts.messages.payload import encode
    from pipeline.alerts.sample import sample_payload
    from pipeline.alerts.transport.base import Message

    payload, sender = sample_payload(), sender_of(endpoint, lambda _: None)
    result = await sender.send(
        Message(uuid4(), "forewatch/test", encode(payload), payload, datetime.now(UTC))
    )
    await sender.close()
    return result


def _endpoint(config: Config, name: str) -> EndpointConfig:
    from pipeline.config.diagnostics import closest
    from pipeline.core.errors import InputError

    if name not in config.endpoints:
        remedy = closest(name, config.endpoints) if config.endpoints else "the config has no endpoints"
        raise InputError(f"the config has no endpoint {name!r}: {remedy}")
    return config.endpoints[name]
