"""Changes of the database since the last look, for live events."""

from __future__ import annotations

import time
from collections import OrderedDict
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from pipeline.api.routes.alerts import alert_item
from pipeline.api.routes.anomalies import anomaly_item
from pipeline.api.routes.operations import fault_item
from pipeline.config.schema import Config
from pipeline.core.types import Fault
from storage.alerting import alerts, overview
from storage.alerting.alerts import AlertRecord
from storage.results import anomalies, faults, lanes
from storage.results.lanes import Brief
from storage.sql.database import Database
from storage.stream_state import positions

#: A transaction may commit this long after the time that it wrote.
OVERLAP_NS = 5 * 10**9
#: More changes at once are reported as ``reset``.
MAX_CHANGES = 500
MAX_READ = 20_000
MAX_REMEMBERED = 50_000
PROGRESS_SECONDS = 5.0

Change = tuple[str, str | None, dict[str, Any]]


class ChangeReader:
    """State of the last look. The first look finds the state and reports nothing."""

    def __init__(self, config: Config, database: Database) -> None:
        """Read nothing yet."""
        self._config, self._database = config, database
        self._first = True
        self._since_ns = 0
        self._anomalies: OrderedDict[UUID, tuple[str, str]] = OrderedDict()
        self._alerts: dict[UUID, tuple[Any, ...]] = {}
        self._faults: dict[tuple[Any, ...], Fault] = {}
        self._deliveries: tuple[Any, ...] = ()
        self._records = -1
        self._progress_at = 0.0

    def read(self) -> list[Change]:
        """Return (kind, stream, data) of what has changed since the last look.

        Raises:
            StorageError: The database does not answer; the next look finds the same changes.
        """
        with self._database.read() as connection:
            found = [
                *self._changed_anomalies(connection),
                *self._changed_alerts(connection),
                *self._changed_faults(connection),
                *self._changed_deliveries(connection),
                *self._progress(connection),
            ]
        if self._first:
            self._first = False
            return []
        if len(found) > MAX_CHANGES:
            return [("reset", None, {"reason": "many changes at once: read the lists again"})]
        return found

    def _changed_anomalies(self, connection: Connection) -> list[Change]:
        if self._first:
            # Open anomalies are known already; those written while this runs are seen again.
            self._since_ns = time.time_ns()
            for one in lanes.open_briefs(connection, MAX_REMEMBERED):
                self._anomalies[one.id] = (one.state, one.severity)
            return []
        found = lanes.briefs_since(connection, self._since_ns - OVERLAP_NS, MAX_READ)
        changed = [one for one in found if self._is_news(one)]
        if found:
            self._since_ns = time.time_ns() if len(found) == MAX_READ else found[-1].updated_ns
        if len(changed) > MAX_CHANGES:
            return [("anomaly", one.stream, {}) for one in changed]  # read() makes them a reset
        whole = {one.id: one for one in anomalies.having(connection, [one.id for one in changed])}
        return [
            ("anomaly", one.stream, anomaly_item(self._config, whole[one.id]).model_dump(mode="json"))
            for one in changed
            if one.id in whole
        ]

    def _is_news(self, one: Brief) -> bool:
        now, before = (one.state, one.severity), self._anomalies.get(one.id)
        self._anomalies[one.id] = now
        self._anomalies.move_to_end(one.id)
        if len(self._anomalies) > MAX_REMEMBERED:
            self._anomalies.popitem(last=False)
        return now != before

    def _changed_alerts(self, connection: Connection) -> list[Change]:
        live = alerts.live(connection, MAX_READ)
        now = {one.alert_id: _state_of(one) for one in live}
        changed = [one for one in live if self._alerts.get(one.alert_id) != now[one.alert_id]]
        gone = [id_ for id_ in self._alerts if id_ not in now]
        closed = list(alerts.alerts(connection, gone[:MAX_CHANGES]).values())
        self._alerts = now
        return [("alert", one.stream, alert_item(one).model_dump(mode="json")) for one in [*changed, *closed]]

    def _changed_faults(self, connection: Connection) -> list[Change]:
        now = {faults.order_of(one): one for one in faults.query(connection, open_only=True, limit=MAX_READ)}
        opened = [one for key, one in now.items() if key not in self._faults]
        ended = []
        for key, one in self._faults.items():
            if key not in now:
                same = faults.query(connection, stream=one.stream, since_ns=one.started_ns)
                ended += [other for other in same if faults.order_of(other) == key]
        self._faults = now
        return [("fault", one.stream, fault_item(one).model_dump(mode="json")) for one in [*opened, *ended]]

    def _changed_deliveries(self, connection: Connection) -> list[Change]:
        now = overview.delivery_marks(connection)
        before, self._deliveries = self._deliveries, now
        return [("deliveries", None, {})] if now != before else []

    def _progress(self, connection: Connection) -> list[Change]:
        if not self._first and time.monotonic() - self._progress_at < PROGRESS_SECONDS:
            return []
        self._progress_at = time.monotonic()
        records = sum(one.counts.read() for one in positions.all_of(connection))
        before, self._records = self._records, records
        return [("progress", None, {})] if records != before else []


def _state_of(alert: AlertRecord) -> tuple[Any, ...]:
    """Return what a change of is reported."""
    return (
        *(alert.state, alert.severity, alert.count, alert.open_count),
        alert.acked_ns,
        alert.suppressed_by,
    )
