"""Command ``audit``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ConfigOption,
    FromOption,
    JsonOption,
    LimitOption,
    database_of_file,
)
from pipeline.cli.output import show_list
from pipeline.cli.times import show_second


def audit(
    actor: Annotated[str | None, typer.Option(metavar="NAME", help="Only changes by this name.")] = None,
    action: Annotated[
        str | None, typer.Option(metavar="ACTION", help="Only this action, or a group of them such as alert.")
    ] = None,
    since: FromOption = None,
    limit: LimitOption = 50,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """List changes with author, time, address and values."""
    from dataclasses import asdict

    from storage.access import audit as log

    with database_of_file(config) as database, database.read() as connection:
        found = log.query(connection, log.AuditFilter(actor=actor, action=action, since_ns=since), limit)
    rows = [
        (
            show_second(one.created_ns),
            one.actor,
            one.actor_kind,
            one.address or "",
            one.action,
            one.object,
            one.stream or "",
            _text(one.detail),
        )
        for one in found
    ]
    columns = ("time", "actor", "by", "from", "action", "object", "stream", "detail")
    show_list(json, (asdict(one) for one in found), columns, rows, "no changes", wrap=("detail",))


def _text(detail: dict[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in detail.items() if value not in (None, "", [], {}))
