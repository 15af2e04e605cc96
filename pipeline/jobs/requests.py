"""Asking for work: what the clock, a drift and a person put into ``jobs``, and what people said that a
training must know.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection

from detectors.composite.tiers import TIERS
from pipeline.config.schema import Config, Stream
from pipeline.training.quarantine import Ruling, Why
from storage.model_store import jobs, quarantine
from storage.results import anomalies, labels
from storage.sql.database import Database

_LABELS = {"true": Why.ANOMALY, "false": Why.NORMAL, "maintenance": Why.MAINTENANCE}


def trainable(stream: Stream) -> bool:
    """Whether the stream's detector has weights that a training could change."""
    tier = TIERS.get(stream.detector)
    return tier is not None and tier.lags > 0


def ask(
    connection: Connection,
    name: str,
    stream: Stream,
    due_ns: int,
    *,
    trigger: str,
    author: str,
    now_ns: int,
    detail: dict[str, Any] | None = None,
) -> int | None:
    """Queue a training of stream ``name``; None where that is queued already, or, for a drift, any other is.

    A drift is due ``min_interval`` after the last training at the earliest.
    """
    if trigger == "drift":
        last = jobs.query(connection, stream=name, kind="train", limit=1)
        if last and last[0].state == "queued":
            return None
        if last:  # that training has not seen the drift, and the watch will not find it again
            due_ns = max(
                due_ns, last[0].created_ns + round(stream.retraining.min_interval.total_seconds() * 1e9)
            )
    device = stream.retraining.device
    return jobs.add(
        connection,
        "train",
        name,
        due_ns,
        trigger=trigger,
        author=author,
        now_ns=now_ns,
        device=device,
        detail=detail,
    )


def kept_out(database: Database, config: Config, stream: str, by_hand: bool) -> list[dict[str, Any]]:
    """What a training of ``stream`` would leave out now, by series and time; ``by_hand``: only the ranges
    that people took out.
    """
    from pipeline.training.dataset import from_history

    with database.read() as connection:
        ranges, said = quarantine.query(connection, stream=stream), rulings(connection, stream)
    if by_hand:
        fields = ("id", "series", "start_ns", "end_ns")
        return [
            {name: getattr(one, name) for name in fields}
            | {"stream": stream, "points": None, "why": one.reason, "by": one.author}
            for one in ranges
        ]
    data = from_history(config.history_path, stream, config.streams[stream].channels, said)
    return [
        {"id": None, "stream": stream, "series": one.series, "start_ns": one.start_ns, "end_ns": one.end_ns}
        | {"points": one.points, "why": one.why.value, "by": one.by}
        for one in data.left_out
    ]


def rulings(connection: Connection, stream: str) -> list[Ruling]:
    """What people said of the stream's past: labels of anomalies, and ranges that were taken out by hand."""
    found = [
        Ruling(one.series, one.start_ns, one.end_ns - 1, Why.EXCLUDED, one.author)
        for one in quarantine.query(connection, stream=stream)
    ]
    said = labels.said(connection, stream)
    for anomaly in anomalies.having(connection, list(said)):
        label = said[anomaly.id]
        found.append(
            Ruling(anomaly.series, anomaly.start_ns, anomaly.end_ns, _LABELS[label.label], label.author)
        )
    return found
