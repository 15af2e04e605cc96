"""Router, delivery loop and chart renderer of a configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import make_url

from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.messages.chart import ChartRenderer
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.composer import CommandLine
from pipeline.alerts.routing.router import Router
from pipeline.config.alerts import AlertsConfig, FaultAlertsConfig
from pipeline.config.schema import Config
from pipeline.config.stream_names import OPERATIONS_STREAM
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database


def router_of(config: Config) -> Router:
    """Return the router of every stream and of the faults of the alerts themselves.

    The latter go to every endpoint that receives the faults of any stream.
    """
    streams = {name: stream.alerts for name, stream in config.streams.items()}
    chosen = [alerts.faults.to if alerts.faults.to is not None else alerts.to for alerts in streams.values()]
    all_receivers = (
        None if None in chosen else list(dict.fromkeys(name for to in chosen for name in to or ()))
    )
    return Router(
        streams | {OPERATIONS_STREAM: AlertsConfig(faults=FaultAlertsConfig(to=all_receivers))},
        config.endpoints,
        command_line(config),
        {name: stream.local_timezone for name, stream in config.streams.items()},
    )


def command_line(config: Config) -> CommandLine:
    """Return what commands need to find ``config`` and the files that it names by relative paths."""
    dashboard = config.served.url if config.served is not None else None
    if config.file is None:
        return CommandLine(dashboard=dashboard)
    url, password = make_url(config.database), config.database_password
    database = url.database if url.get_backend_name() == "sqlite" else None
    names = [database, None if password is None else password.file]
    relative = any(name is not None and not Path(name).is_absolute() for name in names)
    return CommandLine(config.file, Path.cwd() if relative else None, dashboard)


def delivery_loop(config: Config, database: Database, metrics: Metrics) -> DeliveryLoop:
    """Return the delivery loop of ``config``; it does not run yet."""
    return DeliveryLoop(
        database, router_of(config), config.endpoints, AlertMetrics(metrics), picture=chart_renderer(config)
    )


def chart_renderer(config: Config) -> ChartRenderer:
    """Return the renderer of charts, which reads the recorded history of ``config``."""
    path = config.history_path

    def read(stream: str, series: str, since_ns: int, until_ns: int, columns: list[str]) -> Any:
        # Parquet is imported when the first chart is drawn.
        from storage.history.reader import HistoryReader

        return HistoryReader(path).read(
            stream, series=series, since_ns=since_ns, until_ns=until_ns, columns=columns
        )

    return ChartRenderer(read)
