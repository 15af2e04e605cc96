"""Record types of the pipeline and of storage.

Times are int64 nanoseconds since the Unix epoch, UTC, wherever a name ends in ``_ns`` or an array is called
``time``. Offsets follow Kafka: an offset names a record, ``next_offset`` is always the record to read next.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID, uuid5

NAMESPACE = UUID("0d6e5f7e-3f0c-5b2e-9c3e-6d2c2f7a1a57")


class Partition(NamedTuple):
    """One ordered log: a Kafka topic partition, or a file (topic = its path, number = 0)."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


@dataclass(slots=True)
class Counts:
    """Outcome of records, cumulative per partition: their sum plus ``buffered`` is what was read.

    ``buffered`` is not cumulative: records read and waiting for the watermark (they come out as one of the
    others).
    """

    scored: int = 0
    late: int = 0
    duplicate: int = 0
    dead_lettered: int = 0
    filtered: int = 0
    buffered: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Add the outcomes; the number of buffered records is that of ``other``."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Counts(**(sums | {"buffered": other.buffered}))

    def read(self) -> int:
        return self.scored + self.late + self.duplicate + self.dead_lettered + self.filtered + self.buffered


@dataclass(slots=True)
class Position:
    """Position of an owner in a partition: fencing epoch, next offset and outcomes so far.

    ``next_offset`` is None before the first commit of a partition. ``identity`` is the id of the log in the
    source (Kafka's topic id), so that a recreated topic is detected. ``commits`` counts the commits of the
    partition. It shows whether a COMMIT without a reply took effect, even if the offset did not change.
    """

    stream: str
    partition: Partition
    epoch: int
    next_offset: int | None
    start_offset: int | None
    identity: str
    counts: Counts = field(default_factory=Counts)
    watermark_ns: int | None = None
    commits: int = 0


class Severity(StrEnum):
    """Severity by the rarity of the peak, or by the size and the duration of the deviation.

    See ``pipeline.scoring.anomaly_tracker`` and ``pipeline.scoring.usual_range``.
    """

    INFO = "info"
    WARNING = "warning"
    MAJOR = "major"
    CRITICAL = "critical"


class AnomalyState(StrEnum):
    OPEN = "open"
    CLOSED = "closed"


class EndReason(StrEnum):
    """Reason why an anomaly is closed.

    ``UNKNOWN`` while it is open, and if forewatch 0.1.0 closed it.
    """

    UNKNOWN = ""
    RECOVERED = "recovered"
    CONTINUED = "continued"
    SILENT = "silent"
    FILE_REMOVED = "file_removed"

    @classmethod
    def _missing_(cls, value: object) -> EndReason:
        """Read a word of a later version as unknown."""
        return cls.UNKNOWN


#: Text of the reasons that say nothing about the values after the end.
END_REASON_TEXTS = {
    EndReason.CONTINUED: "its file ended; the series goes on in a later file",
    EndReason.SILENT: "its file ended, and no later file has the series",
    EndReason.FILE_REMOVED: "its file was removed; later values are unknown",
}


@dataclass(frozen=True, slots=True)
class EventFinding:
    """The most surprising event of an anomaly in a sequence of events.

    ``recent`` holds the events before it, the last one at the end; ``likely`` the most probable ones in its
    place, with their probabilities.
    """

    code: str
    probability: float
    recent: list[str]
    likely: list[str]
    likely_probability: list[float]


@dataclass(slots=True)
class FarthestReading:
    """The reading of an anomaly that is farthest outside, where that is not its peak.

    The peak is of the first unbroken run of one quantity. The numbers are those of the quantity of ``cause``,
    as in ``Anomaly``; an end is None where there is none.
    """

    cause: str
    observed: float
    low: float | None
    high: float | None
    ratio: float
    value: float | None
    basis: str


