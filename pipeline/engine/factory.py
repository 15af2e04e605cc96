"""Build the engine of a configured stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from pipeline.config.schema import Config, Stream
from pipeline.database import owner_name
from pipeline.engine.commit import Committer, OnChanges
from pipeline.engine.engine import Engine
from pipeline.engine.engine_parts import EngineParts
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.gone_files import GoneFiles
from pipeline.engine.history_sink import HistorySink
from pipeline.engine.offloaded_state import OffloadedSeries, warm_start_reader
from pipeline.engine.ownership import Ownership
from pipeline.engine.silence import Silence
from pipeline.engine.sink import ResultWriters, ScoreOutput, Sink, SnapshotListener
from pipeline.engine.snapshots import Snapshots
from pipeline.models.champion import champion_of
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Source
from storage.history.writer import HistoryWriter
from storage.sql.database import Database

log = structlog.get_logger(__name__)

#: Makes the sinks of an engine, given its scorer.
MakeSinks = Callable[[StreamScorer], Sequence[Sink]]
#: Makes the outputs of an engine, given its scorer.
MakeOutputs = Callable[[StreamScorer], Sequence[ScoreOutput]]


def build_engine(
    name: str,
    config: Config,
    database: Database,
    source: Source,
    metrics: StreamMetrics,
    *,
    reader: str | None = None,
    make_sinks: MakeSinks = lambda scorer: (),
    make_outputs: MakeOutputs = lambda scorer: (),
    history_writer: HistoryWriter | None = None,
    on_changes: OnChanges | None = None,
) -> Engine:
    """Build the engine of stream ``name``.

    Args:
        name: The stream; its anomalies carry this name.
        config: The whole configuration.
        database: Positions, snapshots, results and faults.
        source: The records, not polled yet.
        metrics: Counters of this stream.
        reader: Name under which positions, snapshots and faults are kept, by default the stream's. A backfill
            has a name of its own.
        make_sinks: Makes the sinks that receive each result after its commit.
        make_outputs: Makes the outputs, which keep positions of their own.
        history_writer: Writes the recorded history, None for a run without one.
        on_changes: Called inside the transaction of a batch with the anomalies that it changes.
    """
    stream, reader = config.streams[name], reader or name
    faults = FaultLog(reader, database, metrics)  # faults of a backfill are not those of the live stream
    scorer, offloaded = _make_scorer(name, stream, database, reader, faults)
    writers, sinks = _make_sinks(scorer, metrics, history_writer, make_outputs, make_sinks)
    owner, on_gap, every = owner_name(), _gap_policy(stream), config.storage.snapshot_every.total_seconds()
    listeners = [one for one in sinks if isinstance(one, SnapshotListener)]
    parts = EngineParts(
        source=source,
        scorer=scorer,
        ownership=Ownership(scorer, source, database, faults, reader, owner, on_gap, writers, on_changes),
        committer=Committer(database, on_changes, late_revise=reader == name),
        snapshots=Snapshots(database, scorer, metrics, every, offloaded, faults, writers, source, listeners),
        faults=faults,
        metrics=metrics,
        gone_files=GoneFiles(database, reader, scorer, offloaded),
        sinks=sinks,
        writers=writers,
        silence=Silence(scorer.ends_by_silence, together=scorer.files is not None),
        max_batch=config.engine.max_batch,
    )
    return Engine(parts)


def _make_sinks(
    scorer: StreamScorer,
    metrics: StreamMetrics,
    history_writer: HistoryWriter | None,
    make_outputs: MakeOutputs,
    make_sinks: MakeSinks,
) -> tuple[ResultWriters, list[Sink]]:
    """Make the history and the outputs, and the list of all sinks."""
    history = HistorySink(history_writer, scorer, metrics) if history_writer is not None else None
    writers = ResultWriters(history, make_outputs(scorer))
    return writers, [*([history] if history is not None else ()), *writers.outputs, *make_sinks(scorer)]


def _gap_policy(stream: Stream) -> str | None:
    """Return ``on_gap`` of a stream, None for files, which have no such key."""
    if stream.source.kafka is not None:
        return stream.source.kafka.on_gap
    return None if stream.source.files is not None else "fail"


def _make_scorer(
    name: str, stream: Stream, database: Database, reader: str, faults: FaultLog
) -> tuple[StreamScorer, OffloadedSeries]:
    """Make the scorer of the champion, and what restores its offloaded series."""
    champion = champion_of(database, name, stream)
    if champion.refused is not None:
        log.error(
            "cannot use the champion model; using another one",
            stream=name,
            reason=champion.refused,
            instead=champion.provenance.model_version,
        )
    offloaded = OffloadedSeries(
        database,
        reader,
        warm_start_reader(reader, stream, champion.detector.state_version),
        faults.damaged,
        file_sequence=stream.source.files is not None and stream.source.files.follow,
    )
    scorer = StreamScorer(
        champion.provenance,
        stream,
        champion.detector,
        offloaded.restore,
        on_damage=faults.damaged,
        max_series=stream.max_series,
    )
    return scorer, offloaded
