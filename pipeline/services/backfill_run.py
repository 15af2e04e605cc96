"""One pass of the engine over historical records: a backfill, or a part of one."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.config.schema import Config
from pipeline.core.errors import SourceError
from pipeline.core.types import Anomaly, Counts, FaultKind, LateRecord, Partition, Position
from pipeline.database import owner_name
from pipeline.engine.factory import build_engine
from pipeline.engine.sink import Sink
from pipeline.engine.warm_start import read_warm_start
from pipeline.observability.metrics import Metrics, StreamMetrics
from pipeline.observability.progress_bar import Progress
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.backfill_revision import BackfillRevision
from pipeline.services.revision import revisable
from pipeline.services.scores_file import ScoresWriter
from pipeline.sources.base import Source
from pipeline.sources.kafka.offset_range import RangeSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.engine.commit import OnChanges
    from pipeline.engine.engine import Engine
    from storage.sql.database import Database

#: Faults with which a backfill goes on, as a daemon does: a damaged state is made again, records over the
#: limit of series are counted, and further new codes raise no alarm.
_OVERCOME = (FaultKind.DAMAGED_STATE, FaultKind.SERIES_LIMIT, FaultKind.NEW_CODES)


class Tally:
    """Sink that counts for the progress bar and the report."""

    def __init__(self, progress: Progress) -> None:
        """Count nothing yet."""
        self._progress = progress
        self.anomalies: set[uuid.UUID] = set()
        self.late: list[LateRecord] = []
        self.refused: Counter[str] = Counter()
        self.example = ""

    def append(self, result: BatchResult) -> None:
        """Count the results of a batch."""
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


@dataclass(slots=True)
class BackfillRun:
    """Records of a stream that are scored under the name of a reader.

    read      makes a source of the records
    read_all  makes a source of all records of the backfill, whose first ones end the warm start
    more_sinks  makes further sinks of a scorer
    """

    config: Config
    stream: str
    database: Database
    reader: str
    read: Callable[[], Source]
    read_all: Callable[[], Source]
    tally: Tally
    progress: Progress
    on_changes: OnChanges | None = None
    more_sinks: Callable[[StreamScorer], Sequence[Sink]] = lambda scorer: ()
    positions: dict[Partition, Position] = field(default_factory=dict)
    series: int = 0
    _scores: ScoresWriter | None = None

    @property
    def counts(self) -> Counts:
        """Outcomes of all records."""
        return sum((position.counts for position in self.positions.values()), Counts())

    @contextmanager
    def scored(
        self, scores: Path | None, check: Callable[[Engine], None] = lambda engine: None
    ) -> Iterator[None]:
        """Score the records to their end, and keep the engine open for the block.

        Raises SourceError for a fault that ends the backfill.

        Args:
            scores: File that receives every point with its verdict, None to write none.
            check: Called after each batch; what it raises ends the run.
        """
        source = self.read()
        engine = build_engine(
            self.stream,
            self.config,
            self.database,
            source,
            StreamMetrics(Metrics(), self.stream),
            reader=self.reader,
            make_sinks=lambda scorer: self._sinks(scores, scorer),
            on_changes=self.on_changes,
        )
        try:
            for _ in read_warm_start(
                self.database, owner_name(), self.reader, engine.parts.scorer, self.read_all
            ):
                pass  # series start with the same state as in a daemon
            while not engine.done:
                engine.turn(0.1)
                check(engine)
                for fault in engine.parts.faults.current:
                    if fault.kind not in _OVERCOME:
                        raise SourceError(fault.message)
                if isinstance(source, RangeSource):
                    self.progress.expect(source.total)
            self.positions = dict(engine.parts.ownership.positions)
            self.series = len(engine.parts.scorer.series)
            yield
        finally:
            engine.close()

    def revise(self, late: Sequence[LateRecord], found: Collection[uuid.UUID]) -> None:
        """Revise the verdicts by late points.

        Args:
            late: The late records of this run.
            found: Ids of its anomalies.
        """
        if not late or not revisable(self.config.streams[self.stream]):
            return
        ends: Mapping[Partition, int] = {
            partition: position.next_offset or 0 for partition, position in self.positions.items()
        }
        revision = BackfillRevision(
            self.config, self.stream, self.database, self.reader, ends, found, self.read
        )
        self.tally.take_revisions(revision.revise(late))

    def complete_scores(self) -> None:
        """Close the file of scores. Raises InputError if it cannot be written."""
        if self._scores is not None:
            self._scores.close()

    def _sinks(self, scores: Path | None, scorer: StreamScorer) -> list[Sink]:
        """Return the sinks.

        An unwritable file of scores is then an error before the run starts.
        """
        sinks = [self.tally, *self.more_sinks(scorer)]
        if scores is None:
            return sinks
        self._scores = ScoresWriter(scores, scorer)
        return [*sinks, self._scores]
