"""Backfill: the engine over files, or over a range of the stream's own log.

Its positions and snapshots have a reader name of their own and are deleted at the end. Its anomalies belong
to the stream and have the ids that the daemon would give them: with the same model a second run changes
nothing. With another model an anomaly is overwritten by the result of that model. Late points revise its
verdicts at the end (``pipeline.services.backfill_revision``).
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil

from pipeline.config.schema import Config, FilesSourceConfig, SourceConfig
from pipeline.config.stream_names import BACKFILL_MARK
from pipeline.core.errors import InputError, SourceError
from pipeline.core.types import Anomaly, Counts, FaultKind, LateRecord
from pipeline.database import open_database, owner_name
from pipeline.engine.factory import build_engine
from pipeline.engine.sink import Sink
from pipeline.engine.warm_start import forget_warm_start, read_warm_start
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.observability.progress_bar import Progress
from pipeline.scoring.stream_scorer import BatchResult, StreamScorer
from pipeline.services.backfill_revision import BackfillRevision
from pipeline.services.revision import revisable
from pipeline.services.scores_file import ScoresWriter
from pipeline.sources import make_source
from pipeline.sources.base import Source
from pipeline.sources.kafka.offset_range import RangeSource, range_source
from storage.sql.database import Database
from storage.stream_state import reader as stored_readers

#: A backfill of another host that has not committed for this long is dead.
DEAD_AFTER_NS = 24 * 3600 * 10**9
#: Faults with which a backfill goes on, as a daemon does: a damaged state is made again, records over the limit
#: of series are counted, and further new codes raise no alarm.
_OVERCOME = (FaultKind.DAMAGED_STATE, FaultKind.SERIES_LIMIT, FaultKind.NEW_CODES)


@dataclass(slots=True)
class BackfillReport:
    """Result of a backfill. ``counts`` add up to the records that were read."""

    stream: str
    counts: Counts
    anomalies: int
    seconds: float
    refused: dict[str, int] = field(default_factory=dict)
    example: str = ""

    @property
    def nothing_decoded(self) -> str:
        """Return the reason why no record of many could be decoded, empty if some could."""
        if (
            not self.counts.dead_lettered
            or self.counts.dead_lettered + self.counts.filtered < self.counts.read()
        ):
            return ""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.items())
        return (
            f"stream {self.stream}: none of {self.counts.read()} records could be decoded ({reasons}); "
            f"for example {self.example}"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON."""
        read = self.counts.read()
        outcomes = {name: count for name, count in asdict(self.counts).items() if name != "buffered"}
        speed = {
            "seconds": round(self.seconds, 3),
            "records_per_second": round(read / self.seconds) if self.seconds else 0,
        }
        return {"stream": self.stream, "records": read} | outcomes | {"anomalies": self.anomalies} | speed