@dataclass(slots=True)
class DeviationContext:
    """Numbers beside the usual range of an anomaly, at its peak.

    ``basis`` names the rows from which the range was learned, a word of ``detectors.base.BASES``. ``value``
    is the leading channel itself and ``recent_mean`` the mean of its last values, both in units of the input.
    Where the cause is a relation, ``implied`` is what the other channels imply for the leading one, and
    ``partner`` the channel that says most about it, with its value. ``kind`` says what the leading channel
    is: measurement, count, price or volume ("": unknown). ``farthest`` is a later reading that is farther
    outside.
    """

    basis: str
    value: float | None
    recent_mean: float | None
    partner: str | None = None
    partner_value: float | None = None
    implied: float | None = None
    kind: str = ""
    farthest: FarthestReading | None = None

    def __post_init__(self) -> None:
        """Read the farthest reading of a database row."""
        if isinstance(self.farthest, dict):
            self.farthest = FarthestReading(**self.farthest)


@dataclass(slots=True)
class DeviationCourse:
    """Course of a deviation, beside its peak.

    ``uncertain_ns`` is by how much it can have begun before the stated begin. ``lowest`` and ``highest`` are
    the farthest values of the leading channel below and above the usual range of their time. ``farthest_ns``
    is the time of ``DeviationContext.farthest`` (0: there is none). ``last`` is the value of the leading
    channel when the anomaly was closed because it recovered.
    """

    uncertain_ns: int = 0
    lowest: float | None = None
    highest: float | None = None
    farthest_ns: int = 0
    last: float | None = None

    def widen(self, value: float, side: int) -> None:
        """Keep a value as an extreme if it is farther than those before.

        Args:
            value: the value.
            side: the side of the range on which it is, below 0 for the lower one.
        """
        if side < 0:
            self.lowest = value if self.lowest is None else min(self.lowest, value)
        else:
            self.highest = value if self.highest is None else max(self.highest, value)

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> DeviationCourse:
        """Return the course of a database row.

        What only a later version knows is left out.
        """
        return cls(**{name: stored[name] for name in (f.name for f in fields(cls)) if name in stored})


@dataclass(slots=True)
class Anomaly:
    """An interval of a series with flagged points, and the provenance that ``explain`` needs.

    ``contribution`` sums to 1 over ``channels``; observed, expected, lower and upper are those of the peak
    point, per channel, in the units of the input (NaN where the input was missing). ``surprise`` is −log10 of
    the tail probability of the peak, ``score`` is 1 − that probability. ``last_flag_seq`` counts points of
    the series, so that closing needs no write per point.

    Under the decision "usual_range" the leading channel has contribution 1. Its numbers are those of the
    quantity that ``cause`` names, in the unit of the quantity: observed, usual range (lower, upper) and the
    middle of that range (expected; the forecast, where that is the cause). ``ratio`` is the distance of the
    observed quantity from that middle over the distance of the limit on the same side. It is 0 under the
    decision "surprise".

    ``start_ns``, ``end_ns`` and ``points`` are those of the flagged rows: the id and the intervals that
    training leaves out hang on them. People read ``began_ns``, ``lasted_until_ns`` and ``readings`` of the
    deviation itself: it begins before the first flagged row where it had to last for the alarm, and ends
    before the last one where a mean of rows stays outside for longer than the rows.
    """

    id: UUID
    stream: str
    series: str
    labels: dict[str, str]
    state: AnomalyState
    severity: Severity
    direction: str  # up | down | mixed
    start_ns: int
    end_ns: int
    peak_ns: int
    points: int
    score: float
    surprise: float
    channels: list[str]
    observed: list[float]
    expected: list[float]
    lower: list[float]
    upper: list[float]
    contribution: list[float]
    forecaster: str  # forecaster of the expected value, a word of ``detectors.base.FORECASTERS``
    model_version: str
    config_hash: str
    partition: Partition
    first_offset: int
    last_offset: int
    peak_offset: int
    last_flag_seq: int
    revision: int = 0
    cause: str = "none"  # of the peak, a word of ``detectors.base.CAUSES``
    ratio: float = 0.0
    every_ns: int = 0  # cadence of the series at the peak (0: unknown)
    first_flag_seq: int = -1  # point number of the first flagged row
    relative: bool = False  # the quantity is a share of the value (0.05 is 5 %)
    told_seq: int = -1  # point number of the last row of the run from which the peak is taken
    end_reason: EndReason = EndReason.UNKNOWN
    event: EventFinding | None = None  # of a stream of events
    context: DeviationContext | None = None  # under the decision "usual_range"
    onset_ns: int = 0  # first row of the deviation (0: unknown)
    outside_until_ns: int = 0  # last row outside of its usual range so far (0: unknown)
    span_readings: int = 0  # rows from the first to the last of the deviation (0: unknown)
    revised_ns: int = 0  # when late points made or changed it last, by the wall clock (0: never)
    course: DeviationCourse | None = None  # under the decision "usual_range"

    @property
    def began_ns(self) -> int:
        """Time of the first row of the deviation."""
        return self.onset_ns or self.start_ns

    @property
    def lasted_until_ns(self) -> int:
        """Time of the last row of the deviation so far."""
        return self.outside_until_ns or self.end_ns

    @property
    def readings(self) -> int:
        """Number of readings of the deviation so far."""
        return self.span_readings or self.points

    @staticmethod
    def identify(stream: str, series: str, start_ns: int) -> UUID:
        """Return the id of an interval, which is the same in the daemon, a replay and a backfill."""
        return uuid5(NAMESPACE, f"{stream}\x00{series}\x00{start_ns}")

    @property
    def leading_channel(self) -> int:
        """Place of the channel that contributes most; a missing share counts as 0."""
        shares = [share if math.isfinite(share) else 0.0 for share in self.contribution]
        return shares.index(max(shares))


