"""Common data of verdicts and anomalies: the scored points, and the model that scored them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

from detectors.base import Points, Verdicts


@dataclass(slots=True)
class Scored:
    """Points of one batch with their verdicts, M rows; rows of one slot are in event-time order.

    offset (M,) int64, −1 for a filled point; seq (M,) int64 counts the points of its series.
    ends (M,) bool, the end of a session, which closes its anomaly; None for a stream of numbers.
    """

    points: Points
    verdicts: Verdicts
    offset: NDArray[np.int64]
    seq: NDArray[np.int64]
    ends: NDArray[np.bool_] | None = None
    _by_slot: tuple[NDArray[np.intp], NDArray[np.int32]] | None = field(
        default=None, init=False, repr=False, compare=False
    )

    def rows_of(self, slot: int) -> NDArray[np.intp]:
        """Return the rows of a slot, in event-time order.

        The rows are sorted at the first call: many anomalies can begin or end in one batch.
        """
        if self._by_slot is None:
            order = np.argsort(self.points.slot, kind="stable")
            self._by_slot = order, self.points.slot[order]
        order, slots = self._by_slot
        first, stop = np.searchsorted(slots, (slot, slot + 1))
        return order[first:stop]


def joined(parts: Sequence[Scored]) -> Scored:
    """Return the points of several steps as those of one batch, in their order."""
    first = parts[0]
    if len(parts) == 1:
        return first
    return Scored(
        joined_points([one.points for one in parts]),
        Verdicts(
            *(np.concatenate([getattr(one.verdicts, f.name) for one in parts]) for f in fields(Verdicts))
        ),
        np.concatenate([one.offset for one in parts]),
        np.concatenate([one.seq for one in parts]),
        None if first.ends is None else np.concatenate([one.ends for one in parts if one.ends is not None]),
    )


def joined_points(parts: Sequence[Points]) -> Points:
    """Return the points of several partitions, one after the other."""
    if len(parts) == 1:
        return parts[0]
    return Points(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Points)))


@dataclass(slots=True)
class RevisedPoints:
    """Points of one partition, M rows, that were scored again because of late ones.

    scored     the points, whose slots are indices of ``names``
    names      the series
    revision   (M,) int64, above 1: the number of late points that the verdict takes in, and one
    was_alarm  (M,) bool, the point lies in an anomaly of an earlier verdict
    """

    scored: Scored
    names: Sequence[str | None]
    revision: NDArray[np.int64]
    was_alarm: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Provenance:
    """Common fields of the anomalies of a stream.

    ``relative_changes``: changes and residuals are shares of the value, as in the logarithmic presets.
    ``kinds``: what each channel is, for advice (``pipeline.core.types.DeviationContext``).
    """

    stream: str
    channels: tuple[str, ...]
    alarm_rate: float
    close_after: int
    config_hash: str
    model_version: str
    decision: str = "surprise"
    relative_changes: bool = False
    kinds: tuple[str, ...] = ()
