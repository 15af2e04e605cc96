"""Earlier states of series, from which late points are scored again.

A thread of the owner copies a snapshot of each partition into the recorded history every
CHECKPOINT_EVERY_NS. A series with a late point starts from the newest copy that is older than this point.
So the work is bounded by twice the age of the point, however long the recorded history is.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pipeline.config.schema import Config
from pipeline.core.durations import SECOND_NS, to_nanoseconds
from pipeline.core.errors import DamagedState
from pipeline.core.types import Partition, Position
from pipeline.decode import series_key
from pipeline.engine.snapshots import UNFIT_KEY
from pipeline.models.champion import Champion
from pipeline.scoring.series_table import metadata, series_keys
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.scoring.stream_state import RECENT_LAYER
from pipeline.services.series_replay import SeriesReplay
from storage.history.checkpoints import Checkpoint, CheckpointPage, CheckpointStore, kept_checkpoints
from storage.history.segments import folder_of
from storage.results.late_records import LateEntry
from storage.sql.database import Database
from storage.stream_state import snapshots

log = structlog.get_logger(__name__)

CHECKPOINT_EVERY_NS = 600 * SECOND_NS
#: A larger snapshot is not copied, because its copy is made in memory.
MAX_CHECKPOINT_BYTES = 512 << 20


@dataclass(slots=True)
class StateCheckpoints:
    """Checkpoints of one stream."""

    name: str
    config: Config
    database: Database
    _written: dict[str, int] = field(default_factory=dict)  # folder → time of the newest checkpoint, ns

    def write_due(self, owned: Mapping[Partition, Position]) -> None:
        """Copy the snapshots of partitions without a recent checkpoint; delete old ones.

        Raises StorageUnavailable and OSError.
        """
        store, now_ns = CheckpointStore(self.config.history_path), time.time_ns()
        for partition, position in owned.items():
            folder = folder_of(self.name, partition, position.identity)
            if folder not in self._written:
                self._written[folder] = max((one.created_ns for one in store.checkpoints(folder)), default=0)
            if abs(now_ns - self._written[folder]) < CHECKPOINT_EVERY_NS:  # the clock may have been ahead
                continue
            self._written[folder] = now_ns
            self._copy(store, folder, position)
            found = store.checkpoints(folder)
            oldest_ns = 2 * to_nanoseconds(self.config.streams[self.name].revise)
            kept = kept_checkpoints(found, now_ns, CHECKPOINT_EVERY_NS, oldest_ns)
            for one in set(found) - kept:
                store.delete(one)

    def _copy(self, store: CheckpointStore, folder: str, position: Position) -> None:
        try:
            with self.database.read() as connection:
                snapshot = snapshots.load(connection, position.stream, position.partition)
                if snapshot is None or snapshot.size_bytes > MAX_CHECKPOINT_BYTES:
                    return
                if UNFIT_KEY not in snapshot.meta:
                    return  # of an earlier version, or of a time without revisions
                pages = list(snapshot.pages)[1:]  # the first one holds buffered records
        except DamagedState:
            return  # the next snapshot was written meanwhile
        parts = [CheckpointPage(page, series_keys(page)) for page in pages]
        store.write(folder, snapshot.offset, snapshot.created_ns, parts, snapshot.meta[UNFIT_KEY])

    def start(
        self,
        owned: Mapping[Partition, Position],
        replay: SeriesReplay,
        champion: Champion,
        late: Sequence[LateEntry],
    ) -> dict[str, int]:
        """Give series their newest state before their late points.

        Args:
            owned: The positions of the partitions.
            replay: Receives the states.
            champion: The model; states of another one are not used.
            late: All late points of the series.

        Returns:
            The time of the last point in the state of each series that has one, ns.
        """
        by_series: dict[str, list[LateEntry]] = defaultdict(list)
        places: dict[Partition, set[str]] = defaultdict(set)
        for one in late:
            by_series[one.record.series].append(one)
            places[one.record.partition].add(one.record.series)
        starts: dict[str, int] = {}
        store = CheckpointStore(self.config.history_path)
        for partition, names in places.items():
            if (position := owned.get(partition)) is None:
                continue
            for checkpoint in store.checkpoints(folder_of(self.name, partition, position.identity)):
                missing = {name: by_series[name] for name in names if name not in starts}
                if not missing:
                    break
                try:
                    starts |= self._load(store, checkpoint, partition, missing, replay, champion)
                except (OSError, ValueError, DamagedState) as error:
                    log.warning("an earlier state cannot be read", path=checkpoint.path, error=str(error))
        return starts

    def _load(
        self,
        store: CheckpointStore,
        checkpoint: Checkpoint,
        partition: Partition,
        series: Mapping[str, list[LateEntry]],
        replay: SeriesReplay,
        champion: Champion,
    ) -> dict[str, int]:
        stream = self.config.streams[self.name]
        keys = {series_key(stream, name): name for name in series}
        usable, pages = store.read(checkpoint, keys)
        scorer = StreamScorer(champion.provenance, stream, champion.detector)
        for page in pages:
            if _is_of_model(scorer, page):
                scorer.series.load_page(partition, page)
        starts, slots = {}, {}
        for key in usable:
            name, slot = keys[key], scorer.series.slot_of(partition, key)
            if slot is None:
                continue
            last_ns = int(scorer.series.state["windows"]["last_time"][slot])
            if all(_is_known(one, partition, checkpoint, last_ns) for one in series[name]):
                starts[name], slots[name] = last_ns, slot
        if slots:
            replay.load(scorer, slots)
        return starts


def _is_known(late: LateEntry, partition: Partition, checkpoint: Checkpoint, last_ns: int) -> bool:
    """Return whether the state of a series holds a late point, or ends before it.

    A state that can be used holds all late points of its partition below its offset.
    """
    below = late.record.partition == partition and late.record.offset < checkpoint.offset
    return below or late.record.time_ns > last_ns


def _is_of_model(scorer: StreamScorer, page: bytes) -> bool:
    """Return whether a page holds the states of this model, in this form."""
    stored = metadata(page)
    return all(
        (stored.get(f"version:{name}"), stored.get(f"weights:{name}")) == (layer.version, layer.weights)
        for name, layer in scorer.series.layers.items()
        if name != RECENT_LAYER or f"version:{name}" in stored  # earlier versions kept no readings
    )
