"""How one endpoint is doing, as one worker sees it: how much may be on its way, when to pause, when it is
given up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from pipeline.alerts.delivery.retry import LONGEST_PAUSE
from pipeline.alerts.transport.base import Outcome
from pipeline.config.endpoints import EndpointBase
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from storage.alerting.endpoints import EndpointState

#: After this many failures in a row only single probes go out, further and further apart.
PROBING = 5
_LONGEST_PROBE = 60.0
_BUSY = 5.0
_BUSY_STATUS = frozenset({429, 502, 503, 504})
_TOLD_EVERY = to_nanoseconds(timedelta(minutes=1))


@dataclass(slots=True)
class EndpointHealth:
    """``state`` is what every process knows of the endpoint; the rest is this worker's own."""

    config: EndpointBase
    state: EndpointState
    in_flight: int = 0
    failures: int = 0
    next_send_ns: int = 0
    unsaved: bool = False

    @property
    def disabled(self) -> bool:
        return self.state.disabled_ns is not None

    def free(self, now_ns: int) -> int:
        """How many deliveries may be claimed now."""
        if self.disabled or now_ns < max(self.state.quiet_until_ns or 0, self.next_send_ns):
            return 0
        if self.config.rate is not None:
            return max(min(1, self.config.in_flight - self.in_flight), 0)
        most = 1 if self.failures >= PROBING else self.config.in_flight
        return max(most - self.in_flight, 0)

    def sending(self, now_ns: int) -> None:
        self.in_flight += 1
        if self.config.rate is not None:
            self.next_send_ns = now_ns + round(SECOND_NS / self.config.rate)

    def returned(self, outcome: Outcome, now_ns: int) -> bool:
        """A call came back. Returns True if the endpoint is well again after it had been failing."""
        self.in_flight = max(self.in_flight - 1, 0)
        if outcome.delivered:
            return self._well(now_ns)
        self.failures += 1
        if self.state.failing_ns is None:
            self.state.failing_ns, self.unsaved = now_ns, True
        self._pause(outcome, now_ns)
        if outcome.gone:
            self._disable("the receiver answered 410 Gone", now_ns)
        elif self.failures >= PROBING and now_ns - self.state.failing_ns >= to_nanoseconds(
            self.config.disable_after
        ):
            self._disable(
                f"nothing but failures for {self.config.disable_after}; the last: {outcome.answer}", now_ns
            )
        return False

    def learn(self, state: EndpointState) -> None:
        """What other processes and people changed meanwhile."""
        if self.disabled and state.disabled_ns is None:
            self.failures, self.next_send_ns = 0, 0
        self.state = state

    def _well(self, now_ns: int) -> bool:
        failing_ns = self.state.failing_ns
        # One series that always fails among others that do not is no failing endpoint: it keeps to its
        # schedule.
        recovered = failing_ns is not None and (
            self.failures >= PROBING or now_ns - failing_ns >= _TOLD_EVERY
        )
        self.failures = 0
        if failing_ns is not None or now_ns - (self.state.delivered_ns or 0) > _TOLD_EVERY:
            self.unsaved = True
            self.state.delivered_ns = now_ns
        self.state.failing_ns = self.state.quiet_until_ns = None
        return recovered

    def _pause(self, outcome: Outcome, now_ns: int) -> None:
        seconds = outcome.retry_after_s or 0.0
        if outcome.status in _BUSY_STATUS:
            seconds = max(seconds, _BUSY)
        if self.failures >= PROBING:
            seconds = max(seconds, min(2.0 ** (self.failures - PROBING), _LONGEST_PROBE))
        if seconds:
            self.state.quiet_until_ns, self.unsaved = (
                now_ns + round(min(seconds, LONGEST_PAUSE) * SECOND_NS),
                True,
            )

    def _disable(self, reason: str, now_ns: int) -> None:
        if not self.disabled:
            self.state.disabled_ns, self.state.reason, self.unsaved = now_ns, reason, True
