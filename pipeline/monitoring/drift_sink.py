"""The drift monitor: a sink that receives verdicts and reports drifts.

The reference of each series, the pooled reference of all and the cool-down are stored from time to time and
at the end, so that they survive a restart.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from safetensors.numpy import load, save

from detectors.base import State
from detectors.drift import Drift, DriftMonitor, compile_kernels
from pipeline.core.types import Partition
from pipeline.decode import Key
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.series_table import metadata
from pipeline.scoring.stream_scorer import StreamScorer
from storage.model_store.monitor_state import DriftState

SAVE_INTERVAL_SECONDS = 300.0
_POOLED = "pooled."  # tensors of all series together


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """Evidence of a drift: ``statistics`` alarmed at ``at_ns``.

    The change began at about ``since_ns``. ``series``: those that drifted most, each with name, channel,
    kind, statistic, since_ns, and the means before and after.
    """

    stream: str
    at_ns: int
    since_ns: int
    statistics: tuple[str, ...]
    series: tuple[dict[str, Any], ...]
    watched: int

    def as_dict(self) -> dict[str, Any]:
        """Return plain JSON, for a job row."""
        return asdict(self)


class DriftSink:
    """A sink that calls ``on_drift`` at most once per cool-down of event time.

    ``keep`` receives the state of each partition and stores it off the loop; ``kept`` are stored states.
    """

    def __init__(
        self,
        scorer: StreamScorer,
        cool_down_ns: int,
        on_drift: Callable[[DriftEvidence], None],
        keep: Callable[[Partition, Callable[[], DriftState]], None] = lambda partition, state: None,
        kept: Iterable[DriftState] = (),
    ) -> None:
        self._scorer = scorer
        self._on_drift = on_drift
        self._keep = keep
        self._kept_at = time.monotonic()
        self._kept: dict[Partition, tuple[dict[Key, int], State]] = {}
        self._monitor = DriftMonitor(len(scorer.provenance.channels), cool_down_ns)
        self._keys: Sequence[Key | None] = ()
        self._generation = -1
        for one in sorted(kept, key=lambda one: one.saved_ns):
            self._kept[one.partition], pooled = _decoded(one.state)
            self._monitor.restore_pooled(pooled)  # the last process that saved wins
            if one.quiet_until_ns is not None:
                self._monitor.quiet_until = max(
                    self._monitor.quiet_until or one.quiet_until_ns, one.quiet_until_ns
                )
        compile_kernels()

    def append(self, result: BatchResult) -> None:
        if result.scored is None:
            return
        self._follow_series_table()
        drift = self._monitor.update(result.scored.points, result.scored.verdicts)
        if drift is not None:
            self._on_drift(self._evidence(drift))
        if drift is not None or time.monotonic() - self._kept_at >= SAVE_INTERVAL_SECONDS:
            self._save()

    def close(self) -> None:
        """Store the current state."""
        self._save()

    def _save(self) -> None:
        self._kept_at = time.monotonic()
        table, stream = self._scorer.series, self._scorer.provenance.stream
        for partition in table.partitions():
            slots = self._monitor.monitored(table.slots(partition))
            if len(slots):
                keys = [table.key(slot) for slot in slots.tolist()]
                known = self._monitor.export(slots) | {
                    _POOLED + kind: values for kind, values in self._monitor.pooled().items()
                }
                self._keep(
                    partition, partial(_state, stream, partition, keys, known, self._monitor.quiet_until)
                )

    def _follow_series_table(self) -> None:
        """Reset the slots with a new series, or restore its stored state."""
        table = self._scorer.series
        if table.generation == self._generation:
            return
        now = table.by_slot[: self._monitor.most]
        before = [*self._keys, *[None] * (len(now) - len(self._keys))]
        changed = [slot for slot, (old, new) in enumerate(zip(before, now, strict=True)) if old != new]
        if gone := [slot for slot in changed if before[slot] is not None]:
            self._monitor.forget(np.array(gone, np.int32))
        if self._kept:
            self._restore([slot for slot in changed if now[slot] is not None])
        self._keys, self._generation = now, table.generation

    def _restore(self, slots: Sequence[int]) -> None:
        """Restore each series once: later its own state is newer than the stored one."""
        table = self._scorer.series
        found: dict[Partition, list[tuple[int, int]]] = {}  # slot, and its row in the stored state
        for slot in slots:
            partition = table.partition(slot)
            if (
                partition in self._kept
                and (place := self._kept[partition][0].pop(table.key(slot), None)) is not None
            ):
                found.setdefault(partition, []).append((slot, place))
        for partition, pairs in found.items():
            there, places = np.array(pairs, np.int32).T
            with suppress(ValueError):  # the channels of the stream have changed
                self._monitor.restore(
                    there, {name: array[places] for name, array in self._kept[partition][1].items()}
                )

    def _evidence(self, drift: Drift) -> DriftEvidence:
        provenance = self._scorer.provenance
        names = self._scorer.names()
        series = tuple(
            {
                "series": names[one.slot],
                "channel": provenance.channels[one.channel],
                "kind": one.kind,
                "statistic": round(one.statistic, 2),
                "since_ns": one.since_ns,
                "before": one.before,
                "after": one.after,
            }
            for one in drift.series
        )
        return DriftEvidence(
            provenance.stream, drift.at_ns, drift.since_ns, drift.statistics, series, drift.watched
        )


def _state(
    stream: str, partition: Partition, keys: list[Key], known: State, quiet_until_ns: int | None
) -> DriftState:
    state = save(
        {name: np.ascontiguousarray(array) for name, array in known.items()}, {"keys": json.dumps(keys)}
    )
    return DriftState(stream, partition, state, quiet_until_ns, time.time_ns())


def _decoded(state: bytes) -> tuple[tuple[dict[Key, int], State], State]:
    """Return the places by key with their rows, and the pooled state."""
    places = {key: place for place, key in enumerate(json.loads(metadata(state)["keys"]))}
    known = load(state)
    pooled = {name.removeprefix(_POOLED): known.pop(name) for name in list(known) if name.startswith(_POOLED)}
    return (places, known), pooled
