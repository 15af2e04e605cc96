"""What the alerts count.

The metrics themselves are described with all others, in ``pipeline.observability.metrics``.
"""

from __future__ import annotations

from pipeline.alerts.routing.router import Turn
from pipeline.core.durations import SECOND_NS
from pipeline.observability.metrics import Metrics
from storage.alerting.deliveries import Attempt, Claimed


class AlertMetrics:
    """The metrics of one delivery loop."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._endpoints: set[str] = set()
        self._streams: set[str] = set()

    def routed(self, stream: str, turn: Turn) -> None:
        """One turn of the router."""
        for fate, count in turn.fates.items():
            self._metrics.alert_events.labels(stream, fate).inc(count)
        for kind, count in turn.kinds.items():
            self._metrics.alert_notices.labels(stream, kind).inc(count)
        for endpoint, count in turn.off.items():
            self.finished(endpoint, "suppressed", count)
        if turn.budget_used is not None:
            self._metrics.alert_budget_used.labels(stream).set(turn.budget_used)

    def attempted(self, claimed: Claimed, attempt: Attempt, now_ns: int) -> None:
        endpoint = claimed.endpoint
        self._metrics.delivery_attempts.labels(endpoint, attempt.outcome).inc()
        self._metrics.delivery_attempt_seconds.labels(endpoint).observe(attempt.latency_ns / SECOND_NS)
        if attempt.repeat:
            self._metrics.delivery_repeats.labels(endpoint).inc()
        if attempt.state == "delivered":
            self._metrics.delivery_seconds.labels(endpoint).observe(
                max(now_ns - claimed.created_ns, 0) / SECOND_NS
            )
        if attempt.state != "pending":
            self.finished(endpoint, attempt.state, 1)

    def finished(self, endpoint: str, state: str, count: int) -> None:
        self._metrics.deliveries.labels(endpoint, state).inc(count)

    def endpoint(self, endpoint: str, *, disabled: bool, failing: bool) -> None:
        self._metrics.endpoint_up.labels(endpoint).set(0 if disabled or failing else 1)
        self._metrics.endpoint_disabled.labels(endpoint).set(1 if disabled else 0)

    def backlog(
        self, endpoints: dict[str, tuple[int, int]], streams: dict[str, tuple[int, int]], now_ns: int
    ) -> None:
        """(how many wait, creation time of the oldest) by endpoint and by stream."""
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
