"""From a configured stream to its engine: the one place where the parts are put together."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import make_url

from detectors import build
from detectors.base import Detector, DetectorSpec, Limits
from pipeline.anomalies import Provenance
from pipeline.commit import Committer, OnChanges
from pipeline.config import Config, Stream
from pipeline.config_load import config_hash
from pipeline.database import database_of
from pipeline.engine import Engine, EngineParts, Sink
from pipeline.faults import FaultLog
from pipeline.history import History
from pipeline.metrics import StreamMetrics
from pipeline.ownership import Ownership
from pipeline.scoring import Scoring
from pipeline.snapshots import Snapshots, StoredSeries
from pipeline.sources.base import Source
from storage.history import HistoryWriter
from storage.session import Database


@contextmanager
def open_database(config: Config) -> Iterator[Database]:
    """The configured database for a process that writes: schema made if there is none, refused if it is another version's.

    Raises StorageError.
    """
    database = database_of(config, exclusive=True)
    try:
        if database.current() is None:
            database.upgrade()
        database.require_head()
        yield database
    finally:
        database.close()


def history_path(config: Config) -> str:
    """Where history segments are: as configured, or beside the database file."""
    if config.storage.history_path is not None:
        return config.storage.history_path
    return f"{make_url(config.database).database}.history"


def models_path(config: Config) -> str:
    """Where trained models are: as configured, or beside the database file."""
    return config.storage.models_path or f"{make_url(config.database).database}.models"


def owner_name() -> str:
    """Who we are in the positions table: host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def detector_spec(stream: Stream) -> DetectorSpec:
    """What the stream's config says about its detector."""
    limits = [stream.limits.get(channel) for channel in stream.channels]
    inf = float("inf")
    return DetectorSpec(
        tier=stream.detector,
        preset=stream.preset,
        channels=stream.channels,
        limits=tuple(
            Limits() if one is None else Limits(-inf if one.min is None else one.min, inf if one.max is None else one.max) for one in limits
        ),
        alarm_rate=stream.alarm_rate,
        direction=stream.direction,
        min_deviation=stream.min_deviation,
    )


def provenance(name: str, stream: Stream, detector: Detector) -> Provenance:
    return Provenance(name, stream.channels, stream.alarm_rate, stream.close_after, config_hash(stream), detector.version)


def build_engine(
    name: str,
    config: Config,
    database: Database,
    source: Source,
    metrics: StreamMetrics,
    *,
    ledger: str | None = None,
    sinks: Sequence[Sink] = (),
    history_writer: HistoryWriter | None = None,
    on_changes: OnChanges | None = None,
) -> Engine:
    """Put the engine of stream ``name`` together.

    ``ledger`` is the name under which positions and snapshots are kept (left out: the stream's own); a backfill has one of its own, while its
    anomalies are the stream's.
    """
    stream = config.streams[name]
    detector = build(detector_spec(stream))
    ledger = ledger or name
    stored = StoredSeries(database, ledger)
    scoring = Scoring(provenance(name, stream, detector), stream, detector, stored.revive)
    faults = FaultLog(ledger, database, metrics)  # what a backfill meets is not the live stream's
    history = History(history_writer, scoring, metrics) if history_writer is not None else None
    kafka = stream.source.kafka
    on_gap = kafka.on_gap if kafka is not None else "fail"
    return Engine(
        EngineParts(
            source=source,
            scoring=scoring,
            ownership=Ownership(scoring, source, database, faults, ledger, owner_name(), on_gap, history),
            committer=Committer(database, on_changes),
            snapshots=Snapshots(database, scoring, metrics, config.storage.snapshot_every.total_seconds(), stored, history),
            faults=faults,
            metrics=metrics,
            sinks=[*([history] if history is not None else ()), *sinks],
            max_batch=config.engine.max_batch,
        )
    )
