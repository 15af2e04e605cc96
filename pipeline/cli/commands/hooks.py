"""Command ``hooks listen``: a local receiver that verifies signatures and prints webhooks."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(no_args_is_help=True, help="Receive and verify webhooks on this machine.")


@app.callback()
def hooks() -> None:
    """Receive and verify webhooks on this machine."""


@app.command()
def listen(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")
    ] = 8787,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    secret_file: Annotated[
        list[Path] | None,
        typer.Option(
            "--secret-file", metavar="FILE", help="File with a secret, whsec_...; may be given twice."
        ),
    ] = None,
    secret_env: Annotated[
        str, typer.Option("--secret-env", metavar="NAME", help="Environment variable with the secret.")
    ] = "FOREWATCH_HOOK_SECRET",
    answer: Annotated[
        int, typer.Option(min=200, max=599, help="Status of the answer, to test the reaction of forewatch.")
    ] = 200,
) -> None:
    """Receive webhooks, verify and print them until Ctrl-C.

    Without a secret, webhooks are printed without verification.
    """
    from pipeline.alerts.receiver import hook_routes
    from pipeline.alerts.transport.signing import check_secret
    from pipeline.cli.output import print_line, print_note
    from pipeline.core.errors import InputError
    from pipeline.observability.http_server import HttpServer

    try:
        secrets = [check_secret(s) for s in _secrets(secret_file or [], secret_env)]
    except ValueError as error:
        raise InputError(str(error)) from None
    server = HttpServer(host, port, hook_routes(secrets, print_line, answer))
    server.start()
    verified = "signatures are verified" if secrets else "no secret is given, signatures are not verified"
    print_note(f"listening on {server.url}/hook; {verified}; stop with Ctrl-C")
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        server.stop()


def _secrets(files: list[Path], variable: str) -> list[str]:
    """Raises InputError for a file that cannot be read."""
    import os

    from pipeline.core.errors import InputError

    found = [os.environ[variable]] if variable in os.environ and not files else []
    for path in files:
        try:
            found.append(path.read_text().strip())
        except OSError as error:
            raise InputError(
                f"--secret-file {path}: {error.strerror}; `forewatch endpoints secret` generates a secret"
            ) from None
    return found
