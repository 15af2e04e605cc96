"""The delivery loop as a thread of the daemon, or as a process of its own: it begins again by itself whatever
happens to it.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from pipeline.config.schema import Config
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database

if TYPE_CHECKING:
    from pipeline.alerts.delivery.loop import DeliveryLoop

log = structlog.get_logger(__name__)

_BREATH_SECONDS = 2.0


class AlertService:
    """Delivers as long as endpoints are configured.

    ``take`` may be called at any time, also before ``start``.
    """

    def __init__(self, config: Config, database: Database, metrics: Metrics) -> None:
        self._config = config
        self._database = database
        self._metrics = metrics
        self._stop = threading.Event()
        self._loop: DeliveryLoop | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, if there is anybody to deliver to."""
        if self._config.endpoints and self._thread is None:
            self._thread = threading.Thread(target=self.run, name="alerts", daemon=True)
            self._thread.start()

    def take(self, config: Config) -> None:
        """Go on with another configuration."""
        self._config = config
        if self._thread is None:
            self.start()
        elif self._loop is not None:
            from pipeline.alerts.factory import pictures_of, router_of

            self._loop.configure(router_of(config), config.endpoints, pictures_of(config))

    def stop(self, timeout: float = 10.0) -> None:
        """Let calls on their way end, record them, leave. Calling it twice is fine."""
        self.finish()
        if self._thread is not None:
            self._thread.join(timeout)

    def finish(self) -> None:
        """Let ``run`` end, as soon as it can; for signal handlers."""
        self._stop.set()

    def run(self) -> None:
        """Deliver until ``stop``; what is not delivered by then waits in the database."""
        # brings the HTTP client along, which a daemon without endpoints does not need
        from pipeline.alerts.factory import delivery_loop

        while not self._stop.is_set():
            self._loop = delivery_loop(self._config, self._database, self._metrics)
            try:
                self._loop.run(self._stop)
            except Exception:
                # Nothing is lost: everything that counts is a row. A loop that ends for good would be worse
                # than one that stumbles.
                log.exception("the delivery loop stumbled and begins again")
                self._stop.wait(_BREATH_SECONDS)