class _Tally:
    """Sink that counts for the progress bar and the report."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self.anomalies: set[uuid.UUID] = set()
        self.late: list[LateRecord] = []
        self.refused: Counter[str] = Counter()
        self.example = ""

    def append(self, result: BatchResult) -> None:
        self.anomalies.update(anomaly.id for anomaly in result.anomalies)
        for outcome in result.outcomes.values():
            self.late += outcome.late
            self.refused.update(letter.reason for letter in outcome.dead)
            if outcome.dead and not self.example:
                self.example = outcome.dead[0].detail
        self._progress.advance(
            sum(outcome.next_offset - outcome.first_offset for outcome in result.outcomes.values())
        )

    def take_revisions(self, changes: Sequence[Anomaly]) -> None:
        """Count the anomalies after the revision by late points."""
        self.anomalies |= {one.id for one in changes}
        self.anomalies -= {one.id for one in changes if not one.points}

    def close(self) -> None:
        """Nothing to release."""


def run_backfill(
    config: Config,
    stream: str,
    inputs: Sequence[Path] | None,
    start_ns: int | None,
    end_ns: int | None,
    scores: Path | None,
    progress: Progress,
) -> BackfillReport:
    """Run ``stream`` over files, or over a time range of its own source.

    Raises InputError and SourceError for input that cannot be read, StorageError when the database is in use
    or cannot be used.

    Args:
        config: The whole configuration.
        stream: Name of the stream.
        inputs: CSV or Parquet files, None to read the stream's own source.
        start_ns: First timestamp of the range, None for the beginning.
        end_ns: Timestamp at which the range ends, None for the end.
        scores: File that receives every point with its verdict, None to write none.
        progress: Progress bar.
    """
    read = (
        partial(_files, config, stream, inputs)
        if inputs
        else partial(_range, config, stream, start_ns, end_ns)
    )
    source = read()
    reader = f"{stream}{BACKFILL_MARK}{uuid.uuid4().hex[:8]})"
    tally = _Tally(progress)
    started = time.monotonic()
    with ExitStack() as stack:
        database = stack.enter_context(open_database(config))
        engine = build_engine(
            stream,
            config,
            database,
            source,
            StreamMetrics(Metrics(), stream),
            reader=reader,
            make_sinks=lambda scorer: _sinks(tally, scores, scorer),
        )
        stack.callback(engine.close)
        for _ in read_warm_start(database, owner_name(), reader, engine.parts.scorer, read):
            pass  # series start with the same state as in a daemon
        while not engine.done:
            engine.turn(0.1)
            for fault in engine.parts.faults.current:
                if fault.kind not in _OVERCOME:
                    raise SourceError(fault.message)
            if isinstance(source, RangeSource):
                progress.expect(source.total)
        at = engine.parts.ownership.positions
        counts = sum((p.counts for p in at.values()), Counts())
        if tally.late and revisable(config.streams[stream]):
            ends = {partition: position.next_offset or 0 for partition, position in at.items()}
            revision = BackfillRevision(config, stream, database, reader, ends, tally.anomalies, read)
            tally.take_revisions(revision.revise(tally.late))
        with database.begin() as connection:
            stored_readers.forget(connection, reader)
        forget_warm_start(database, reader)
        _forget_dead_backfills(database, stream)
    seconds = time.monotonic() - started
    return BackfillReport(
        stream, counts, len(tally.anomalies), seconds, dict(tally.refused.most_common()), tally.example
    )


def _forget_dead_backfills(database: Database, stream: str) -> None:
    """Delete positions and states of backfills of ``stream`` that were killed; their anomalies stay."""
    with database.read() as connection:
        found = stored_readers.last_owners(connection, f"{stream}{BACKFILL_MARK}")
    for reader, owner, updated_ns in found:
        if _is_dead(owner, updated_ns):
            with database.begin() as connection:
                stored_readers.forget(connection, reader)


def _is_dead(owner: str, updated_ns: int) -> bool:
    """Return whether the process of a backfill has ended; one of another host ends by its silence."""
    host, _, pid = owner.rpartition(":")
    if host == owner_name().rpartition(":")[0] and pid.isdigit():
        return owner == owner_name() or not psutil.pid_exists(int(pid))
    return time.time_ns() - updated_ns > DEAD_AFTER_NS


def _sinks(tally: _Tally, scores: Path | None, scorer: StreamScorer) -> list[Sink]:
    """Return the sinks.

    An unwritable file of scores is then an error before the run starts.
    """
    return [tally] if scores is None else [tally, ScoresWriter(scores, scorer)]


def _files(config: Config, stream: str, inputs: Sequence[Path]) -> Source:
    files = SourceConfig(files=FilesSourceConfig(paths=[str(path) for path in inputs]))
    return make_source(stream, files, config.streams[stream].format)


def _range(config: Config, stream: str, start_ns: int | None, end_ns: int | None) -> Source:
    chosen = config.streams[stream].source
    if chosen.kafka is None:
        raise InputError(
            f"stream {stream}: only a Kafka source can be read from --from to --to; name files with --input"
        )
    return range_source(stream, chosen.kafka, start_ns, end_ns)
