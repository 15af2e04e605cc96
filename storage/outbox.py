"""Alert events, written in the transaction of the batch that caused them; delivering them is the business of ``pipeline.alerts``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Connection

from storage.tables import OutboxRow
from storage.types import insert


@dataclass(frozen=True, slots=True)
class AlertEvent:
    """What happened to an anomaly: ``kind`` is opened, updated, resolved, revised or retracted; ``sequence`` counts per anomaly."""

    stream: str
    anomaly_id: UUID
    sequence: int
    kind: str
    payload: dict[str, Any]


def add(connection: Connection, events: Sequence[AlertEvent]) -> None:
    """Insert pending events; one that is there already (same anomaly, same sequence) stays as it is."""
    if events:
        now = {"state": "pending", "created_ns": time.time_ns()}
        connection.execute(insert(connection, OutboxRow).on_conflict_do_nothing(), [asdict(event) | now for event in events])
