"""Alert service: the delivery loop as a thread of the daemon or as a process, restarted after any error."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.alerts.routing.unknown_labels import unknown_label_warnings
from pipeline.config.schema import Config
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database

if TYPE_CHECKING:
    from pipeline.alerts.delivery.loop import DeliveryLoop

log = structlog.get_logger(__name__)

_RESTART_DELAY_SECONDS = 2.0


class AlertService:
    """Deliveries while endpoints are configured.

    ``take`` may be called at any time, also before ``start``. ``run`` ends when ``stopping`` is set.
    """

    def __init__(
        self, config: Config, database: Database, metrics: Metrics, stopping: threading.Event | None = None
    ) -> None:
        self._config = config
        self._database = database
        self._metrics = metrics
        self._stop = stopping or threading.Event()
        self._loop: DeliveryLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the thread if an endpoint is configured."""
        self._warn_of_unknown_labels()
        self._begin()

    def _begin(self) -> None:
        if self._config.endpoints and self._thread is None:
            self._thread = threading.Thread(target=self.run, name="alerts", daemon=True)
            self._thread.start()

    def use_config(self, config: Config) -> None:
        """Use another configuration from now on."""
        self._config = config
        self._warn_of_unknown_labels()
        if self._thread is None:
            self._begin()
        elif self._loop is not None:
            from pipeline.alerts.factory import chart_renderer, router_of

            self._loop.configure(router_of(config), config.endpoints, chart_renderer(config))

    def _warn_of_unknown_labels(self) -> None:
        for warning in unknown_label_warnings(self._config):
            log.warning("alerts name an unknown label", problem=warning)

    def stop(self, timeout: float = 10.0) -> None:
        """Wait for the calls in flight, record them, and end; may be called twice."""
        self.finish()
        if self._thread is not None:
            self._thread.join(timeout)

    def finish(self) -> None:
        """Ask ``run`` to end; for signal handlers."""
        self._stop.set()

    def run(self) -> None:
        """Deliver until ``stop``; what is not delivered by then stays in the database."""
        # This imports the HTTP client, which a daemon without endpoints does not need.
        from pipeline.alerts.factory import delivery_loop

        while not self._stop.is_set():
            self._loop = delivery_loop(self._config, self._database, self._metrics)
            try:
                self._loop.run(self._stop)
            except Exception:
                # All state is in the database, so a restart loses nothing.
                log.exception("delivery loop failed; restarting it")
                self._stop.wait(_RESTART_DELAY_SECONDS)
