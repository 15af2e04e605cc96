"""State of all series of one stream: in memory, and as the pages of snapshots."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from detectors.base import ConvertsDecision, ConvertsState, Detector, State, states_relations
from pipeline.config.inputs import TEMPLATE_LABEL, TEMPLATE_TEXT_LABEL
from pipeline.config.schema import Stream
from pipeline.core.durations import to_nanoseconds
from pipeline.core.errors import DamagedState
from pipeline.core.types import Anomaly, EventFinding, Partition
from pipeline.decode import Key, series_name, series_names
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.event_stage import EventStage
from pipeline.scoring.page_merge import join_pages
from pipeline.scoring.provenance import Provenance, Scored
from pipeline.scoring.recent_readings import RecentReadings
from pipeline.scoring.series_table import LoadedPage, SeriesTable, StateLayer
from pipeline.scoring.template_labels import TEMPLATES_KEY, TEMPLATES_VERSION, TemplateLabels
from pipeline.windows.event_time import EventTimeProcessor, PartitionBuffer

log = structlog.get_logger(__name__)

#: Layer of the last readings, from which the begin of a deviation is estimated.
RECENT_LAYER = "recent"
#: Loads the stored state of series that are not in memory: (partition, key → event time of the next point) →
#: pages.
LoadOffloaded = Callable[[Partition, Mapping[Key, int]], Sequence[bytes]]


def nothing_offloaded(partition: Partition, first_ns: Mapping[Key, int]) -> Sequence[bytes]:
    """Return nothing: the ``LoadOffloaded`` of a run that keeps all series in memory."""
    return ()


class StreamState:
    """Series of one stream, their open anomalies, and buffered records."""

    def __init__(
        self,
        provenance: Provenance,
        stream: Stream,
        detector: Detector,
        load_offloaded: LoadOffloaded = nothing_offloaded,
        on_damage: Callable[[Partition, str], None] = lambda partition, message: None,
    ) -> None:
        """Start without series.

        Args:
            provenance: What the anomalies have in common.
            stream: The configuration of the stream.
            detector: The detector of the champion model.
            load_offloaded: Loads the state of a series that is not in memory.
            on_damage: Called with the partition and a message for a stored series that cannot be read.
        """
        self.provenance = provenance
        self.stream = stream
        self.detector = detector
        self.event_time = EventTimeProcessor(stream)
        #: The part that only a stream of events has.
        self.events = EventStage(stream, self.event_time) if stream.of_events else None
        #: The templates of log lines that are counted.
        self.templates = TemplateLabels() if stream.format.chosen.template else None
        self.tracker = AnomalyTracker(self._identify, self._finding)
        layers = {
            "windows": StateLayer(self.event_time.version, self.event_time.initial),
            "detector": self._layer(detector),
        }
        if provenance.decision == "usual_range":
            recent = RecentReadings(len(provenance.channels), states_relations(detector))
            layers[RECENT_LAYER] = StateLayer(recent.version, recent.initial)
        self.series = SeriesTable(layers)
        if self.events is not None:
            self.events.use_model(detector, self.series)
        #: Records of each partition that wait for the watermark.
        self.buffers: dict[Partition, PartitionBuffer] = {}
        self._load_offloaded = load_offloaded
        self._on_damage = on_damage

    def add_series(self, partition: Partition, first_ns: Mapping[Key, int]) -> NDArray[np.int32]:
        """Add series with their stored state, and return their slots.

        ``first_ns`` gives the event time of the first point of each series.
        """
        slots, _ = self.series.find(partition, list(first_ns))
        self._load_series(partition, first_ns)
        return slots

    def _load_series(self, partition: Partition, first_ns: Mapping[Key, int]) -> None:
        for page in join_pages(self._load_offloaded(partition, first_ns)):
            try:
                self._log_other_forms(partition, [self.series.load_page(partition, page)])
            except DamagedState as error:
                self._on_damage(partition, f"{partition}: {error}; the series starts again with a warm-up")

    def replace_detector(self, detector: Detector, provenance: Provenance) -> None:
        """Use another detector from the next batch on; the series keep their state.

        Call it between two batches, so that one model scores each batch. Raises ValueError where the detector
        keeps another kind of state.
        """
        if self.events is not None:
            self.events.use_model(detector, self.series)
        self.series.replace_layer("detector", self._layer(detector))
        self.detector, self.provenance = detector, provenance

    def overwrite_state(self, names: Sequence[str], state: State) -> int:
        """Overwrite the detector's state of series from the next batch on.

        Row i of ``state`` belongs to the series ``names[i]``. Series that are not in memory are skipped.
        Returns the number of those that are.
        """
        slots = {name: slot for slot, name in enumerate(self.names()) if name is not None}
        rows = np.array([row for row, name in enumerate(names) if name in slots], np.int64)
        at = np.array([slots[names[row]] for row in rows], np.int64)
        for name, array in self.series.state["detector"].items():
            array[at] = state[name][rows]
        return len(rows)

    # ------------------- state of a partition

    def restore(
        self,
        partition: Partition,
        meta: Mapping[str, Any],
        pages: Iterable[bytes],
        *,
        with_buffer: bool = True,
    ) -> None:
        """Load the state that ``pages`` wrote.

        A layer whose version has changed since is reset, and that is logged. Raises DamagedState; then some
        of the state may be loaded, and ``drop`` removes it.

        Args:
            partition: The partition that the state belongs to.
            meta: The result of ``meta`` when the pages were written.
            pages: The buffered records first, then the codes of a stream of events, then the series.
            with_buffer: Also load the buffered records. False where the records that released them cannot be
                read again: some of the buffered ones were scored since.
        """
        pages = iter(pages)
        buffer_page = next(pages, None)
        if buffer_page is None or "windows" not in meta:
            raise DamagedState("the snapshot has no buffered records, or no version of them")
        if (version := meta["windows"]) != self.event_time.version:
            log.warning(
                "buffered records are dropped: their stored form has another version",
                partition=str(partition),
                stored=version,
            )
        elif with_buffer:
            try:
                self.buffers[partition] = self.event_time.load(partition, buffer_page)
            except Exception as error:  # the errors of safetensors are of any type
                raise DamagedState(f"the buffered records cannot be read: {error}") from error
        if self.events is not None:
            self.events.load(partition, next(pages, b""))
        if TEMPLATES_KEY in meta:
            templates_page = next(pages, b"")
            if self.templates is not None:
                self.templates.load(partition, templates_page)
        self._log_other_forms(partition, [self.series.load_page(partition, page) for page in pages])

    def _log_other_forms(self, partition: Partition, pages: Sequence[LoadedPage]) -> None:
        """Log the layers that were reset or converted."""
        if reset := {layer for page in pages for layer in page.reset}:
            log.warning(
                "series state is reset: its stored form has another version",
                partition=str(partition),
                layers=sorted(reset),
            )
        without_ranges = {layer for page in pages for layer in page.without_ranges}
        if converted := {layer for page in pages for layer in page.converted} - without_ranges:
            log.info(
                "series state is converted to the form of this version",
                stream=self.provenance.stream,
                partition=str(partition),
                layers=sorted(converted),
            )
        if without_ranges:
            log.warning(
                "series state of the decision surprise is converted: usual ranges start empty, so there are "
                "no alarms but static limits for the next 150 points of each series",
                stream=self.provenance.stream,
                partition=str(partition),
                layers=sorted(without_ranges),
                advice="to keep the verdicts of version 0.1.0, set decision: surprise",
            )

    def restore_open(self, partition: Partition, anomalies: Iterable[Anomaly]) -> None:
        """Continue the open anomalies of a partition.

        Those of series that are not in memory stay in the database.
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
                self.tracker.restore(slot, anomaly, int(self.series.state["windows"]["seq"][slot]))

    def buffered_records(self, partition: Partition) -> int:
        """Return the number of records buffered until the watermark passes them."""
        return self.buffer_of(partition).records

    def forget_sessions(self, partition: Partition) -> None:
        """Leave open sessions of events without an end: records of theirs are lost."""
        if self.events is not None:
            self.series.reset(self.events.forget_open(self.series, partition), "detector")

    def empty_buffer(self, partition: Partition) -> None:
        """Start the event time of a partition again; the series keep their state."""
        self.buffers[partition] = self.event_time.empty(partition)

    def pages(self, partition: Partition, without: NDArray[np.int32]) -> Iterator[bytes]:
        """Yield the state of a partition for ``restore``.

        The series in the slots ``without`` are left out.
        """
        yield self.event_time.dump(self.buffer_of(partition))
        if self.events is not None:
            yield self.events.dump(partition)
        if self.templates is not None:
            yield self.templates.dump(partition)
        slots = self.series.slots(partition)
        yield from self.series.pages(slots[~np.isin(slots, without)])

    def meta(self) -> dict[str, Any]:
        """Return what ``restore`` needs before it reads the pages."""
        templates = {} if self.templates is None else {TEMPLATES_KEY: TEMPLATES_VERSION}
        return {"windows": self.event_time.version} | templates

    def open_keys(self, partition: Partition) -> list[Key]:
        """Return the keys of the series of a partition that have an open anomaly."""
        slots = [slot for slot in self.tracker.slots() if self.series.partition(slot) == partition]
        return sorted(self.series.key(slot) for slot in slots)

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition."""
        self.tracker.forget(self.series.slots(partition).tolist())
        self.series.drop(partition)
        self.buffers.pop(partition, None)
        if self.events is not None:
            self.events.drop(partition)
        if self.templates is not None:
            self.templates.drop(partition)

    def idle(self, partition: Partition) -> NDArray[np.int32]:
        """Return the slots of silent series without an open anomaly.

        Silent is longer than ``idle_after``; for a series of events, a session that ended by ``idle``.
        """
        slots = self.series.slots(partition)
        sessions, watermark = self.event_time.sessions, self.buffer_of(partition).watermark_ns or 0
        if sessions is not None and sessions.idle_ns:
            silent = slots[~self.series.state["windows"]["open"][slots]]
        else:
            before = watermark - to_nanoseconds(self.stream.idle_after)
            silent = slots[self.last_time(slots) < before]
        return silent[[slot not in self.tracker for slot in silent.tolist()]]

    def last_time(self, slots: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the event time of the last point of each series, ns."""
        return self.series.state["windows"]["last_time"][slots]

    def names(self) -> list[str | None]:
        """Return the name of the series in each slot, None where the slot is free."""
        return series_names(self.stream, self.series.by_slot)

    def name_of(self, slot: int) -> str:
        return series_name(self.stream, self.series.key(slot))[0]

    def _layer(self, detector: Detector) -> StateLayer:
        def introduce(state: State, slots: NDArray[np.int32], keys: Sequence[Key]) -> None:
            # Names are made on demand: most models keep nothing for a single series.
            detector.register_series(state, slots, (series_name(self.stream, key)[0] for key in keys))

        return StateLayer(
            detector.state_version,
            detector.initial,
            detector.weights,
            detector.on_weights_changed,
            introduce,
            detector.convert_state if isinstance(detector, ConvertsState) else lambda version, rows: None,
            detector.starts_usual_ranges if isinstance(detector, ConvertsDecision) else lambda version: False,
        )

    def buffer_of(self, partition: Partition) -> PartitionBuffer:
        """Return the buffered records of a partition."""
        buffer = self.buffers.get(partition)
        return self.event_time.empty(partition) if buffer is None else buffer

    def _finding(self, scored: Scored, row: int) -> EventFinding | None:
        if self.events is None:
            return None
        partition = self.series.partition(int(scored.points.slot[row]))
        return self.events.finding(partition, scored, row, self.detector)

    def _identify(self, slot: int) -> tuple[Partition, str, dict[str, str]]:
        partition = self.series.partition(slot)
        name, labels = series_name(self.stream, self.series.key(slot))
        if self.templates is not None:
            text = self.templates.text(partition, labels.get(TEMPLATE_LABEL, ""))
            labels |= {TEMPLATE_TEXT_LABEL: text} if text else {}
        return partition, name, labels
