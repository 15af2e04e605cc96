"""Every anomaly by usual ranges states a value outside its range, and the direction of the difference.

The series are those of ordinary kinds, with faults of any kind, size, place and length in any channel.
``python -m benchmarks.statement_truth`` requires the same on all worlds and open data sets.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.calibration_families import FAMILIES, NETWORK_FAMILIES
from benchmarks.statement_truth import untrue
from detectors import DetectorSpec, Limits, build, contract
from detectors.base import Points
from pipeline.core.types import Anomaly, Partition
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.provenance import Provenance, Scored

ROWS, EVERY_NS = 2_000, 10 * contract.MINUTE_NS
MONDAY_NS = 1_704_067_200_000_000_000
FAULTS = {
    "spike": lambda x, size, spread: x + size * spread,
    "ramp": lambda x, size, spread: x + np.linspace(0, size * spread, len(x)),
    "factor": lambda x, size, spread: x * size,
    "zero": lambda x, size, spread: np.zeros_like(x),
    "stuck": lambda x, size, spread: np.full_like(x, x[0]),
    "noisy": lambda x, size, spread: x + size * spread * np.resize([1.0, -1.0], len(x)),
    "missing": lambda x, size, spread: np.full_like(x, np.nan),
}
fault = st.tuples(
    st.sampled_from(sorted(FAULTS)),
    st.integers(600, ROWS - 1),
    st.sampled_from([1, 2, 5, 30, 200]),
    st.floats(-60, 60).filter(lambda x: abs(x) > 1),
    st.integers(0, 1),
)


def values_of(families: list[str], faults: list[tuple[str, int, int, float, int]], seed: int) -> np.ndarray:
    """Return the channels (ROWS, C) of the families with faults."""
    day = np.sin(2 * np.pi * np.arange(ROWS) * EVERY_NS / 86_400e9)
    values = np.stack(
        [
            FAMILIES[name](np.random.default_rng([seed, c]), ROWS, day).astype(float)
            for c, name in enumerate(families)
        ],
        axis=1,
    )
    for kind, start, length, size, channel in faults:
        c = channel % len(families)
        rows = slice(start, start + length)
        spread = np.nanmedian(np.abs(np.diff(values[:, c]))) or 1.0
        values[rows, c] = FAULTS[kind](values[rows, c].copy(), size, spread)
    return values


def anomalies_of(spec: DetectorSpec, values: np.ndarray) -> list[Anomaly]:
    """Return the anomalies of one series, as the daemon tracks them."""
    zeros = np.zeros(ROWS, np.int32)
    time = MONDAY_NS + np.arange(ROWS, dtype=np.int64) * EVERY_NS
    points = Points(zeros, time, values, zeros, np.full(ROWS, EVERY_NS, np.int64))
    verdicts = contract.run_batches(build(spec), points, (700, 1_400))
    tracker = AnomalyTracker(lambda slot: (Partition("t", 0), "s", {}))
    rows = np.arange(ROWS, dtype=np.int64)
    provenance = Provenance(
        "t",
        spec.channels,
        spec.alarm_rate,
        3,
        "",
        "",
        spec.decision,
        relative_changes=spec.preset != "sensor",
    )
    return tracker.advance(Scored(points, verdicts, rows, rows + 1), provenance, np.array([ROWS]))


@pytest.mark.parametrize("tier", ["light", "standard", "strong"])
def test_every_stated_value_lies_outside_its_range(tier):
    found = 0

    @settings(max_examples=25, derandomize=True)
    @given(
        st.lists(st.sampled_from(sorted(FAMILIES)), min_size=1, max_size=2),
        st.lists(fault, min_size=1, max_size=4),
        st.sampled_from([1e-5, 1e-4, 1e-2]),
        st.booleans(),
        st.integers(0, 1_000),
    )
    def check(families, faults, alarm_rate, limited, seed):
        nonlocal found
        values = values_of(families, faults, seed)
        names = ("a", "b")[: len(families)]
        preset = "network" if set(families) <= NETWORK_FAMILIES else "sensor"
        limits = tuple(Limits(high=float(np.nanquantile(values[:, c], 0.999))) for c in range(len(names)))
        spec = DetectorSpec(
            tier=tier,
            preset=preset,
            channels=names,
            alarm_rate=alarm_rate,
            decision="usual_range",
            limits=limits if limited else (),
        )
        for anomaly in anomalies_of(spec, values):
            assert not untrue(anomaly)
            found += 1

    check()
    assert found > 20, "the faults must raise anomalies, or nothing was tested"
