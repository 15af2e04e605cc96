"""Metrics of the alerts. They are defined in ``pipeline.observability.metrics``."""

from __future__ import annotations

from pipeline.alerts.routing.router import RoutingResult
from pipeline.core.durations import SECOND_NS
from pipeline.observability.metrics import Metrics
from storage.alerting.delivery_queue import ClaimedDelivery, DeliveryAttempt
from storage.alerting.states import DeliveryState


class AlertMetrics:
    """The metrics of one delivery loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics.alerts
        self._endpoints: set[str] = set()
        self._streams: set[str] = set()

    def routed(self, stream: str, result: RoutingResult) -> None:
        """Count one transaction of the router."""
        for state, count in result.event_results.items():
            self._metrics.alert_events.labels(stream, state).inc(count)
        for kind, count in result.kinds.items():
            self._metrics.alert_notices.labels(stream, kind).inc(count)
        for endpoint, count in result.disabled.items():
            self.finished(endpoint, DeliveryState.DEAD, count)
        if result.budget_used is not None:
            self._metrics.alert_budget_used.labels(stream).set(result.budget_used)

    def attempted(self, claimed: ClaimedDelivery, attempt: DeliveryAttempt, now_ns: int) -> None:
        """Count one attempt."""
        endpoint = claimed.endpoint
        self._metrics.delivery_attempts.labels(endpoint, attempt.outcome).inc()
        self._metrics.delivery_attempt_seconds.labels(endpoint).observe(attempt.latency_ns / SECOND_NS)
        if attempt.repeat:
            self._metrics.delivery_repeats.labels(endpoint).inc()
        if attempt.state == DeliveryState.DELIVERED:
            self._metrics.delivery_seconds.labels(endpoint).observe(
                max(now_ns - claimed.created_ns, 0) / SECOND_NS
            )
        if attempt.state != DeliveryState.PENDING:
            self.finished(endpoint, attempt.state, 1)

    def finished(self, endpoint: str, state: str, count: int) -> None:
        """Count deliveries that reached a final state."""
        self._metrics.deliveries.labels(endpoint, state).inc(count)

    def endpoint(self, endpoint: str, *, disabled: bool, failing: bool) -> None:
        """Set the state of one endpoint."""
        self._metrics.endpoint_up.labels(endpoint).set(0 if disabled or failing else 1)
        self._metrics.endpoint_disabled.labels(endpoint).set(1 if disabled else 0)

    def backlog(
        self, endpoints: dict[str, tuple[int, int]], streams: dict[str, tuple[int, int]], now_ns: int
    ) -> None:
        """Set the backlogs: (count, creation time of the oldest in ns) by endpoint and by stream."""
        self._endpoints |= endpoints.keys()
        self._streams |= streams.keys()
        for name in self._endpoints:
            count, oldest_ns = endpoints.get(name, (0, now_ns))
            self._metrics.deliveries_pending.labels(name).set(count)
            self._metrics.deliveries_oldest_seconds.labels(name).set(max(now_ns - oldest_ns, 0) / SECOND_NS)
        for name in self._streams:
            count, oldest_ns = streams.get(name, (0, now_ns))
            self._metrics.outbox_pending.labels(name).set(count)
            self._metrics.outbox_oldest_seconds.labels(name).set(max(now_ns - oldest_ns, 0) / SECOND_NS)
