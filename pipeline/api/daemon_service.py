"""The server of API and dashboard as a service of the daemon."""

from __future__ import annotations

import threading
from contextlib import ExitStack

import structlog

from pipeline.config.schema import Config
from pipeline.core.errors import ForewatchError

log = structlog.get_logger(__name__)

#: Time between two attempts to start a server, for example until a first key exists.
RETRY_SECONDS = 10.0


class DashboardService:
    """Serves API and dashboard in threads of the daemon.

    No error of it reaches the loop: a server that cannot start is tried again, and streams run without it.
    """

    def __init__(self, config: Config) -> None:
        """Take a config; ``start`` does nothing if it does not ask for the server."""
        self._config = config
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread if the config asks for the server."""
        if self._thread is not None or not self._wanted():
            return
        self._stopping = threading.Event()
        arguments = (self._config, self._stopping)
        self._thread = threading.Thread(target=_serve, args=arguments, name="dashboard", daemon=True)
        self._thread.start()

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
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _wanted(self) -> bool:
        serve = self._config.served
        return serve is not None and serve.daemon


def _serve(config: Config, stopping: threading.Event) -> None:
    from pipeline.api.server import dashboard_server  # imports a lot, which a daemon without it must not

    while not stopping.is_set():
        try:
            with ExitStack() as stack:
                server = stack.enter_context(dashboard_server(config))
                log.info("the dashboard is served", url=server.url)
                stopping.wait()
        except ForewatchError as error:
            log.error("the dashboard is not served; streams run without it", error=str(error))
        except Exception:
            log.exception("error in the server of the dashboard; streams run without it")
        stopping.wait(RETRY_SECONDS)
