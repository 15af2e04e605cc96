"""The severity of canonical deviations: 8, 20 and 40 spreads for one row, ten rows, and for good."""

from __future__ import annotations

import numpy as np
import pytest

from detectors import DetectorSpec, build, contract
from detectors.base import Points
from pipeline.core.types import Partition, Severity
from pipeline.scoring.anomaly_tracker import AnomalyTracker
from pipeline.scoring.provenance import Provenance, Scored

ROWS, PER_DAY, START = 20 * 144, 144, 19 * 144 + 40
EVERY_NS = 10 * contract.MINUTE_NS
MONDAY_NS = 1_704_067_200_000_000_000
SPREADS, LENGTHS = (8.0, 20.0, 40.0), (1, 10, 80)
INFO, WARNING, MAJOR, CRITICAL = Severity
#: Possible severities by spreads and length, as in docs/explanation/detection.md, the same in every tier. A
#: learned range ends at 3 to 6 spreads, so that three cells have two.
TABLE = {
    8.0: ({WARNING, MAJOR}, {MAJOR}, {MAJOR, CRITICAL}),
    20.0: ({MAJOR, CRITICAL}, {MAJOR}, {CRITICAL}),
    40.0: ({CRITICAL}, {CRITICAL}, {CRITICAL}),
}


def severities(tier: str, wave: float) -> dict[tuple[float, int], str]:
    """Return the highest severity that begins in each shape, on noise with a daily wave of this height."""
    shapes = [(size, length) for size in SPREADS for length in LENGTHS]
    day = wave * np.sin(2 * np.pi * np.arange(ROWS) / PER_DAY)
    values = np.stack([50 + day + np.random.default_rng(i).normal(0, 1, ROWS) for i in range(len(shapes))])
    for i, (size, length) in enumerate(shapes):
        values[i, START : START + length] += size
    slot = np.repeat(np.arange(len(shapes), dtype=np.int32), ROWS)
    time = np.tile(MONDAY_NS + np.arange(ROWS, dtype=np.int64) * EVERY_NS, len(shapes))
    n = len(slot)
    points = Points(slot, time, values.reshape(-1, 1), np.zeros(n, np.int32), np.full(n, EVERY_NS, np.int64))
    spec = DetectorSpec(tier=tier, decision="usual_range")
    tracker = AnomalyTracker(lambda one: (Partition("t", 0), str(one), {}))
    provenance = Provenance("t", spec.channels, spec.alarm_rate, 3, "", "", spec.decision)
    rows = np.arange(n, dtype=np.int64)
    scored = Scored(points, contract.run_batches(build(spec), points), rows, rows % ROWS + 1)
    changed = tracker.advance(scored, provenance, np.full(len(shapes), ROWS))
    begun = MONDAY_NS + START * EVERY_NS
    out: dict[tuple[float, int], str] = {}
    for i, shape in enumerate(shapes):
        found = [one.severity for one in changed if one.series == str(i) and begun <= one.start_ns]
        out[shape] = max(found, key=list(Severity).index, default="none")
    return out


@pytest.mark.parametrize("wave", [0.0, 5.0], ids=["level", "wave"])
@pytest.mark.parametrize("tier", ["light", "standard", "strong"])
def test_severity_of_canonical_shapes(tier, wave):
    found = severities(tier, wave)
    for size, row in TABLE.items():
        for length, possible in zip(LENGTHS, row, strict=True):
            assert found[size, length] in possible, f"{size:g} spreads, {length} rows"


def test_obvious_deviations_are_at_least_major():
    ranks = {severity: rank for rank, severity in enumerate(Severity)}
    assert all(ranks[one] >= ranks[MAJOR] for one in TABLE[20.0][0]), "20 spreads in one row"
    assert all(ranks[one] >= ranks[MAJOR] for one in TABLE[8.0][2]), "8 spreads that last"
