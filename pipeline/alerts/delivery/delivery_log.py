"""What the delivery loop keeps in the database beside the messages: attempts, the state of endpoints,
operational events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection

from pipeline.alerts.delivery.endpoint_health import EndpointHealth
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.outbox import AlertRules, fault_id
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.base import Outcome
from pipeline.config.endpoints import EndpointBase
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import Fault, FaultKind
from storage.alerting import alerts, deliveries, endpoints
from storage.alerting.deliveries import Attempt, Claimed
from storage.alerting.endpoints import EndpointState
from storage.results import faults
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: The stream that faults of the alerts themselves belong to.
OPERATIONS = "forewatch"
_GAUGES_EVERY = to_nanoseconds(timedelta(seconds=10))
#: Faults that began longer ago are not looked at any more.
_FAULTS_SINCE = to_nanoseconds(timedelta(days=30))


class Operations:
    """For one configuration. ``health`` is shared with the loop: it has an entry for each endpoint."""

    def __init__(
        self,
        database: Database,
        router: Router,
        configured: Mapping[str, EndpointBase],
        health: dict[str, EndpointHealth],
        worker: str,
        metrics: AlertMetrics,
    ) -> None:
        self._database = database
        self._router = router
        self._endpoints = configured
        self._health = health
        self._worker = worker
        self._metrics = metrics
        self._outbox = {stream: AlertRules(stream, enabled=True) for stream in router.streams}
        self._measured_ns = 0
        self._known_faults: set[tuple[UUID, int | None]] = set()

    def begin(self, now_ns: int) -> None:
        """Make rows and health for what is configured; what waits for endpoints that are gone is suppressed."""
        with self._database.begin() as connection:
            alerts.ensure_streams(connection, self._router.streams)
            known = endpoints.states(connection)
            for name, config in self._endpoints.items():
                if name in self._health:
                    self._health[name].config = config
                else:
                    self._health[name] = EndpointHealth(config, known.get(name) or EndpointState(name))
            for name in set(deliveries.pending_endpoints(connection)) - self._endpoints.keys():
                self._removed(connection, name, now_ns)

    def refresh(self, now_ns: int) -> None:
        """Save what this worker learnt of the endpoints, and learn what others did."""
        with self._database.begin() as connection:
            for health in self._health.values():
                if health.unsaved:
                    endpoints.save(connection, health.state)
                    health.unsaved = False
            known = endpoints.states(connection)
            self._new_faults(connection, now_ns)
        for name, health in self._health.items():
            if name in known:
                health.learn(known[name])
            self._metrics.endpoint(
                name, disabled=health.disabled, failing=health.state.failing_ns is not None
            )
        if not 0 <= now_ns - self._measured_ns < _GAUGES_EVERY:
            self._measured_ns = now_ns
            self._measure(now_ns)

    def record(self, results: list[tuple[Claimed, Attempt, Outcome]], now_ns: int) -> None:
        """Write attempts, free their lanes, and draw the consequences for the endpoints."""
        with self._database.begin() as connection:
            overtaken = deliveries.record(
                connection, self._worker, [attempt for _, attempt, _ in results], now_ns
            )
            for claimed, attempt, outcome in results:
                health = self._health.get(claimed.endpoint)
                if health is not None:
                    self._consequences(connection, health, outcome, now_ns)
                elif attempt.state == "pending":
                    self._removed(connection, claimed.endpoint, now_ns)
                self._metrics.attempted(claimed, attempt, now_ns)
        for attempt in overtaken:
            log.warning(
                "a call came back after its lane had been given to another process",
                delivery=str(attempt.delivery),
            )

    def _new_faults(self, connection: Connection, now_ns: int) -> None:
        """Faults are opened and closed in several places; the outbox is filled from their table, where all of
        that comes together.
        """
        for stream, outbox in self._outbox.items():
            for fault in faults.query(connection, stream=stream, since_ns=now_ns - _FAULTS_SINCE):
                change = (fault_id(fault), fault.ended_ns)
                if change not in self._known_faults:
                    self._known_faults.add(change)
                    outbox.on_faults(connection, [fault], now_ns)

    def _removed(self, connection: Connection, endpoint: str, now_ns: int) -> None:
        """An endpoint is not configured any more.

        Another configuration on this database may have it for its own streams.
        """
        count = deliveries.finish_pending(
            connection, endpoint, "suppressed", "endpoint removed", now_ns, self._router.streams
        )
        if count:
            self._metrics.finished(endpoint, "suppressed", count)
            log.warning(
                "an endpoint was removed; what waited for it is suppressed",
                endpoint=endpoint,
                deliveries=count,
            )

    def _consequences(
        self, connection: Connection, health: EndpointHealth, outcome: Outcome, now_ns: int
    ) -> None:
        name, was_disabled = health.state.endpoint, health.disabled
        if health.returned(outcome, now_ns):
            count = deliveries.hurry(connection, name, now_ns)
            endpoints.save(connection, health.state)
            log.info("an endpoint is well again", endpoint=name, waiting=count)
        if health.disabled and not was_disabled:
            self._disabled(connection, health, now_ns)
        elif health.disabled:
            deliveries.finish_pending(connection, name, "dead", "endpoint disabled", now_ns)

    def _disabled(self, connection: Connection, health: EndpointHealth, now_ns: int) -> None:
        """An endpoint is given up: nothing more is sent to it, and the others hear of it."""
        name, reason = health.state.endpoint, health.state.reason
        endpoints.save(connection, health.state)
        health.unsaved = False
        count = deliveries.finish_pending(connection, name, "dead", "endpoint disabled", now_ns)
        message = (
            f"the endpoint {name} is disabled: {reason}. {count} deliveries are dead letters. When the receiver is well again: "
            f"forewatch endpoints enable {name}, then forewatch deliveries redeliver --endpoint {name}"
        )
        fault = Fault(OPERATIONS, FaultKind.ENDPOINT_FAILING, message, now_ns, detail={"endpoint": name})
        faults.save(connection, fault)
        self._new_faults(connection, now_ns)
        self._metrics.finished(name, "dead", count)
        log.error("an endpoint is disabled", endpoint=name, reason=reason, dead_letters=count)

    def _measure(self, now_ns: int) -> None:
        with self._database.read() as connection:
            self._metrics.backlog(deliveries.backlog(connection), alerts.backlog(connection), now_ns)
