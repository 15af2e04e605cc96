"""Deletion of old rows and files, in small steps so that scoring never waits long."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Protocol

from sqlalchemy import Connection

from pipeline.core.durations import SECOND_NS
from storage.access import audit
from storage.alerting import alerts, deliveries
from storage.history import reduction_files
from storage.history.segments import SegmentStore, valid
from storage.model_store import jobs, monitor_state
from storage.results import anomalies, dead_letters, faults, late_records
from storage.sql.database import Database
from storage.stream_state import offloaded_series

ROWS_PER_TRANSACTION = 1000
#: Age from which a half-written file belongs to a process that stopped.
_PARTIAL_FILE_SECONDS = 86_400


class RetentionPolicy(Protocol):
    """Retention settings of ``pipeline.config.schema.Storage``."""

    @property
    def keep_anomalies(self) -> timedelta: ...
    @property
    def keep_dead_letters(self) -> timedelta: ...
    @property
    def keep_audit(self) -> timedelta:
        """Age of entries of the audit log."""
        ...

    @property
    def keep_history(self) -> timedelta: ...
    @property
    def keep_history_bytes(self) -> int | None: ...


def prune(database: Database, policy: RetentionPolicy) -> dict[str, int]:
    """Delete rows older than ``policy`` allows, and return the number of rows by table.

    Ages are those of the wall clock. Offloaded series, ended faults, alerts, jobs and the states of drift and
    detection power are kept as long as anomalies. Raises StorageUnavailable.
    """
    old = _before(policy.keep_anomalies)
    undecoded = _before(policy.keep_dead_letters)
    work: dict[str, tuple[Callable[[Connection, int, int], int], int]] = {
        "anomalies": (anomalies.prune, old),
        "dead_letters": (dead_letters.prune, undecoded),
        "late_records": (late_records.prune, undecoded),
        "faults": (faults.prune, old),
        "series_states": (offloaded_series.prune, old),
        "alerts": (alerts.prune, old),
        "deliveries": (deliveries.prune, old),
        "jobs": (jobs.prune, old),
        "power": (monitor_state.prune_power, old),
        "drift_states": (monitor_state.prune_drift, old),
        "audit_entries": (audit.prune, _before(policy.keep_audit)),
    }
    return {table: _in_chunks(database, delete, before_ns) for table, (delete, before_ns) in work.items()}


def prune_history(path: str, policy: RetentionPolicy) -> int:
    """Delete segments of recorded history by age, then the oldest while there are too many bytes.

    A file of reductions goes with the last of its segments. Return the number of deleted files. Raises as
    fsspec does.
    """
    store = SegmentStore(path)
    oldest_s = _before(policy.keep_history) // SECOND_NS
    listed, reductions = reduction_files.listed(store)
    current = set(valid(listed))
    # Superseded segments are deleted whatever their age.
    kept = sorted((s for s in current if s.written_s >= oldest_s), key=lambda s: (s.written_s, s.first))
    total = sum(one.size_bytes for one in [*kept, *reductions])
    while kept and policy.keep_history_bytes is not None and total > policy.keep_history_bytes:
        total -= kept.pop(0).size_bytes
    gone = set(listed) - set(kept)
    gone.update(reduction_files.without_segments(reductions, kept))
    for segment in gone:
        store.delete(segment)
    return len(gone) + store.sweep(time.time() - _PARTIAL_FILE_SECONDS)


def _before(keep: timedelta) -> int:
    return time.time_ns() - int(keep.total_seconds()) * SECOND_NS


def _in_chunks(database: Database, delete: Callable[[Connection, int, int], int], before_ns: int) -> int:
    total = 0
    while True:
        with database.begin() as connection:
            deleted = delete(connection, before_ns, ROWS_PER_TRANSACTION)
        total += deleted
        if deleted < ROWS_PER_TRANSACTION:
            return total
