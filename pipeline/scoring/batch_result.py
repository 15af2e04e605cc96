"""Results of one batch of a stream."""

from __future__ import annotations

from dataclasses import dataclass, field

from pipeline.core.types import Anomaly, Counts, DeadLetter, LateRecord, Partition
from pipeline.scoring.provenance import RevisedPoints, Scored


@dataclass(slots=True)
class PartitionOutcome:
    """Outcome of one partition's records in a batch.

    ``counts`` holds the changes, and in ``buffered`` the new number. ``refused`` is the number of records of
    series over the limit, which are part of ``counts.filtered``.
    """

    first_offset: int
    next_offset: int
    counts: Counts
    watermark_ns: int | None
    broken: bool = False  # too many records do not decode: stop the partition after this batch
    dead: list[DeadLetter] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)
    refused: int = 0


@dataclass(slots=True)
class BatchResult:
    """Results of one batch, all by ``model_version``.

    ``scored`` holds the points of all partitions, ``rows`` the rows of each. ``revised`` holds earlier points
    that late ones let be scored again. ``seconds`` is the CPU time of this thread in the detector.
    ``replayed``: it was committed before, by this process or another one.
    """

    outcomes: dict[Partition, PartitionOutcome]
    model_version: str
    scored: Scored | None = None
    rows: dict[Partition, slice] = field(default_factory=dict)
    anomalies: list[Anomaly] = field(default_factory=list)
    revised: dict[Partition, RevisedPoints] = field(default_factory=dict)
    seconds: float = 0.0
    replayed: bool = False
