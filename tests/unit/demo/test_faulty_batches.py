"""Faults of the examples of alerts about events."""

from __future__ import annotations

import json

import pytest

from benchmarks.batch_faults import EDITS, FaultyBatches
from pipeline.demo.simulate import PAUSE, Batches


@pytest.mark.parametrize("fault", EDITS)
def test_each_edit_changes_a_batch_and_nothing_before_it(fault: str) -> None:
    ordinary = Batches(3)._recipe()
    changed = EDITS[fault](list(ordinary))
    assert changed != ordinary
    assert next(step for step in changed if step != PAUSE) == "fill"


def test_a_fault_is_in_one_batch_of_its_mixer_only() -> None:
    world = FaultyBatches(1)
    world._injected = list(EDITS).index("unknown step")
    world.inject()
    kind, mixer = world.fault or ("", "")
    assert kind == "unknown step"
    steps = [json.loads(value) for tick in range(200) for _, value in world.tick(300 * tick)]
    vents = [one["mixer"] for one in steps if one["step"] == "vent"]
    assert vents == [mixer]
