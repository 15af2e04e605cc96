"""The server of API and dashboard as a service of the daemon."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError

if TYPE_CHECKING:
    from pipeline.api.starting_site import StartingSite

log = structlog.get_logger(__name__)

#: Shortest and longest time between two attempts to start, for example until a first key exists.
MIN_RETRY_SECONDS, RETRY_SECONDS = 0.5, 10.0
#: Longest time for which a request keeps the interpreter from the loop, which waits for it several times in a
#: commit. The default of Python is 5 ms.
SWITCH_SECONDS = 0.0005


class DashboardService:
    """Serves API and dashboard in threads of the daemon.

    No error of it reaches the loop: a server that cannot start is tried again, and streams run without it.
    """

    def __init__(self, config: Config) -> None:
        """Take a config; nothing is served if it does not ask for the server."""
        self._config = config
        self._ready, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def announce(self) -> None:
        """Serve pages that say that forewatch starts, until ``start``."""
        if self._thread is not None or not self._wanted():
            return
        self._ready, self._stopping = threading.Event(), threading.Event()
        arguments = (self._config, self._ready, self._stopping)
        self._thread = threading.Thread(target=_serve, args=arguments, name="dashboard", daemon=True)
        self._thread.start()

    def start(self) -> None:
        """Serve API and dashboard; the database is open, and imports disturb no start."""
        self.announce()
        self._ready.set()

    def use_config(self, config: Config) -> None:
        """Serve another config; the server starts anew."""
        if config == self._config:
            return
        self.stop()
        self._config = config
        self.start()

    def stop(self) -> None:
        """End the server and its thread."""
        self._stopping.set()
        self._ready.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _wanted(self) -> bool:
        serve = self._config.served
        return serve is not None and serve.daemon


def _serve(config: Config, ready: threading.Event, stopping: threading.Event) -> None:
    """Serve until ``stopping`` is set; errors are logged, and it is tried again.

    Args:
        config: The configuration.
        ready: Set when the API may be loaded.
        stopping: Set at the end.
    """
    site: StartingSite | None = None
    wait = MIN_RETRY_SECONDS
    try:
        while not stopping.is_set():
            try:
                site = site or _announced(config)
                ready.wait()
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


def _announced(config: Config) -> StartingSite:
    from pipeline.api.starting_site import StartingSite  # imports what a daemon without it must not

    site = StartingSite(config)
    site.server.start()
    return site


def _serve_api(config: Config, site: StartingSite, stopping: threading.Event) -> None:
    from pipeline.api.server import application  # imports a lot

    usual = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_SECONDS)
    try:
        with application(config, site):
            log.info("the dashboard is served", url=site.server.url)
            stopping.wait()
    finally:
        sys.setswitchinterval(usual)
