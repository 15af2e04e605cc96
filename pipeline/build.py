"""From a configured stream to its engine: the one place where the parts are put together."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy import make_url

from detectors import build
from detectors.artifacts import ArtifactError
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
from pipeline.retraining import registry
from pipeline.scoring import Scoring
from pipeline.snapshots import Snapshots
from pipeline.sources.base import Source
from pipeline.stored import StoredSeries, past_ledger
from storage import models
from storage.history import HistoryWriter
from storage.models import Promotion
from storage.session import Database

log = structlog.get_logger(__name__)


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
        threshold=stream.threshold,
        min_points=stream.min_points,
        direction=stream.direction,
        min_deviation=stream.min_deviation,
    )


def provenance(name: str, stream: Stream, detector: Detector, version: str | None = None) -> Provenance:
    """``version`` is that of the registry, None for what comes with forewatch."""
    model_version = detector.version if version is None else f"{detector.version}+{version}"
    return Provenance(name, stream.channels, stream.alarm_rate, stream.close_after, config_hash(stream), model_version)


@dataclass(frozen=True, slots=True)
class Champion:
    """Who decides in a stream. ``promotion`` is the row that says so; ``refused`` why the version that it names could not be used."""

    detector: Detector
    provenance: Provenance
    promotion: Promotion
    version: str | None
    refused: str | None = None


def champion_of(database: Database, name: str, stream: Stream) -> Champion:
    """The stream's detector with the weights that the newest promotion names.

    Weights that cannot be used are refused, and what decided before them goes on: in the end what comes with forewatch. Raises StorageUnavailable.
    """
    with database.read() as connection:
        promotion = models.champion(connection, name)
        former = promotion.from_version if promotion.action == "promote" else None  # who was rolled back does not come back
        rows = [models.get(connection, version) for version in (promotion.to_version, former) if version is not None]
    refused = None
    for row in rows:
        try:
            detector = build(detector_spec(stream), registry.weights_of(row.path, row.sha256))
        except ArtifactError as error:
            refused = refused or f"version {row.version} is refused: {error}"
        else:
            return Champion(detector, provenance(name, stream, detector, row.version), promotion, row.version, refused)
    detector = build(detector_spec(stream))
    return Champion(detector, provenance(name, stream, detector), promotion, None, refused)


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
    champion = champion_of(database, name, stream)
    if champion.refused is not None:
        log.error("a model cannot be used", stream=name, reason=champion.refused, instead=champion.provenance.model_version)
    ledger = ledger or name
    stored = StoredSeries(database, ledger)
    scoring = Scoring(champion.provenance, stream, champion.detector, stored.revive)
    stored.past = past_ledger(ledger, scoring)
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
