"""Command ``serve``: the dashboard and the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigArgument


def serve(
    config: ConfigArgument = DEFAULT_CONFIG,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on (default: `serve.host`, else 127.0.0.1).")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port (default: `serve.port`, else 9465); 0 takes a free one."),
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the dashboard and the REST API until Ctrl-C.

    The API is at /api/v1. It reads the database and the recorded history, and works beside a daemon or
    without one. On 127.0.0.1 no login is needed until a first API key exists; another address needs a key or
    an OpenID provider.
    """
    from pipeline.api.server import dashboard_server
    from pipeline.config.loader import load_config
    from pipeline.core.service_manager import report_ready, report_stopping
    from pipeline.core.stop_signals import stop_on_signals
    from pipeline.dashboard.assets import require_built
    from pipeline.dashboard.browser import open_page

    loaded = load_config(config)
    require_built()
    stopping = stop_on_signals()
    with dashboard_server(loaded, host, port) as server:
        print(f"the dashboard is at {server.url}", flush=True)
        report_ready(server.url)
        if open_:
            open_page(server.url)
        stopping.wait()
        report_stopping()
