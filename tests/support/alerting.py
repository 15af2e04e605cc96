"""Support of the tests of alerts: anomalies, and a router with a clock that the test moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pydantic

from pipeline.alerts.messages.payload import Payload, decode
from pipeline.alerts.outbox import OutboxWriter
from pipeline.alerts.routing.router import Router, RoutingResult
from pipeline.config.alerts import AlertsConfig
from pipeline.config.endpoints import Endpoint, EndpointConfig
from pipeline.core.types import (
    Anomaly,
    AnomalyState,
    DeviationContext,
    DeviationCourse,
    EndReason,
    FarthestReading,
    Fault,
    Partition,
    Severity,
)
from storage.alerting import alerts, deliveries, outbox
from storage.sql.database import Database

SECOND = 1_000_000_000
#: 2026-03-02 12:00 UTC, a Monday
NOON = 1_772_452_800 * SECOND
_ENDPOINT: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(Endpoint)


def anomaly(series: str = "b2/t1", start_ns: int = NOON, stream: str = "plant", **changed: Any) -> Anomaly:
    """An open, major anomaly of one series; the labels are site and sensor, from the series' name."""
    site, _, sensor = series.partition("/")
    made = Anomaly(
        id=Anomaly.identify(stream, series, start_ns),
        stream=stream,
        series=series,
        labels={"site": site, "sensor": sensor},
        state=AnomalyState.OPEN,
        severity=Severity.MAJOR,
        direction="up",
        start_ns=start_ns,
        end_ns=start_ns + 60 * SECOND,
        peak_ns=start_ns + 30 * SECOND,
        points=3,
        score=0.9999999,
        surprise=7.5,
        channels=["temperature", "pressure"],
        observed=[93.1, 1.02],
        expected=[71.2, 1.01],
        lower=[68.9, 0.98],
        upper=[73.5, 1.04],
        contribution=[0.93, 0.07],
        forecaster="lstm",
        model_version="standard-3f2a",
        config_hash="c0ffee",
        partition=Partition("sensors", 0),
        first_offset=100,
        last_offset=103,
        peak_offset=101,
        last_flag_seq=40,
        revision=1,
        cause="level_shift",
    )
    return replace(made, **changed)


def ended_drift() -> Anomaly:
    """A drift of five hours that is over; its peak of the first run is not its farthest reading."""
    far = FarthestReading("unusual_value", 92.1, 65.6, 69.4, 13.0, 92.1, "working_days")
    context = DeviationContext("working_days", 71.8, 70.6, kind="measurement", farthest=far)
    until_ns = NOON + 5 * 3600 * SECOND
    course = DeviationCourse(highest=92.1, farthest_ns=until_ns, last=68.4)
    numbers = {"observed": [71.8, 1.0], "lower": [65.9, 0.0], "upper": [71.4, 2.0], "points": 57}
    opened = anomaly(cause="unusual_value", ratio=1.2, context=context, course=course, **numbers)
    return closed(opened, end_reason=EndReason.RECOVERED, end_ns=until_ns)


#: Sentence of ``ended_drift`` in °C and UTC, in messages, the API, the dashboard and commands.
TEXT_OF_ENDED_DRIFT = (
    "temperature was as high as 92.1 °C at 17:00 UTC, usual at that time on working days 65.6 to 69.4 °C; "
    "now 68.4 °C, usual at this hour"
)


def closed(opened: Anomaly, **changed: Any) -> Anomaly:
    """Return the same anomaly, closed."""
    return replace(opened, state=AnomalyState.CLOSED, revision=opened.revision + 1, **changed)


def endpoint(**keys: Any) -> EndpointConfig:
    """An endpoint as the configuration would make it."""
    made: EndpointConfig = _ENDPOINT.validate_python(keys)
    return made


def json_endpoint(url: str = "http://127.0.0.1:9/hook", **keys: Any) -> EndpointConfig:
    return endpoint(type="json", url=url, allow=["loopback"], **keys)


class RouterBench:
    """A database with its outbox, a router, and a clock that the test moves."""

    def __init__(
        self,
        database: Database,
        config: Mapping[str, Any] | None = None,
        endpoints: Mapping[str, EndpointConfig] | None = None,
    ) -> None:
        self.database = database
        self.now_ns = NOON
        self.configure(config or {}, endpoints or {"chat": json_endpoint()})
        self.outbox = OutboxWriter("plant", enabled=True)
        with database.begin() as connection:
            outbox.ensure_streams(connection, self.router.streams)

    def configure(self, config: Mapping[str, Any], endpoints: Mapping[str, EndpointConfig]) -> None:
        self.router = Router({"plant": AlertsConfig.model_validate(config)}, endpoints)

    def happen(self, *changes: Anomaly | Fault) -> None:
        """The engine commits changes."""
        with self.database.begin() as connection:
            for change in changes:
                if isinstance(change, Fault):
                    from storage.results import faults

                    faults.save(connection, change)
                    self.outbox.on_faults(connection, [change], self.now_ns)
                else:
                    self.outbox.on_changes(connection, [change], self.now_ns)

    def happen_at_once(self, changes: Sequence[Anomaly]) -> None:
        """The engine commits a batch with many changes."""
        with self.database.begin() as connection:
            self.outbox.on_changes(connection, changes, self.now_ns)

    def turn(self, disabled: tuple[str, ...] = ()) -> RoutingResult:
        with self.database.begin() as connection:
            return self.router.route(connection, "plant", self.now_ns, disabled)

    def settle(self) -> None:
        """Turn until nothing is left to do now."""
        for _ in range(1000):
            with self.database.read() as connection:
                if not outbox.streams_with_work(connection, ["plant"], self.now_ns):
                    return
            self.turn()
        raise AssertionError("the router still has work after 1000 transactions")

    def later(self, seconds: float) -> None:
        """Time passes, and the router looks whenever a timer runs out."""
        end = self.now_ns + round(seconds * SECOND)
        self.settle()
        while (due := self._next_timer()) is not None and due <= end:
            self.now_ns = max(due, self.now_ns)
            self.settle()
        self.now_ns = end
        self.settle()

    def sent(self, endpoint: str = "chat") -> list[Payload]:
        """Everything that was queued for an endpoint, in order."""
        with self.database.read() as connection:
            rows = deliveries.query(connection, endpoint=endpoint)
            rows.sort(key=lambda d: (d.created_ns, d.queue, d.sequence))
            return [decode(deliveries.body_of(connection, d.notification_id) or "") for d in rows]

    def kinds(self, endpoint: str = "chat") -> list[str]:
        return [p.kind for p in self.sent(endpoint)]

    def ledger(self) -> dict[str, int]:
        """state or reason → events."""
        with self.database.read() as connection:
            return {reason or state: n for (state, reason), n in outbox.count_by_state(connection).items()}

    def _next_timer(self) -> int | None:
        with self.database.read() as connection:
            timers = [a.flush_ns for a in alerts.query(connection) if a.flush_ns is not None]
        return min(timers, default=None)
