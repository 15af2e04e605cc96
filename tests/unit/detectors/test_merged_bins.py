"""A state of ``strong`` with quarters of an hour as phases goes on with hours.

The stored state in ``golden/state_96_bins.npz`` was written by commit c82c838a, the last one with quarters,
after twenty days of ``shift_plant``.
"""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import numpy as np

from detectors import DetectorSpec, build, contract
from detectors.base import Points
from detectors.stages.usual_range.lane import COL_VISITS
from detectors.stages.usual_range.phase_profile import MISSING
from tests.unit.detectors.test_usual_range import ROWS_PER_DAY, points_of, shift_plant

STORED = np.load(Path(__file__).with_name("golden") / "state_96_bins.npz")
KEY = "strong usual_range now"
VERSION = json.loads(STORED["versions"].tobytes())[KEY]
ROWS = {name.removeprefix(f"{KEY}/"): STORED[name] for name in STORED.files if name.startswith(KEY)}
CUT, PARTS, HOURS = 20 * ROWS_PER_DAY, 4, 24


def converted():
    detector = build(DetectorSpec(tier="strong", decision="usual_range", channels=("value",)))
    state = detector.convert_state(VERSION, ROWS)
    assert state is not None
    return detector, state


def test_each_hour_has_the_union_of_the_ranges_of_its_quarters():
    detector, state = converted()
    layout = detector.usual_range.stage.layout
    before, after = ROWS["usual.profile"].reshape(2 * HOURS, PARTS, -1), state["usual.profile"]
    after = after.reshape(2 * HOURS, -1)
    known = after != MISSING
    assert known.mean() > 0.9
    for low, high in layout.number:
        for end, extreme in ((low, np.min), (high, np.max)):
            if end >= 0:
                cells = known[:, end] & (before[..., end] != MISSING).all(axis=1)
                np.testing.assert_array_equal(after[cells, end], extreme(before[cells, :, end], axis=1))


def test_the_last_three_hours_are_those_of_the_last_twelve_quarters():
    _, state = converted()
    before, recent = ROWS["usual.recent"].reshape(12, 2), state["usual.recent"].reshape(3, 2)
    visits = int(ROWS["usual.head"].ravel()[COL_VISITS])
    oldest_first = np.roll(before, -(visits % 12), axis=0).reshape(3, 4, 2)
    np.testing.assert_array_equal(recent[:, 0], oldest_first[..., 0].min(axis=1))
    np.testing.assert_array_equal(recent[:, 1], oldest_first[..., 1].max(axis=1))
    assert state["usual.head"].ravel()[COL_VISITS] == 3


def test_verdicts_go_on():
    values = shift_plant()
    values[[3_000, 3_300]] += 60
    detector, state = converted()
    whole = contract.run_batches(detector, points_of(values))
    points = points_of(values)
    rest = Points(*(getattr(points, field.name)[CUT:] for field in fields(Points)))
    found = contract.run_batches(detector, rest, state=state)
    assert found.flag[[3_000 - CUT, 3_300 - CUT]].all()
    assert (found.flag == whole.flag[CUT:]).mean() > 0.98
    np.testing.assert_allclose(found.expected, whole.expected[CUT:], atol=2.0)
