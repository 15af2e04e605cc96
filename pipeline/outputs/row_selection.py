"""Selection of the points of a batch that an output writes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, Verdicts
from pipeline.core.types import Partition
from pipeline.outputs.verdict import VerdictRows
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.provenance import RevisedPoints, Scored
from pipeline.scoring.stream_scorer import StreamScorer

MAX_REVISED_ROWS = 5_000

#: Chooses points: (scored points, the rows of a partition, the partition) → (N,) bool of those rows.
ChoosePoints = Callable[[Scored, slice, Partition], NDArray[np.bool_]]
#: Chooses points that were scored again: (the points, their partition) → (M,) bool.
ChooseRevised = Callable[[RevisedPoints, Partition], NDArray[np.bool_]]


def flagged_points(scored: Scored, rows: slice, partition: Partition) -> NDArray[np.bool_]:
    """Choose alarms."""
    return scored.verdicts.flag[rows]


def all_points(scored: Scored, rows: slice, partition: Partition) -> NDArray[np.bool_]:
    """Choose all points."""
    return np.ones(rows.stop - rows.start, np.bool_)


def revised_alarms(points: RevisedPoints, partition: Partition) -> NDArray[np.bool_]:
    """Choose points that are or were alarms."""
    return points.was_alarm | points.scored.verdicts.flag


def all_revised(points: RevisedPoints, partition: Partition) -> NDArray[np.bool_]:
    """Choose all points that were scored again."""
    return np.ones(len(points.was_alarm), np.bool_)


class RowSelection:
    """Takes the chosen points out of the results of one stream.

    Points that a gap policy filled in come from no record and are left out.
    """

    def __init__(
        self, scorer: StreamScorer, choose: ChoosePoints, choose_revised: ChooseRevised | None = None
    ) -> None:
        """Choose points of the results of ``scorer``.

        Args:
            scorer: Scorer of the stream.
            choose: Chooses points that are scored for the first time.
            choose_revised: Chooses points that are scored again; None: all of them if ``choose`` takes all
                points, otherwise those that are or were alarms.
        """
        self._scorer = scorer
        self._choose = choose
        self._choose_revised = choose_revised or (all_revised if choose is all_points else revised_alarms)
        self._names: Sequence[str | None] = ()
        self._generation = -1  # of the series table that the names belong to

    def of(self, result: BatchResult) -> Iterator[tuple[Partition, VerdictRows]]:
        """Yield the chosen points of each partition that has some."""
        scored = result.scored
        if scored is None:
            return
        for partition, rows in result.rows.items():
            chosen = self._choose(scored, rows, partition) & (scored.offset[rows] >= 0)
            if chosen.any():
                at = rows.start + np.flatnonzero(chosen)
                yield partition, self._taken(partition, result.model_version, scored, at)

    def revised(self, result: BatchResult) -> Iterator[tuple[Partition, VerdictRows]]:
        """Yield points that were scored again, at most MAX_REVISED_ROWS at a time."""
        for partition, points in result.revised.items():
            found = np.flatnonzero(self._choose_revised(points, partition))
            for first in range(0, len(found), MAX_REVISED_ROWS):
                at = found[first : first + MAX_REVISED_ROWS]
                taken = self._taken(partition, result.model_version, points.scored, at)
                taken.names, taken.revision = points.names, points.revision[at]
                yield partition, taken

    def _taken(self, partition: Partition, model: str, scored: Scored, at: NDArray[np.intp]) -> VerdictRows:
        provenance = self._scorer.provenance
        return VerdictRows(
            provenance.stream,
            partition,
            provenance.channels,
            model,
            Points(*(getattr(scored.points, f.name)[at] for f in fields(Points))),
            Verdicts(*(getattr(scored.verdicts, f.name)[at] for f in fields(Verdicts))),
            scored.offset[at],
            self._series_names(),
            self._events(partition, scored, at),
        )

    def _events(self, partition: Partition, scored: Scored, at: NDArray[np.intp]) -> list[str] | None:
        events, detector = self._scorer.events, self._scorer.detector
        if events is None:
            return None
        found = [events.finding(partition, scored, row, detector) for row in at.tolist()]
        return [one.code if one is not None else "" for one in found]

    def _series_names(self) -> Sequence[str | None]:
        """Return the names by slot, made again only after series came or went."""
        table = self._scorer.series
        if self._generation != table.generation:
            self._generation, self._names = table.generation, self._scorer.names()
        return self._names
