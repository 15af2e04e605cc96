"""Statements in units of the input."""

from __future__ import annotations

import numba
import numpy as np
import pytest

from detectors.composite import stated_ranges
from detectors.composite.presets import PRESETS
from detectors.stages.usual_range import limits
from detectors.stages.usual_range.stage import LOGARITHM_OF_PRESET


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_a_working_value_is_read_back_as_by_its_preset(preset: str):
    x = np.array([-800.0, -3.5, -0.0, 0.0, 1e-9, 2.25, 30.0, 900.0, np.nan])
    found = [stated_ranges._inverse(one, LOGARITHM_OF_PRESET[preset]) for one in x]
    np.testing.assert_allclose(found, PRESETS[preset]().inverse(x), rtol=1e-14)


def test_a_limit_from_the_table_is_the_computed_one():
    @numba.njit
    def computed(logarithm: int) -> float:
        return np.exp(np.float32(logarithm) / limits.LIMIT_STEPS_PER_E_FOLD)

    border = len(limits.LIMIT_TABLE)
    for logarithm in (*range(0, border, 7), border - 1, border, border + 1, 30_000):
        assert limits._limit_of(np.int16(logarithm)) == computed(np.int16(logarithm))
