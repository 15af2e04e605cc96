"""Health of one endpoint in one worker: concurrent calls, pauses after failures, and when it is disabled."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pipeline.alerts.delivery.retry import MAX_PAUSE_SECONDS
from pipeline.alerts.transport.base import DeliveryResult
from pipeline.config.endpoints import EndpointConfig
from pipeline.config.field_types import format_duration
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from storage.alerting.endpoints import EndpointState

#: After this many failures in a row there is one call at a time, at growing intervals.
FAILURES_BEFORE_PROBING = 5
_MAX_PROBE_SECONDS = 60.0
_MIN_BUSY_SECONDS = 5.0
_BUSY_STATUS = frozenset({429, 502, 503, 504})
_MAX_SHOWN_SECONDS = 1e9
#: An endpoint that fails for this long is reported to the others.
_REPORT_AFTER_NS = to_nanoseconds(timedelta(minutes=10))
_SAVE_INTERVAL_NS = to_nanoseconds(timedelta(minutes=1))


@dataclass(slots=True)
class EndpointHealth:
    """Health of one endpoint: ``state`` is shared by all processes, the rest belongs to this worker.

    ``reported``: an operational fault is open for it.
    """

    config: EndpointConfig
    state: EndpointState
    in_flight: int = 0
    failures: int = 0
    next_send_ns: int = 0
    unsaved: bool = False
    reported: bool = False

    @property
    def disabled(self) -> bool:
        return self.state.disabled_ns is not None

    def free_slots(self, now_ns: int) -> int:
        """Return how many deliveries may be claimed now."""
        longest_ns = now_ns + round(MAX_PAUSE_SECONDS * SECOND_NS)
        if (self.state.quiet_until_ns or 0) > longest_ns:  # stored by an earlier version
            self.state.quiet_until_ns, self.unsaved = longest_ns, True
        if self.disabled or now_ns < max(self.state.quiet_until_ns or 0, self.next_send_ns):
            return 0
        if self.config.rate is not None:
            return max(min(1, self.config.in_flight - self.in_flight), 0)
        most = 1 if self.failures >= FAILURES_BEFORE_PROBING else self.config.in_flight
        return max(most - self.in_flight, 0)

    def record_send(self, now_ns: int) -> None:
        """Count a call that begins."""
        self.in_flight += 1
        if self.config.rate is not None:
            self.next_send_ns = now_ns + round(SECOND_NS / self.config.rate)

    def record_result(self, result: DeliveryResult, now_ns: int) -> bool:
        """Apply the result of a call; returns whether the endpoint has recovered from failing."""
        self.in_flight = max(self.in_flight - 1, 0)
        if result.delivered:
            return self._record_success(now_ns)
        self.failures += 1
        if self.state.failing_ns is None:
            self.state.failing_ns, self.unsaved = now_ns, True
        self._pause(result, now_ns)
        if result.gone:
            self._disable("the receiver answered 410 Gone", now_ns)
        elif self.failures >= FAILURES_BEFORE_PROBING and now_ns - self.state.failing_ns >= to_nanoseconds(
            self.config.disable_after
        ):
            self._disable(
                f"every attempt failed for {format_duration(self.config.disable_after)}; last answer: {result.answer}",
                now_ns,
            )
        return False

    def trouble(self, result: DeliveryResult, now_ns: int) -> str | None:
        """Return what to report to the other endpoints after a failed call; None if nothing."""
        if self.disabled or result.delivered or self.state.failing_ns is None:
            return None
        if (result.retry_after_s or 0.0) > MAX_PAUSE_SECONDS:
            wait, longest = (
                format_duration(timedelta(seconds=round(s)))
                for s in (min(result.retry_after_s or 0.0, _MAX_SHOWN_SECONDS), MAX_PAUSE_SECONDS)
            )
            return f"asks for a pause of {wait}; it is called again after {longest}"
        failing_ns = now_ns - self.state.failing_ns
        if self.failures >= FAILURES_BEFORE_PROBING and failing_ns >= _REPORT_AFTER_NS:
            return (
                f"has failed every attempt for {format_duration(timedelta(seconds=failing_ns // SECOND_NS))}"
            )
        return None

    def update(self, state: EndpointState) -> None:
        """Take the state that other processes and people may have changed."""
        if self.disabled and state.disabled_ns is None:
            self.failures, self.next_send_ns = 0, 0
        self.state = state

    def _record_success(self, now_ns: int) -> bool:
        failing_ns = self.state.failing_ns
        # One series that always fails among others that do not is not a failing endpoint: it keeps its own
        # schedule.
        recovered = failing_ns is not None and (
            self.failures >= FAILURES_BEFORE_PROBING or now_ns - failing_ns >= _SAVE_INTERVAL_NS
        )
        self.failures = 0
        if failing_ns is not None or now_ns - (self.state.delivered_ns or 0) > _SAVE_INTERVAL_NS:
            self.unsaved = True
            self.state.delivered_ns = now_ns
        self.state.failing_ns = self.state.quiet_until_ns = None
        return recovered

    def _pause(self, result: DeliveryResult, now_ns: int) -> None:
        seconds = result.retry_after_s or 0.0
        if result.status in _BUSY_STATUS:
            seconds = max(seconds, _MIN_BUSY_SECONDS)
        if self.failures >= FAILURES_BEFORE_PROBING:
            seconds = max(seconds, min(2.0 ** (self.failures - FAILURES_BEFORE_PROBING), _MAX_PROBE_SECONDS))
        if seconds:
            self.state.quiet_until_ns, self.unsaved = (
                now_ns + round(min(seconds, MAX_PAUSE_SECONDS) * SECOND_NS),
                True,
            )

    def _disable(self, reason: str, now_ns: int) -> None:
        if not self.disabled:
            self.state.disabled_ns, self.state.reason, self.unsaved = now_ns, reason, True
