"""States whose large residuals have sizes in half octaves go on with finer sizes.

``golden/state_6_coarse_sizes.npz`` was written by commit 1bb14b0, the last one of that form, after 2,880 rows
of a tank like ``filled_tank``.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np

from detectors import DetectorSpec, build, contract
from detectors.base import Points, State
from detectors.stages.usual_range.residual_events import EVENT_SIZE, EVENTS
from tests.unit.detectors.test_usual_range import points_of
from tests.unit.detectors.test_usual_range_levels import filled_tank

STORED = np.load(Path(__file__).with_name("golden") / "state_6_coarse_sizes.npz")
ROWS = 2_880


def test_sizes_of_events_become_finer_and_the_series_goes_on():
    detector = build(DetectorSpec(tier="standard", decision="usual_range"))
    stored: State = {name: STORED[name] for name in STORED.files if name != "version"}
    version = STORED["version"].tobytes().decode()
    state = detector.convert_state(version, stored)
    assert state is not None
    before, after = (one["usual.events"][0, 0].astype(int) for one in (stored, state))
    assert len(np.unique(before[:, EVENT_SIZE])) > 1
    assert len(before) == EVENTS
    np.testing.assert_array_equal(after[:, EVENT_SIZE], before[:, EVENT_SIZE] * 4)
    np.testing.assert_array_equal(after[:, :EVENT_SIZE], before[:, :EVENT_SIZE])
    changed = {"usual.events", "usual.head", "usual.whole", "usual.means", "usual.departures"}
    for name in set(state) - changed - {"bounds.seen", "bounds.used"}:
        np.testing.assert_array_equal(state[name], stored[name])
    values = filled_tank(2 * ROWS)
    values[ROWS + 500] -= 100
    rest = points_of(values)
    rest = Points(*(getattr(rest, field.name)[ROWS:] for field in fields(Points)))
    flags = contract.run_batches(detector, rest, state=state).flag
    assert flags[500]
    assert flags.sum() < 5
