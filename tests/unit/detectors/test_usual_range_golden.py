"""Verdicts of the decision by usual ranges are those of the golden file, however rows are cut."""

from __future__ import annotations

import json

import pytest

from tests.support import usual_range_golden as golden

CODES = ("row", "flag", "channel", "cause", "side")
NUMBERS = ("ratio", "observed", "usual_low", "usual_high")


@pytest.mark.parametrize("case", golden.CASES)
@pytest.mark.parametrize(("batch", "last_alone"), [(golden.ROWS, False), (97, True)], ids=["whole", "cut"])
def test_verdicts_are_those_of_the_golden_file(case, batch, last_alone):
    found = golden.outside(golden.verdicts(case, batch, last_alone))
    expected = json.loads(golden.FILE.read_text())[case]
    assert [[row[name] for name in CODES] for row in found] == [
        [row[name] for name in CODES] for row in expected
    ]
    for got, wanted in zip(found, expected, strict=True):
        assert [got[name] for name in NUMBERS] == pytest.approx(
            [wanted[name] for name in NUMBERS], rel=1e-4, abs=1e-4, nan_ok=True
        )
