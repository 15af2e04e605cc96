"""Command ``serve``: the dashboard and the REST API."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigArgument


def serve(
    config: ConfigArgument = DEFAULT_CONFIG,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 takes a free one.")] = 9465,
    open_: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the dashboard and the REST API until Ctrl-C.

    The API is at /api/v1, and the address is on 127.0.0.1. It reads the database and the recorded history,
    and works beside a daemon or without one.
    """
    from pipeline.api.server import dashboard_server
    from pipeline.config.loader import load_config
    from pipeline.core.stop_signals import stop_on_signals
    from pipeline.dashboard.assets import require_built
    from pipeline.dashboard.browser import open_page

    loaded = load_config(config)
    require_built()
    stopping = stop_on_signals()
    with dashboard_server(loaded, port=port) as server:
        print(f"the dashboard is at {server.url}", flush=True)
        if open_:
            open_page(server.url)
        stopping.wait()
