"""The alerts of a whole configuration: its router, its delivery loop."""

from __future__ import annotations

from typing import Any

from pipeline.alerts.delivery.delivery_log import OPERATIONS
from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.messages.chart import Pictures
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.config.alerts import Alerts, FaultAlerts
from pipeline.config.schema import Config
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database


def router_of(config: Config) -> Router:
    """Routes every stream, and what the alerts have to say of themselves: to whoever hears of the faults of
    any stream.
    """
    streams = {name: stream.alerts for name, stream in config.streams.items()}
    chosen = [alerts.faults.to if alerts.faults.to is not None else alerts.to for alerts in streams.values()]
    everybody = None if None in chosen else list(dict.fromkeys(name for to in chosen for name in to or ()))
    return Router(streams | {OPERATIONS: Alerts(faults=FaultAlerts(to=everybody))}, config.endpoints)


def delivery_loop(config: Config, database: Database, metrics: Metrics) -> DeliveryLoop:
    """The loop that delivers for ``config``; nothing has happened yet."""
    return DeliveryLoop(
        database, router_of(config), config.endpoints, AlertMetrics(metrics), picture=pictures_of(config)
    )


def pictures_of(config: Config) -> Pictures:
    """Draws from the history of ``config``, if it keeps one."""

    path = config.history_path

    def read(stream: str, series: str, since_ns: int, until_ns: int, columns: list[str]) -> Any:
        # Parquet is needed when something is drawn, not before
        from storage.history.history import HistoryReader

        return HistoryReader(path).read(
            stream, series=series, since_ns=since_ns, until_ns=until_ns, columns=columns
        )

    return Pictures(read)
