"""The path of one stream from records to verdicts, with the state of all its series: the same for daemon,
backfill, evaluation and frames.

Records ─► decode ─► windows (held, late, duplicate, gaps) ─► detector ─► intervals
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from time import thread_time
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from detectors.base import Detector, Points, State, Verdicts
from pipeline.config.schema import Stream
from pipeline.core.types import Anomaly, Counts, DeadLetter, LateRecord, Partition
from pipeline.decode import Columns, DeadLetterGauge, Key, make_decoder, series_name, series_names
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.provenance import Provenance, Scored
from pipeline.scoring.series_table import SeriesTable, StateLayer
from pipeline.sources.base import Records, TableRecords
from pipeline.windows.event_time import DUPLICATE, LATE, SCORED, EventTimeProcessor, PartitionBuffer

log = structlog.get_logger(__name__)

#: Fetches what is stored of series that are not in memory: (partition, key → event time of its first point
#: now) → pages.
LoadOffloaded = Callable[[Partition, Mapping[Key, int]], Sequence[bytes]]

#: Which points (N,) of a batch are wanted.
SelectPoints = Callable[[Columns], NDArray[np.bool_]]


def nothing_offloaded(partition: Partition, first_ns: Mapping[Key, int]) -> Sequence[bytes]:
    """The ``LoadOffloaded`` of a run whose series begin with their first record and never leave memory."""
    return ()


@dataclass(slots=True)
class PartitionOutcome:
    """What became of one partition's records in a batch.

    ``counts`` is the change, apart from ``held``, which is the new number.
    """

    first_offset: int
    next_offset: int
    counts: Counts
    watermark_ns: int | None
    broken: bool = False  # too many records do not decode: the stream is to stop after this batch
    dead: list[DeadLetter] = field(default_factory=list)
    late: list[LateRecord] = field(default_factory=list)


@dataclass(slots=True)
class BatchResult:
    """What one batch says, all of it by ``model_version``. ``scored`` holds the points of its partitions,
    ``rows`` which of them are whose.

    seconds: CPU time of this thread in the detector (the wall's would count what else the machine does).
    """

    outcomes: dict[Partition, PartitionOutcome]
    model_version: str
    scored: Scored | None = None
    rows: dict[Partition, slice] = field(default_factory=dict)
    anomalies: list[Anomaly] = field(default_factory=list)
    seconds: float = 0.0


class StreamScorer:
    """Decoder, windows, detector and intervals of one stream, and the state that they carry."""

    def __init__(
        self,
        provenance: Provenance,
        stream: Stream,
        detector: Detector,
        revive: LoadOffloaded = nothing_offloaded,
        keep: SelectPoints | None = None,
    ) -> None:
        """``keep`` chooses among the decoded points; those that it does not keep are passed over."""
        self.provenance = provenance
        self.stream = stream
        self.detector = detector
        self.windows = EventTimeProcessor(stream)
        self.intervals = AnomalyTracker(self._identify)
        self.series = SeriesTable(
            {
                "windows": StateLayer(self.windows.version, self.windows.initial),
                "detector": self._layer(detector),
            }
        )
        self._decoder = make_decoder(provenance.stream, stream)
        self._revive = revive
        self._keep = keep
        self._waiting: dict[Partition, PartitionBuffer] = {}
        self._gauges: dict[Partition, DeadLetterGauge] = {}

    # ------------------------------------------------------------------------------------------------ records in, verdicts out

    def process(self, batch: Sequence[Records | TableRecords], *, replay: bool = False) -> BatchResult:
        """Score records, at most one batch a partition. Raises ValueError for two: the first would be lost.

        ``replay``: bring the state up to date; the intervals are left as they are, for they are what was
        committed.
        """
        ready: dict[Partition, Columns] = {}
        outcomes: dict[Partition, PartitionOutcome] = {}
        for records in batch:
            partition = records.partition
            if partition in ready:
                raise ValueError(f"{partition}: two batches in one call; the source has to put them together")
            columns, dead = self._decoder.decode(records)
            if self._keep is not None:
                columns = columns.take(self._keep(columns))
            waiting, ready[partition] = self.windows.push(self._waiting_of(partition), columns)
            self._waiting[partition] = waiting
            counts = Counts(dead_lettered=len(dead), filtered=columns.filtered, held=waiting.records)
            broken = self._gauges.setdefault(partition, DeadLetterGauge(self.stream.dead_letters)).update(
                columns, dead
            )
            outcomes[partition] = PartitionOutcome(
                records.first_offset, records.next_offset, counts, waiting.watermark_ns, broken, dead
            )
        return self._score(ready, outcomes, replay)

    def flush(self, next_offsets: Mapping[Partition, int], *, replay: bool = False) -> BatchResult:
        """The input is over: score what was held, as if the watermark had passed everything.

        ``replay`` as in ``process``.
        """
        ready: dict[Partition, Columns] = {}
        outcomes: dict[Partition, PartitionOutcome] = {}
        for partition, next_offset in next_offsets.items():
            waiting, ready[partition] = self.windows.flush(self._waiting_of(partition))
            self._waiting[partition] = waiting
            outcomes[partition] = PartitionOutcome(
                next_offset, next_offset, Counts(held=waiting.records), waiting.watermark_ns
            )
        return self._score(ready, outcomes, replay)

    def _score(
        self, ready: dict[Partition, Columns], outcomes: dict[Partition, PartitionOutcome], replay: bool
    ) -> BatchResult:
        result = BatchResult(outcomes, self.provenance.model_version)
        admitted, offsets = [], []
        start = 0
        for partition, columns in ready.items():
            one = self.windows.admit(self.series.state["windows"], self._slots(partition, columns), columns)
            self._count(outcomes[partition], columns, one.outcome)
            admitted.append(one)
            offsets.append(
                np.where(one.row >= 0, columns.offsets[one.row], -1)
                if len(columns)
                else np.empty(0, np.int64)
            )
            result.rows[partition] = slice(start, start := start + len(one.points))
        if not start:
            return result
        points = _concatenated([one.points for one in admitted])
        started = thread_time()
        verdicts = self._step(points, np.concatenate([one.restart for one in admitted]))
        result.seconds = thread_time() - started
        result.scored = Scored(
            points, verdicts, np.concatenate(offsets), np.concatenate([one.seq for one in admitted])
        )
        if not replay:
            result.anomalies = self.intervals.advance(
                result.scored, self.provenance, self.series.state["windows"]["seq"]
            )
        return result

    def _step(self, points: Points, restart: NDArray[np.bool_]) -> Verdicts:
        """Advance the detector.

        A series that begins anew inside the batch does so between its points, wherever the batch was cut.
        """
        parts, verdicts = _lives(points.slot, restart), []
        for rows in parts:
            if len(anew := np.unique(points.slot[rows][restart[rows]])):
                self.series.reset(anew, "detector")
            part = (
                points
                if len(parts) == 1
                else Points(*(getattr(points, f.name)[rows] for f in fields(Points)))
            )
            self.series.state["detector"], verdict = self.detector.step(self.series.state["detector"], part)
            verdicts.append(verdict)
        if len(parts) == 1:
            return verdicts[0]
        back = np.argsort(np.concatenate(parts))
        return Verdicts(
            *(np.concatenate([getattr(v, f.name) for v in verdicts])[back] for f in fields(Verdicts))
        )

    def _slots(self, partition: Partition, columns: Columns) -> NDArray[np.int32]:
        slots, new = self.series.find(partition, columns.keys.names)
        if new:
            # The first in the order of admission, which is the same however the records were cut into
            # batches.
            first_ns = dict(zip(reversed(columns.keys.flat()), columns.time[::-1].tolist(), strict=True))
            self._load(partition, {key: first_ns[key] for key in new})
        return columns.keys.spread(slots)

    def begin(self, partition: Partition, first_ns: Mapping[Key, int]) -> NDArray[np.int32]:
        """Take series in, with what is stored of them, before their first points, whose event times are
        given; returns their slots.
        """
        slots, _ = self.series.find(partition, list(first_ns))
        self._load(partition, first_ns)
        return slots

    def _load(self, partition: Partition, first_ns: Mapping[Key, int]) -> None:
        for page in self._revive(partition, first_ns):
            self.series.load_page(partition, page)

    def _count(self, outcome: PartitionOutcome, columns: Columns, verdict: NDArray[np.uint8]) -> None:
        heads = verdict if columns.head is None else verdict[columns.head]
        scored, late, duplicate = (int((heads == one).sum()) for one in (SCORED, LATE, DUPLICATE))
        outcome.counts.scored += scored + columns.folded
        outcome.counts.late += late
        outcome.counts.duplicate += duplicate
        if late:
            outcome.late += self._late(columns.take(verdict == LATE))
        if columns.late is not None:
            outcome.counts.late += columns.late.records
            outcome.late += self._late(columns.late)

    def _late(self, columns: Columns) -> Iterator[LateRecord]:
        for row, (offset, time) in enumerate(
            zip(columns.offsets.tolist(), columns.time.tolist(), strict=True)
        ):
            name, _ = series_name(self.stream, columns.keys[row])
            yield LateRecord(
                self.provenance.stream, columns.partition, offset, name, time, columns.values[row].tolist()
            )

    def exchange(self, detector: Detector, provenance: Provenance) -> None:
        """Another model decides from the next batch on; the series go on from where they are.

        Called between two batches, so that no batch is a mixture. Raises ValueError where the detector keeps
        another kind of state.
        """
        self.series.exchange("detector", self._layer(detector))
        self.detector, self.provenance = detector, provenance

    def put(self, names: Sequence[str], state: State) -> int:
        """From the next batch on, give series what ``state`` (a row each) says that their detector knows;
        returns how many are in memory.
        """
        slots = {name: slot for slot, name in enumerate(self.names()) if name is not None}
        rows = np.array([row for row, name in enumerate(names) if name in slots], np.int64)
        at = np.array([slots[names[row]] for row in rows], np.int64)
        for name, array in self.series.state["detector"].items():
            array[at] = state[name][rows]
        return len(rows)

    # ------------------------------------------------------------------------------------------------ state of a partition

    def restore(
        self, partition: Partition, meta: Mapping[str, Any], pages: Iterable[bytes], *, waiting: bool = True
    ) -> None:
        """Take in what ``pages`` wrote. A part whose version changed since begins anew, and that is logged.

        ``waiting`` False leaves out the records that waited: those that let them go cannot be read again, so
        some of them were scored since.
        """
        pages = iter(pages)
        held = next(pages)
        if (version := meta["windows"]) != self.windows.version:
            log.warning(
                "windows begin anew: their stored form is of another version",
                partition=str(partition),
                stored=version,
            )
        elif waiting:
            self._waiting[partition] = self.windows.load(partition, held)
        changed = {layer for page in pages for layer in self.series.load_page(partition, page)}
        if changed:
            log.warning(
                "state begins anew: its stored form is of another version",
                partition=str(partition),
                layers=sorted(changed),
            )

    def restore_open(self, partition: Partition, anomalies: Iterable[Anomaly]) -> None:
        """Take up the open anomalies of a partition; those of series that are not in memory wait in the
        database.
        """
        anomalies = list(anomalies)
        if not anomalies:
            return
        by_series = {
            series_name(self.stream, self.series.key(slot))[0]: slot
            for slot in self.series.slots(partition).tolist()
        }
        for anomaly in anomalies:
            if (slot := by_series.get(anomaly.series)) is not None:
                self.intervals.restore(slot, anomaly, int(self.series.state["windows"]["seq"][slot]))

    def held(self, partition: Partition) -> int:
        """Records of the partition that wait for the watermark."""
        return self._waiting_of(partition).records

    def pages(self, partition: Partition, without: NDArray[np.int32]) -> Iterator[bytes]:
        """Everything known of a partition, but for the series in the slots ``without``; ``restore`` reads it
        back.
        """
        yield self.windows.dump(self._waiting_of(partition))
        slots = self.series.slots(partition)
        yield from self.series.pages(slots[~np.isin(slots, without)])

    def meta(self) -> dict[str, Any]:
        """What ``restore`` must know before it reads the pages."""
        return {"windows": self.windows.version}

    def drop(self, partition: Partition) -> None:
        """Forget a partition."""
        self.intervals.forget(self.series.slots(partition).tolist())
        self.series.drop(partition)
        self._waiting.pop(partition, None)
        self._gauges.pop(partition, None)

    def idle(self, partition: Partition) -> NDArray[np.int32]:
        """Slots of series that have been silent for longer than ``idle_after`` and are not in an anomaly."""
        slots = self.series.slots(partition)
        before = (self._waiting_of(partition).watermark_ns or 0) - int(
            self.stream.idle_after.total_seconds() * 1e9
        )
        silent = slots[self.last_time(slots) < before]
        return silent[[slot not in self.intervals for slot in silent.tolist()]]

    def last_time(self, slots: NDArray[np.int32]) -> NDArray[np.int64]:
        """Event time of the last point of each series, ns."""
        return self.series.state["windows"]["last_time"][slots]

    def names(self) -> list[str | None]:
        """The name of the series in every slot, None where it is free."""
        return series_names(self.stream, self.series.by_slot)

    def name_of(self, slot: int) -> str:
        return series_name(self.stream, self.series.key(slot))[0]

    def _layer(self, detector: Detector) -> StateLayer:
        def introduce(state: State, slots: NDArray[np.int32], keys: Sequence[Key]) -> None:
            # Names are made when they are asked for: most models have nothing of its own for any series.
            detector.register_series(state, slots, (series_name(self.stream, key)[0] for key in keys))

        return StateLayer(
            detector.state_version, detector.initial, detector.weights, detector.on_weights_changed, introduce
        )

    def _waiting_of(self, partition: Partition) -> PartitionBuffer:
        waiting = self._waiting.get(partition)
        return self.windows.empty(partition) if waiting is None else waiting

    def _identify(self, slot: int) -> tuple[Partition, str, dict[str, str]]:
        return (self.series.partition(slot), *series_name(self.stream, self.series.key(slot)))


def _lives(slot: NDArray[np.int32], restart: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """Rows of a batch, those before the first restart of their series apart from those after it, and so on."""
    if not restart.any():
        return [np.arange(len(slot))]
    order = np.argsort(slot, kind="stable")
    begun = np.cumsum(restart[order])
    first = np.flatnonzero(np.diff(slot[order], prepend=-1))  # where each series' rows begin
    life = np.empty(len(slot), np.int64)
    life[order] = begun - np.repeat((begun - restart[order])[first], np.diff(first, append=len(slot)))
    return [rows for rows in (np.flatnonzero(life == n) for n in range(life.max() + 1)) if len(rows)]


def _concatenated(parts: Sequence[Points]) -> Points:
    if len(parts) == 1:
        return parts[0]
    return Points(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Points)))