@dataclass(slots=True)
class DeadLetter:
    """A record that could not be decoded or validated, with its original bytes and its offset."""

    stream: str
    partition: Partition
    offset: int
    timestamp_ns: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    reason: str  # a word of ``pipeline.decode.REASONS``
    detail: str
    partial: bool = False  # only some samples of the record; the others are points


@dataclass(slots=True)
class LateRecord:
    """A valid point that is older than the last scored point of its series.

    ``revises`` is False if it was too old to revise verdicts when it came.
    """

    stream: str
    partition: Partition
    offset: int
    series: str
    time_ns: int
    values: list[float]
    revises: bool = True


class FaultKind(StrEnum):
    """Kinds of pipeline faults: problems of the monitoring itself, not of the data."""

    RETENTION_GAP = "retention_gap"
    TOPIC_RECREATED = "topic_recreated"
    STUCK_STREAM = "stuck_stream"
    SCHEMA_BREAK = "schema_break"
    CLOCK_SKEW = "clock_skew"
    DATABASE_DOWN = "database_down"
    SOURCE_DOWN = "source_down"
    FENCED = "fenced"
    ENDPOINT_FAILING = "endpoint_failing"
    MODEL_UNUSABLE = "model_unusable"
    DAMAGED_STATE = "damaged_state"
    SERIES_LIMIT = "series_limit"
    NEW_CODES = "new_codes"
    OUTPUT_DOWN = "output_down"
    WORKER_DIED = "worker_died"


@dataclass(slots=True)
class Fault:
    """A pipeline fault; at most one is open for a stream, kind, partition and owner.

    ``owner`` is the process that the fault ends with, empty for a fault that no process owns. A fault of the
    whole stream affects only ``partitions``, None: all of them.
    """

    stream: str
    kind: FaultKind
    message: str  # what is wrong, where, and what to do
    started_ns: int
    partition: Partition | None = None
    ended_ns: int | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    owner: str = ""
    partitions: list[Partition] | None = None

    def affects(self, partition: Partition | None) -> bool:
        """Return True if the fault can affect records of ``partition`` (None: of an unknown one)."""
        if self.partition is not None:
            return self.partition == partition
        return self.partitions is None or partition in self.partitions


@dataclass(frozen=True, slots=True)
class Power:
    """Detection power for one kind of change on one channel of one series.

    The kinds are those of ``pipeline.training.synthetic_changes``. minimum_size: smallest size, in robust
    standard deviations, from which on every tried size was detected (None: none was; 0 for ``flat``, which
    has no size). delay: rows until the flag at that size. detected: share of the tried sizes.
    robust_deviation: in units of the input.
    """

    series: str
    channel: str
    kind: str
    minimum_size: float | None
    delay: int | None
    detected: float
    robust_deviation: float
