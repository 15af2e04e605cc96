"""Drift of the mean over all series, by river's detectors."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.drift.block_kernels import FADING, MAX_ABS_SPREADS

# Larger than those of one series: series move together, so a mean over them is less steady than
# independent parts would make it.
POOL_REFERENCE_VALUES, POOL_DELTA_SPREADS, POOL_ALARM_THRESHOLD = 40, 1.0, 30.0
POOL_KEPT_VALUES: Final = 1_000  # pooled values after the reference that are kept
MAX_BLOCKS_PER_VALUE: Final = 4_096
MIN_BLOCKS_FOR_KSWIN: Final = 256  # per pooled value; KSWIN takes 0.2 ms a value
KSWIN_WINDOW_VALUES: Final = 100


class PooledDrift:
    """ADWIN, Page–Hinkley and KSWIN on the mean over all series.

    Their state can only be pickled. So ``known`` returns their input, which a new object takes in again.
    """

    def __init__(self, kind: str, known: Sequence[float] | NDArray[np.float64] = ()) -> None:
        from river.drift import ADWIN, KSWIN, PageHinkley

        self.kind = kind
        page = PageHinkley(POOL_REFERENCE_VALUES, POOL_DELTA_SPREADS, POOL_ALARM_THRESHOLD, FADING, mode="up")
        self._detectors: dict[str, Any] = {"ADWIN": ADWIN(delta=1e-5), "Page–Hinkley": page}  # type: ignore[no-untyped-call]
        self._costly = {"KSWIN": KSWIN(alpha=1e-6, window_size=KSWIN_WINDOW_VALUES, stat_size=30, seed=0)}
        self._pending: list[NDArray] = []
        self._pending_count = 0
        self._reference: list[float] = []
        self._later: deque[float] = deque(maxlen=POOL_KEPT_VALUES)
        self._centre, self._spread = 0.0, 1.0
        for left, value in zip(range(len(known), 0, -1), known, strict=True):
            costly = self._costly if left <= KSWIN_WINDOW_VALUES else {}
            self._take_in(float(value), self._detectors | costly)

    def known(self) -> NDArray[np.float64]:
        """Return the pooled values with which a new object continues from here."""
        return np.array([*self._reference, *self._later])

    def update(self, values: NDArray, size: int) -> list[str]:
        """Take in values of blocks and return the names of the detectors that alarm.

        NaN values are unknown; ``size`` of the others make one pooled value.
        """
        self._pending.append(values[~np.isnan(values)])
        self._pending_count += len(self._pending[-1])
        size = min(max(1, size), MAX_BLOCKS_PER_VALUE)
        if self._pending_count < size:
            return []
        pending = np.concatenate(self._pending)
        whole = len(pending) // size * size
        self._pending, self._pending_count = [pending[whole:]], len(pending) - whole
        chosen = self._detectors | (self._costly if size >= MIN_BLOCKS_FOR_KSWIN else {})
        alarms = set()
        for value in pending[:whole].reshape(-1, size).mean(1).tolist():
            alarms |= self._take_in(value, chosen)
        return sorted(alarms)

    def _take_in(self, value: float, detectors: dict[str, Any]) -> set[str]:
        if len(self._reference) < POOL_REFERENCE_VALUES:
            self._reference.append(value)
            self._centre = float(np.mean(self._reference))
            self._spread = max(float(np.std(self._reference)), 1e-3)
            return set()
        self._later.append(value)
        value = min(max((value - self._centre) / self._spread, -MAX_ABS_SPREADS), MAX_ABS_SPREADS)
        alarms = set()
        for name, detector in detectors.items():
            detector.update(value)
            # ADWIN and KSWIN also alarm on an improvement, which needs no new model.
            if detector.drift_detected and value > 0:
                alarms.add(f"pooled {self.kind} {name}")
        return alarms
