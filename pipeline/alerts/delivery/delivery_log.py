"""Records of the delivery loop in the database: attempts, states of endpoints, operational faults."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from uuid import UUID

import structlog
from sqlalchemy import Connection

from pipeline.alerts.delivery.endpoint_health import EndpointHealth
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.outbox import OutboxWriter, fault_id
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.base import DeliveryResult
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.stream_names import OPERATIONS_STREAM
from pipeline.core.durations import to_nanoseconds
from pipeline.core.types import Fault, FaultKind
from storage.alerting import deliveries, delivery_queue, endpoint_queues, endpoints, outbox
from storage.alerting.delivery_queue import ClaimedDelivery, DeliveryAttempt
from storage.alerting.endpoints import EndpointState
from storage.alerting.states import DeliveryReason, DeliveryState
from storage.results import fault_leases, faults
from storage.results.fault_leases import FaultLeases
from storage.sql.database import Database

log = structlog.get_logger(__name__)

_GAUGE_INTERVAL_NS = to_nanoseconds(timedelta(seconds=10))
#: Faults that began earlier than this are not read again.
_FAULT_AGE_NS = to_nanoseconds(timedelta(days=30))


def endpoint_owner(endpoint: str) -> str:
    """Return the owner of the operational fault of an endpoint, which no process owns."""
    return f"endpoint {endpoint}"


def end_endpoint_fault(connection: Connection, endpoint: str, now_ns: int) -> bool:
    """End the operational fault of an endpoint, and return whether one was open."""
    owner = endpoint_owner(endpoint)
    return faults.close(connection, OPERATIONS_STREAM, FaultKind.ENDPOINT_FAILING, None, now_ns, owner)


class DeliveryLog:
    """Records of one configuration. ``health`` is shared with the loop and has an entry for each endpoint."""

    def __init__(
        self,
        database: Database,
        router: Router,
        configured: Mapping[str, EndpointConfig],
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
        self._outboxes = {stream: OutboxWriter(stream, enabled=True) for stream in router.streams}
        self._measured_ns = 0
        self._fault_leases = FaultLeases()
        self._known_faults: set[tuple[UUID, int | None]] = set()

    def begin(self, now_ns: int) -> None:
        """Add rows and health of what is configured, and suppress deliveries to endpoints that were removed."""
        with self._database.begin() as connection:
            outbox.ensure_streams(connection, self._router.streams)
            known = endpoints.states(connection)
            for name, config in self._endpoints.items():
                if name in self._health:
                    self._health[name].config = config
                else:
                    self._health[name] = EndpointHealth(config, known.get(name) or EndpointState(name))
            reported = {f.owner for f in faults.query(connection, stream=OPERATIONS_STREAM, open_only=True)}
            for name, health in self._health.items():
                health.reported = endpoint_owner(name) in reported
            for name in set(endpoint_queues.pending_endpoints(connection)) - self._endpoints.keys():
                self._suppress_removed(connection, name, now_ns)

    def refresh(self, now_ns: int) -> None:
        """Save changed states of endpoints, and read those that other processes changed."""
        with self._database.begin() as connection:
            for health in self._health.values():
                if health.unsaved:
                    endpoints.save(connection, health.state)
                    health.unsaved = False
            known = endpoints.states(connection)
            self._end_faults_of_dead_owners(connection, now_ns)
            self._new_faults(connection, now_ns)
        for name, health in self._health.items():
            if name in known:
                health.update(known[name])
            self._metrics.endpoint(
                name, disabled=health.disabled, failing=health.state.failing_ns is not None
            )
        if not 0 <= now_ns - self._measured_ns < _GAUGE_INTERVAL_NS:
            self._measured_ns = now_ns
            self._measure(now_ns)

    def record(
        self, results: list[tuple[ClaimedDelivery, DeliveryAttempt, DeliveryResult]], now_ns: int
    ) -> None:
        """Write attempts, free their queues, and update the health of the endpoints."""
        with self._database.begin() as connection:
            reclaimed = delivery_queue.record(
                connection, self._worker, [attempt for _, attempt, _ in results], now_ns
            )
            for claimed, attempt, result in results:
                health = self._health.get(claimed.endpoint)
                if health is not None:
                    self._update_health(connection, health, result, now_ns)
                elif attempt.state == DeliveryState.PENDING:
                    self._suppress_removed(connection, claimed.endpoint, now_ns)
                self._metrics.attempted(claimed, attempt, now_ns)
        for attempt in reclaimed:
            log.warning(
                "attempt ended after another process reclaimed its queue; the attempt is not recorded",
                delivery=str(attempt.delivery),
            )

    def _new_faults(self, connection: Connection, now_ns: int) -> None:
        """Write the events of faults that began or ended since the last call.

        Faults are opened and closed in several modules, so they are read from their table.
        """
        for stream, writer in self._outboxes.items():
            for fault in faults.query(connection, stream=stream, since_ns=now_ns - _FAULT_AGE_NS):
                change = (fault_id(fault), fault.ended_ns)
                if change not in self._known_faults:
                    self._known_faults.add(change)
                    writer.on_faults(connection, [fault], now_ns)

    def _end_faults_of_dead_owners(self, connection: Connection, now_ns: int) -> None:
        """End faults whose process died, also if no other process reads their stream."""
        expired = self._fault_leases.expired(connection)
        if expired:
            fault_leases.end(connection, [id_ for id_, _ in expired], now_ns)
            for owner in {owner for _, owner in expired}:
                log.warning("process ended; its faults are closed", owner=owner)

    def _suppress_removed(self, connection: Connection, endpoint: str, now_ns: int) -> None:
        """Suppress what waits for an endpoint that is no longer configured.

        Only for the streams of this configuration: another one on the same database may have the endpoint.
        """
        count = endpoint_queues.finish_pending(
            connection,
            endpoint,
            DeliveryState.SUPPRESSED,
            DeliveryReason.ENDPOINT_REMOVED,
            now_ns,
            self._router.streams,
        )
        if count:
            self._metrics.finished(endpoint, DeliveryState.SUPPRESSED, count)
            log.warning(
                "endpoint removed; its pending deliveries are suppressed",
                endpoint=endpoint,
                deliveries=count,
            )

    def _update_health(
        self, connection: Connection, health: EndpointHealth, result: DeliveryResult, now_ns: int
    ) -> None:
        name, was_disabled = health.state.endpoint, health.disabled
        if health.record_result(result, now_ns):
            count = endpoint_queues.retry_now(connection, name, now_ns)
            endpoints.save(connection, health.state)
            log.info("endpoint recovered; its queues are due now", endpoint=name, queues=count)
        if result.delivered and health.reported:
            self._end_report(connection, health, now_ns)
        trouble = health.trouble(result, now_ns)
        if trouble is not None and not health.reported:
            message = (
                f"endpoint {name} {trouble}; last answer: {result.answer or result.status}. Its deliveries wait. "
                f"Details: forewatch deliveries list --endpoint {name}"
            )
            self._report(connection, health, message, now_ns)
            log.warning("endpoint fails; the other endpoints are notified", endpoint=name, reason=trouble)
        if health.disabled and not was_disabled:
            self._give_up(connection, health, now_ns)
        elif health.disabled:
            endpoint_queues.finish_pending(
                connection, name, DeliveryState.DEAD, DeliveryReason.ENDPOINT_DISABLED, now_ns
            )

    def _give_up(self, connection: Connection, health: EndpointHealth, now_ns: int) -> None:
        """Disable an endpoint, and report it as a fault to the other endpoints."""
        name, reason = health.state.endpoint, health.state.reason
        endpoints.save(connection, health.state)
        health.unsaved = False
        count = endpoint_queues.finish_pending(
            connection, name, DeliveryState.DEAD, DeliveryReason.ENDPOINT_DISABLED, now_ns
        )
        message = (
            f"endpoint {name} is disabled: {reason}. {count} deliveries are dead letters, and later ones will be. "
            f"When the receiver works again, run: forewatch endpoints enable {name}, then: "
            f"forewatch deliveries redeliver --endpoint {name}"
        )
        self._end_report(connection, health, now_ns)
        self._report(connection, health, message, now_ns)
        self._metrics.finished(name, DeliveryState.DEAD, count)
        log.error(
            "endpoint disabled; its pending deliveries are dead letters",
            endpoint=name,
            reason=reason,
            dead_letters=count,
        )

    def _report(self, connection: Connection, health: EndpointHealth, message: str, now_ns: int) -> None:
        """Open the operational fault of an endpoint, which the other endpoints receive."""
        name = health.state.endpoint
        fault = Fault(
            OPERATIONS_STREAM,
            FaultKind.ENDPOINT_FAILING,
            message,
            now_ns,
            detail={"endpoint": name},
            owner=endpoint_owner(name),
        )
        faults.save(connection, fault)
        health.reported = True
        self._new_faults(connection, now_ns)

    def _end_report(self, connection: Connection, health: EndpointHealth, now_ns: int) -> None:
        end_endpoint_fault(connection, health.state.endpoint, now_ns)
        health.reported = False
        self._new_faults(connection, now_ns)

    def _measure(self, now_ns: int) -> None:
        with self._database.read() as connection:
            self._metrics.backlog(deliveries.backlog(connection), outbox.backlog(connection), now_ns)
