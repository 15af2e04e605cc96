"""Values in 16 bits: loss of precision, and the effect of one outlier."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from detectors.channel_batch import ChannelBatch
from detectors.stages.quantised_history import quantise
from detectors.stages.robust_scale import MAX_STORED_SCALES, RobustScale
from detectors.stages.seasonality import Seasonality

values = st.lists(st.floats(-(2.0**50), 2.0**50, width=32), min_size=1, max_size=50)


def packed(given_values):
    past, quantum = np.zeros(len(given_values), np.int16), np.zeros(1, np.float32)
    for i, value in enumerate(given_values):
        past[i] = quantise(past, quantum, 0, np.float32(value))
    return past * quantum[0], quantum[0]


@given(values)
def test_no_value_is_off_by_more_than_a_quantum_and_that_is_small(given_values):
    kept, quantum = packed(given_values)
    assert np.abs(kept - np.array(given_values)).max() <= quantum
    assert quantum <= max(np.abs(given_values).max() / 8_192, 1e-30)


@given(st.lists(st.integers(-8_000, 8_000), min_size=1, max_size=50))
def test_counts_are_kept_exactly(counts):
    assert (packed(counts)[0] == counts).all()


def test_one_wild_value_does_not_hide_the_period():
    rng = np.random.default_rng(0)
    t = np.arange(3_000)
    x = 5 * np.sin(2 * np.pi * t / 50) + rng.normal(size=len(t)) * 0.2
    x[1_000] = 1e9
    batch = ChannelBatch(
        np.zeros(len(t), np.int32), x, t * 10**9, np.zeros(len(t), np.int32), np.full(len(t), 10**9)
    )
    RobustScale().run(RobustScale().initial(1), batch)
    assert batch.near[1_000] < 2 * MAX_STORED_SCALES * batch.unit[1_000]
    seasonality = Seasonality(256, 3)
    state = seasonality.initial(1)
    seasonality.run(state, batch)
    assert abs(batch.period[-1] - 50) <= 1
    assert state["rhythm.quantum"][0] < 0.1 * batch.unit[-1]
