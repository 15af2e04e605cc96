"""Commands ``keys create|list|revoke``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.access.scopes import Scope
from pipeline.cli.options import (
    DEFAULT_CONFIG,
    ByOption,
    ConfigOption,
    JsonOption,
    config_and_database,
    database_of_file,
)
from pipeline.cli.output import print_note, show_list
from pipeline.cli.times import show_second

app = typer.Typer(no_args_is_help=True, help="Create, list and revoke API keys of `forewatch serve`.")


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the key, shown in the audit log.")],
    scope: Annotated[
        Scope, typer.Option(help="Right of the key; each includes those before it.")
    ] = Scope.VIEWER,
    stream: Annotated[
        list[str] | None,
        typer.Option("--stream", "-s", metavar="NAME", help="The key sees this stream; may be repeated."),
    ] = None,
    team: Annotated[
        list[str] | None,
        typer.Option("--team", metavar="NAME", help="The key sees the streams of this team; repeatable."),
    ] = None,
    expires: Annotated[
        str | None, typer.Option("--for", metavar="DURATION", help="Time until it expires: 12h, 90d.")
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Create an API key and print it once; only its hash is stored.

    Without --stream and --team the key sees all streams.
    """
    from time import time_ns

    from pipeline.access.api_keys import KeyRequest, create_key
    from pipeline.access.visibility import require_known
    from pipeline.cli.argument_values import command_actor, duration_ns

    now_ns = time_ns()
    expires_ns = None if expires is None else now_ns + duration_ns("--for", expires)
    request = KeyRequest(name, scope, stream or (), team or (), expires_ns)
    with config_and_database(config) as (loaded, database):
        require_known(loaded, request.streams, request.teams)
        with database.begin() as connection:
            text, _ = create_key(connection, request, command_actor(None), now_ns)
    print(text)
    print_note("keep it: it is not stored and cannot be shown again; send it as `Authorization: Bearer KEY`")


@app.command("list")
def list_(
    all_: Annotated[bool, typer.Option("--all", help="Also revoked keys.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    json: JsonOption = False,
) -> None:
    """List API keys, the newest first. Their secrets are not stored."""
    from dataclasses import asdict

    from storage.access import keys

    with database_of_file(config) as database, database.read() as connection:
        found = keys.query(connection, revoked=all_)
    rows = [
        (
            one.id,
            one.name,
            one.scope,
            ", ".join([*one.streams, *(f"team {team}" for team in one.teams)]) or "all",
            show_second(one.created_ns),
            "never" if one.expires_ns is None else show_second(one.expires_ns),
            "" if one.used_ns is None else show_second(one.used_ns),
            "" if one.revoked_ns is None else show_second(one.revoked_ns),
            one.author,
        )
        for one in found
    ]
    values = ({k: v for k, v in asdict(one).items() if k != "secret_hash"} for one in found)
    columns = ("id", "name", "scope", "streams", "created", "expires", "used", "revoked", "by")
    show_list(json, values, columns, rows, "no API keys")


@app.command()
def revoke(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Id of the key, its beginning, or its name.")],
    by: ByOption = None,
    config: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Revoke an API key now; its sessions end with it."""
    from time import time_ns

    from pipeline.access.api_keys import revoke_key
    from pipeline.cli.argument_values import command_actor

    with database_of_file(config) as database, database.begin() as connection:
        revoked = revoke_key(connection, key, command_actor(by), time_ns())
    print(revoked.id)
