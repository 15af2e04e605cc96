"""Entry point of the process that serves API and dashboard for a daemon.

Its standard input brings the config, then that the database is open. It ends with its standard input, which
is closed when the daemon ends, however that ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.core.errors import ForewatchError
from pipeline.core.interpreter import collect_garbage_rarely

if TYPE_CHECKING:
    from pipeline.api.starting_site import StartingSite
    from pipeline.config.schema import Config

log = structlog.get_logger(__name__)

#: Shortest and longest time between two attempts to start, for example until a first key exists.
MIN_RETRY_SECONDS, RETRY_SECONDS = 0.5, 10.0


def main() -> None:
    """Serve until the standard input ends."""
    # A service manager may send these to all processes of the daemon, which ends this one in order.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    collect_garbage_rarely()
    # These imports make many objects, here and in the functions below.
    from pipeline.config.schema import Config
    from pipeline.observability.log_setup import configure_logs

    configure_logs(os.environ.get("FOREWATCH_LOG_LEVEL", "info"))
    lines = sys.stdin.buffer
    if not (line := lines.readline()):
        return
    config = Config.model_validate_json(line)
    database_is_open, stopping = threading.Event(), threading.Event()
    thread = threading.Thread(target=_serve, args=(config, database_is_open, stopping))
    thread.start()
    if lines.readline():
        database_is_open.set()
        lines.read()
    stopping.set()
    database_is_open.set()
    thread.join()


def _serve(config: Config, database_is_open: threading.Event, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set; errors are logged, and it is tried again.

    Args:
        config: The configuration.
        database_is_open: Set when the API may open the database.
        stopping: Set at the end.
    """
    from pipeline.api.starting_site import StartingSite

    site: StartingSite | None = None
    wait = MIN_RETRY_SECONDS
    try:
        while not stopping.is_set():
            try:
                if site is None:
                    site = StartingSite(config)
                    site.server.start()
                database_is_open.wait()
                if not stopping.is_set():
                    _serve_api(config, site, stopping)
            except ForewatchError as error:
                log.error("the dashboard is not served; streams run without it", error=str(error))
                if site is not None:
                    site.report(str(error))
            except Exception:
                log.exception("error in the server of the dashboard; streams run without it")
            stopping.wait(wait)
            wait = min(2 * wait, RETRY_SECONDS)
    finally:
        if site is not None:
            site.server.stop()


def _serve_api(config: Config, site: StartingSite, stopping: threading.Event) -> None:
    from pipeline.api.server import application  # imports a lot

    with application(config, site):
        log.info("the dashboard is served", url=site.server.url)
        stopping.wait()


if __name__ == "__main__":
    main()
