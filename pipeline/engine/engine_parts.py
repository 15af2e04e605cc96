"""Parts of an engine, and the batch that it has not committed yet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.core.types import Partition, Position
from pipeline.engine.commit import Committer, PartitionCommit
from pipeline.engine.fault_log import FaultLog
from pipeline.engine.gone_files import GoneFiles
from pipeline.engine.ownership import Ownership
from pipeline.engine.silence import Silence
from pipeline.engine.sink import ResultWriters, Sink
from pipeline.engine.snapshots import Snapshots
from pipeline.observability.metrics import StreamMetrics
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.sources.base import Source


@dataclass(slots=True)
class EngineParts:
    """Parts of an engine; ``pipeline.engine.factory`` builds them."""

    source: Source
    scorer: StreamScorer
    ownership: Ownership
    committer: Committer
    snapshots: Snapshots
    faults: FaultLog
    metrics: StreamMetrics
    gone_files: GoneFiles
    writers: ResultWriters
    silence: Silence
    sinks: Sequence[Sink] = ()
    max_batch: int = 20_000

    def emit(self, result: BatchResult) -> None:
        """Give a result to the sinks."""
        for sink in self.sinks:
            sink.append(result)


@dataclass(slots=True)
class UncommittedBatch:
    """The result that is not committed yet, None between two batches."""

    result: BatchResult | None = None
    commits: list[PartitionCommit] = field(default_factory=list)  # the parts of ``result``

    def stage(self, result: BatchResult, positions: Mapping[Partition, Position]) -> None:
        """Turn a result into the parts of the next commit.

        Args:
            result: The result.
            positions: The committed positions.
        """
        self.result = result
        self.commits = [
            PartitionCommit(
                position=positions[partition],
                next_offset=outcome.next_offset,
                counts=positions[partition].counts + outcome.counts,
                watermark_ns=outcome.watermark_ns,
                broken=outcome.broken,
                dead=outcome.dead,
                late=outcome.late,
                anomalies=[a for a in result.anomalies if a.partition == partition],
            )
            for partition, outcome in result.outcomes.items()
        ]
        # The anomaly of a series that goes on in another file belongs to the file before.
        if elsewhere := [a for a in result.anomalies if a.partition not in result.outcomes]:
            self.commits[0].anomalies += elsewhere

    def drop(self, partition: Partition) -> None:
        """Leave out a partition that is lost; its new owner reads the batch again."""
        self.commits = [part for part in self.commits if part.position.partition != partition]
        if self.result is not None:
            self.result.outcomes.pop(partition, None)

    def clear(self) -> None:
        """Forget the batch: it is committed."""
        self.commits, self.result = [], None
