"""Points whose verdicts late ones changed, for the outputs of a stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, Verdicts
from pipeline.core.types import Anomaly, Partition
from pipeline.scoring.provenance import RevisedPoints, Scored
from pipeline.services.series_replay import SeriesReplay


def revised_points(
    replay: SeriesReplay, since_ns: Mapping[str, int], stored: Sequence[Anomaly]
) -> dict[Partition, RevisedPoints]:
    """Return the points that were scored again, by partition.

    Args:
        replay: The series in the order of time, with the verdicts that it kept.
        since_ns: Series → time of its first late point. Nothing before it can differ.
        stored: Anomalies of the series before the revision, also retracted ones.
    """
    if not replay.kept or not since_ns:
        return {}
    scored = _joined(replay.kept)
    slots, times = replay.slots(), scored.points.time
    revision, was_alarm = np.ones(len(times), np.int64), np.zeros(len(times), np.bool_)
    rows_of: dict[Partition, list[NDArray[np.intp]]] = {}
    for name, first_ns in since_ns.items():
        own = (scored.points.slot == slots[name]) & (times >= first_ns) & (scored.offset >= 0)
        rows = np.flatnonzero(own)
        revision[rows] += np.searchsorted(replay.late_times.get(name, []), times[rows], side="right")
        for one in stored:
            if one.series == name:
                was_alarm[rows] |= (times[rows] >= one.start_ns) & (times[rows] <= one.end_ns)
        rows_of.setdefault(replay.partition_of(name), []).append(rows)
    names = replay.scorer.names()
    return {
        partition: RevisedPoints(_taken(scored, at), names, revision[at], was_alarm[at])
        for partition, parts in rows_of.items()
        if len(at := np.concatenate(parts))
    }


def _joined(parts: Sequence[Scored]) -> Scored:
    def all_of(table: str, kind: type[Points] | type[Verdicts]) -> list[NDArray]:
        return [np.concatenate([getattr(getattr(one, table), f.name) for one in parts]) for f in fields(kind)]

    return Scored(
        Points(*all_of("points", Points)),
        Verdicts(*all_of("verdicts", Verdicts)),
        np.concatenate([one.offset for one in parts]),
        np.concatenate([one.seq for one in parts]),
    )


def _taken(scored: Scored, at: NDArray[np.intp]) -> Scored:
    return Scored(
        Points(*(getattr(scored.points, f.name)[at] for f in fields(Points))),
        Verdicts(*(getattr(scored.verdicts, f.name)[at] for f in fields(Verdicts))),
        scored.offset[at],
        scored.seq[at],
    )
