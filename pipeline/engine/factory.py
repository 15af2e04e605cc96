"""From a configured stream to its engine: the one place where the parts are put together."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from pipeline.config.schema import Config
from pipeline.database import owner_name
from pipeline.engine.commit import Committer, OnChanges
from pipeline.engine.engine import Engine, EngineParts
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.history_sink import HistorySink
from pipeline.engine.offloaded_state import OffloadedSeries, warm_start_reader
from pipeline.engine.ownership import Ownership
from pipeline.engine.sink import Sink
from pipeline.engine.snapshots import Snapshots
from pipeline.models.champion import champion_of
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Source
from storage.history.history import HistoryWriter
from storage.sql.database import Database

log = structlog.get_logger(__name__)


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

    ``ledger`` is the name under which positions and snapshots are kept (left out: the stream's own); a
    backfill has one of its own, while its anomalies are the stream's.
    """
    stream = config.streams[name]
    champion = champion_of(database, name, stream)
    if champion.refused is not None:
        log.error(
            "a model cannot be used",
            stream=name,
            reason=champion.refused,
            instead=champion.provenance.model_version,
        )
    ledger = ledger or name
    stored = OffloadedSeries(database, ledger)
    scoring = StreamScorer(champion.provenance, stream, champion.detector, stored.revive)
    stored.past = warm_start_reader(ledger, scoring)
    faults = FaultLog(ledger, database, metrics)  # what a backfill meets is not the live stream's
    history = HistorySink(history_writer, scoring, metrics) if history_writer is not None else None
    kafka = stream.source.kafka
    on_gap = kafka.on_gap if kafka is not None else "fail"
    return Engine(
        EngineParts(
            source=source,
            scoring=scoring,
            ownership=Ownership(scoring, source, database, faults, ledger, owner_name(), on_gap, history),
            committer=Committer(database, on_changes),
            snapshots=Snapshots(
                database, scoring, metrics, config.storage.snapshot_every.total_seconds(), stored, history
            ),
            faults=faults,
            metrics=metrics,
            sinks=[*([history] if history is not None else ()), *sinks],
            max_batch=config.engine.max_batch,
        )
    )
