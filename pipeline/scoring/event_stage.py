"""Codes, sessions and new codes of a stream of events in its scorer."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from detectors.base import Detector, Points, Verdicts
from detectors.sequences.stream_detector import NO_EVENT, EventStreamDetector
from detectors.sequences.vocabulary import Vocabulary
from pipeline.config.schema import Stream
from pipeline.core.durations import SECOND_NS
from pipeline.core.errors import DamagedState
from pipeline.core.types import EventFinding, Partition
from pipeline.decode import Columns
from pipeline.decode.event_codes import EventCodes
from pipeline.decode.known_codes import SeenCodes, seen_codes
from pipeline.scoring.new_codes import NewCodes
from pipeline.scoring.provenance import Scored
from pipeline.scoring.series_table import SeriesTable
from pipeline.windows.event_time import Admitted, EventTimeProcessor

#: Name of the tensor of a page, which holds JSON: every page of a snapshot is a safetensors file.
PAGE_TENSOR = "events"


class PartitionEvents:
    """Codes and alarms of new codes of a partition: a page of its snapshot."""

    def __init__(self, *, templates: bool) -> None:
        """Begin without a code; ``templates``: the events are log lines."""
        self.codes = EventCodes(templates=templates)
        self.new_codes = NewCodes()
        #: No session ends before this time. It is no part of the stored state.
        self.next_end_ns = 0

    def dump(self) -> bytes:
        """Return the state as a page; ``load`` is the inverse."""
        state = {"codes": self.codes.state(), "new_codes": self.new_codes.state()}
        text = json.dumps(state, separators=(",", ":")).encode()
        return save_tensors({PAGE_TENSOR: np.frombuffer(text, np.uint8)})

    def load(self, page: bytes) -> None:
        """Continue from a page. Raises DamagedState."""
        try:
            state = json.loads(load_tensors(page)[PAGE_TENSOR].tobytes())
            self.codes.restore(state["codes"])
            self.new_codes.restore(state["new_codes"])
        except Exception as error:  # the errors of safetensors are of any type
            raise DamagedState(f"the codes of the events cannot be read: {error!r}") from error


class EventStage:
    """Codes, sessions and new codes of one stream of events, by partition."""

    def __init__(self, stream: Stream, event_time: EventTimeProcessor) -> None:
        """Start without a partition.

        Args:
            stream: The configuration of the stream.
            event_time: Its event-time rules.
        """
        assert event_time.sessions is not None
        self._sessions = event_time.sessions
        self._event_time = event_time
        files = stream.source.files
        self._is_file_sequence = files is not None and files.follow
        self._templates = stream.format.chosen.text is not None
        self._partitions: dict[Partition, PartitionEvents] = {}
        self._vocabulary = Vocabulary(())

    def use_model(self, detector: Detector, series: SeriesTable) -> None:
        """Give the templates of log lines the codes of a detector, from the next batch on.

        Args:
            detector: The detector.
            series: The series, whose last events get the new codes too.
        """
        assert isinstance(detector, EventStreamDetector)
        self._vocabulary = Vocabulary(()) if detector.model is None else detector.model.vocabulary
        for partition, events in self._partitions.items():
            renamed, slots = self._use_known(events), series.slots(partition)
            recent = series.state["detector"]["recent"][slots]
            for old, new in renamed.items():
                recent[recent == old] = new
            series.state["detector"]["recent"][slots] = recent

    def number(self, partition: Partition, columns: Columns) -> Columns:
        """Return columns with the numbers of the codes as values."""
        return self._of(partition).codes.number(columns)

    def end_sessions(
        self,
        series: SeriesTable,
        partition: Partition,
        watermark_ns: int | None,
        columns: Columns,
        admitted: Admitted,
    ) -> Admitted:
        """Add the ends of the partition's sessions that the watermark has passed.

        Args:
            series: The series and their state.
            partition: The partition.
            watermark_ns: Its watermark after the batch.
            columns: The events of the batch.
            admitted: Their rows.
        """
        events, idle_ns = self._of(partition), self._sessions.idle_ns
        if not idle_ns or watermark_ns is None:
            return admitted
        if len(columns):
            events.next_end_ns = min(events.next_end_ns, int(columns.time.min()) + idle_ns)
        if watermark_ns <= events.next_end_ns:
            return admitted
        state, slots = series.state["windows"], self._open_slots(series, partition)
        admitted = self._event_time.end_sessions(state, slots, watermark_ns, admitted)
        events.next_end_ns = self._sessions.first_end(state, slots)
        return admitted

    @property
    def idle_seconds(self) -> float:
        """Time without events after which a session has ended, 0 without such a time."""
        return self._sessions.idle_ns / SECOND_NS

    def open_sessions(self, series: SeriesTable, partition: Partition) -> bool:
        """Return True if a session of the partition may end by ``idle``."""
        return self._sessions.idle_ns > 0 and len(self._open_slots(series, partition)) > 0

    def forget_open(self, series: SeriesTable, partition: Partition) -> NDArray[np.int32]:
        """Close the open sessions of a partition without an end, and return their series."""
        is_open, slots = series.state["windows"]["open"], series.slots(partition)
        slots = slots[is_open[slots]]
        is_open[slots] = False
        return slots

    def _open_slots(self, series: SeriesTable, partition: Partition) -> NDArray[np.int32]:
        """Return the series of a partition whose session goes on in no later file."""
        slots = series.slots(partition)
        slots = slots[series.state["windows"]["open"][slots]]
        return series.last_slots(slots) if self._is_file_sequence else slots

    def ended_mark(self, watermark_ns: int | None) -> int | None:
        """Return the watermark after the end of the sessions without a record.

        Args:
            watermark_ns: That of its records.
        """
        if watermark_ns is None or not self._sessions.idle_ns:
            return watermark_ns
        return watermark_ns + self._sessions.idle_ns + 1

    def limit_new_codes(
        self, points: Points, verdicts: Verdicts, rows: Mapping[Partition, slice], alarm_rate: float
    ) -> None:
        """Take back the alarms of new codes that are over the limit of their partition.

        Args:
            points: The batch.
            verdicts: Its verdicts, changed in place.
            rows: Rows of each partition.
            alarm_rate: That of the stream.
        """
        for partition, one in rows.items():
            self._of(partition).new_codes.limit(verdicts, points.values[:, 0], one, alarm_rate)

    def finding(
        self, partition: Partition, scored: Scored, row: int, detector: Detector
    ) -> EventFinding | None:
        """Return a flagged row in words.

        Args:
            partition: The partition of the row.
            scored: The batch.
            row: The row.
            detector: The detector that judged it.
        """
        assert isinstance(detector, EventStreamDetector)
        codes, verdicts = self._of(partition).codes, scored.verdicts

        def text(number: float) -> str:
            return codes.text(number) or detector.code_text(number)

        likely = zip(verdicts.likely[row].tolist(), verdicts.likely_probability[row].tolist(), strict=True)
        known = [(text(number), p) for number, p in likely if number != NO_EVENT]
        return EventFinding(
            code=text(float(scored.points.values[row, 0])),
            probability=float(np.float64(verdicts.probability[row])),
            recent=[text(number) for number in verdicts.recent[row].tolist() if number != NO_EVENT],
            likely=[name for name, _ in known],
            likely_probability=[p for _, p in known],
        )

    def codes(self) -> Mapping[Partition, EventCodes]:
        """Return the codes of the events of each partition."""
        return {partition: events.codes for partition, events in self._partitions.items()}

    def seen(self) -> SeenCodes:
        """Return the codes of the events of all partitions."""
        return seen_codes(events.codes for events in self._partitions.values())

    def exhausted(self) -> list[Partition]:
        """Return the partitions where further new codes raise no alarm."""
        return [p for p, events in self._partitions.items() if events.new_codes.exhausted]

    def dump(self, partition: Partition) -> bytes:
        """Return the state of a partition as a page."""
        return self._of(partition).dump()

    def load(self, partition: Partition, page: bytes) -> None:
        """Load the state that ``dump`` wrote. Raises DamagedState."""
        events = self._of(partition)
        events.load(page)
        self._use_known(events)

    def drop(self, partition: Partition) -> None:
        """Drop the state of a partition."""
        self._partitions.pop(partition, None)

    def _of(self, partition: Partition) -> PartitionEvents:
        known = self._partitions.get(partition)
        if known is None:
            known = self._partitions[partition] = PartitionEvents(templates=self._templates)
            self._use_known(known)
        return known

    def _use_known(self, events: PartitionEvents) -> dict[float, float]:
        vocabulary = self._vocabulary
        return events.codes.use_known(vocabulary.templates, vocabulary.code_of, set(vocabulary.codes))
