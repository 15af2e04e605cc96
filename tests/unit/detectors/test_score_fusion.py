"""Score fusion: sums of tracks relative to their usual sum on a series."""

from __future__ import annotations

import numpy as np

from detectors.stages.forecaster_selection import SelectedForecasts
from detectors.stages.score_fusion import ScoreFusion, TrackGroup

GROUP = TrackGroup((("range", 1.0), ("level", 1.0)), 1.0, own=1.0)


def known(rows, off=np.inf):
    like = np.ones(len(rows), np.float32)
    return SelectedForecasts(
        like, like.astype(np.uint8), like, np.float32(off) * like, rows.astype(np.float32)
    )


def surprise(history, last):
    """Return the fused surprise of ``last`` (2,) after ``history`` (n, 2) and 10,000 rows before it."""
    given = np.vstack([history, last]).astype(np.float32)
    fusion, n = ScoreFusion((GROUP,), 4.0), len(given)
    rows = np.arange(10_000, 10_000 + n)
    return fusion.run(fusion.initial(1), np.zeros(n, np.int32), given, known(rows))[0][-1, 0]


def test_a_sum_that_is_usual_on_a_series_is_weaker_evidence_there():
    rng = np.random.default_rng(0)
    quiet, often = rng.exponential(0.3, (20_000, 2)), rng.exponential(2.0, (20_000, 1)).repeat(2, 1)
    assert surprise(often, (3.0, 3.0)) < 0.6 * surprise(quiet, (3.0, 3.0))


def test_rows_without_surprise_leave_the_usual_sum_unchanged():
    some = np.random.default_rng(0).exponential(1.0, (2_000, 2))
    assert surprise(np.vstack([some, np.zeros((5_000, 2))]), (3.0, 3.0)) == surprise(some, (3.0, 3.0))


def test_the_usual_sum_is_kept_per_channel_slot():
    fusion = ScoreFusion((GROUP,), 4.0)
    state, slot = fusion.initial(2), np.zeros(1_000, np.int32)
    loud = np.full((1_000, 2), 3.0, np.float32)
    fusion.run(state, slot, loud, known(np.arange(1_000)))
    assert state["combiner.usual"][0].any()
    assert not state["combiner.usual"][1].any()


def test_an_error_of_usual_size_is_no_event_however_rare():
    fusion = ScoreFusion((TrackGroup((("change", 1.0),), 1.0, least=8.0),), 10.0)
    given, slot = np.full((1, 1), 6.0, np.float32), np.zeros(1, np.int32)
    said = [
        fusion.run({}, slot, given, known(np.array([100_000]), off))[0][0, 0] for off in (2.0, 4.0, 8.0, 80.0)
    ]
    np.testing.assert_allclose(said, [1.5, 3.0, 6.0, 6.0])
