"""The engine's sink that watches for drift: a batch of verdicts in, evidence with the names of series out.

It begins anew with the process: what it has to learn (twenty blocks a series) is there again within a day or so, and a drift that a restart hides is
in the history that the next scheduled training sees.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from detectors.drift import Drift, DriftWatch, warm
from pipeline.decode import Key
from pipeline.scoring import Result, Scoring


@dataclass(frozen=True, slots=True)
class DriftEvidence:
    """Why a stream should be trained again: ``statistics`` alarmed at ``at_ns``; the change began about ``since_ns``.

    ``series``: those that drifted most, each with name, channel, kind, statistic, since_ns, and the means before and after.
    """

    stream: str
    at_ns: int
    since_ns: int
    statistics: tuple[str, ...]
    series: tuple[dict[str, Any], ...]
    watched: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, for a job row."""
        return asdict(self)


class DriftSink:
    """A sink (see ``pipeline.engine.Sink``) that calls ``on_drift`` with every evidence, at most once a cool-down of event time."""

    def __init__(self, scoring: Scoring, cool_down_ns: int, on_drift: Callable[[DriftEvidence], None]) -> None:
        self._scoring = scoring
        self._on_drift = on_drift
        self._watch = DriftWatch(len(scoring.provenance.channels), cool_down_ns)
        self._keys: Sequence[Key | None] = ()
        self._generation = scoring.series.generation
        warm()

    def append(self, result: Result) -> None:
        if result.scored is None:
            return
        self._follow()
        drift = self._watch.update(result.scored.points, result.scored.verdicts)
        if drift is not None:
            self._on_drift(self._evidence(drift))

    def close(self) -> None:
        """Nothing to release."""

    def _follow(self) -> None:
        """Slots that have another series than before begin anew."""
        table = self._scoring.series
        if table.generation == self._generation:
            return
        now = table.by_slot[: self._watch.most]
        changed = [slot for slot, (old, new) in enumerate(zip(self._keys, now, strict=False)) if old is not None and old != new]
        if changed:
            self._watch.forget(np.array(changed, np.int32))
        self._keys, self._generation = now, table.generation

    def _evidence(self, drift: Drift) -> DriftEvidence:
        provenance = self._scoring.provenance
        names = self._scoring.names()
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
        return DriftEvidence(provenance.stream, drift.at_ns, drift.since_ns, drift.statistics, series, drift.watched)
