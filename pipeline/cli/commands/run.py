"""Command ``run``: the pipeline over live records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.cli.options import DEFAULT_CONFIG, ConfigArgument

if TYPE_CHECKING:
    from pipeline.config.schema import Config
    from pipeline.daemon.background_service import PublicService


def run(
    config: ConfigArgument = DEFAULT_CONFIG,
    watch: Annotated[
        bool,
        typer.Option(
            "--watch", help="Reload the config when its file changes (SIGHUP reloads it in any case)."
        ),
    ] = False,
) -> None:
    """Run the daemon until SIGTERM or Ctrl-C.

    On shutdown it finishes the current batch, commits it and releases its partitions. With `workers` in the
    config, several processes share the partitions.
    """
    from pipeline.config.loader import load_config
    from pipeline.core.usable_cores import usable_cores
    from pipeline.observability.process_exit import log_exit

    with log_exit("run"):
        loaded = load_config(config)
        count = usable_cores() if loaded.workers == "auto" else loaded.workers
        if count > 1:
            from pipeline.daemon.supervisor import run_supervisor

            code = run_supervisor(config, loaded, count, watch, _services(loaded))
        else:
            services = _services(loaded)
            for service in services:
                service.announce()  # before the import below, which takes a second or more
            # This import loads the detectors, which a supervisor does not need.
            from pipeline.daemon.daemon import run_daemon

            code = run_daemon(config, watch, lambda again: services)
    if code:
        raise typer.Exit(code)


def _services(config: Config) -> list[PublicService]:
    """Return the server of the dashboard; a reload of the config can start it."""
    from pipeline.api.daemon_service import DashboardService

    return [DashboardService(config)]
