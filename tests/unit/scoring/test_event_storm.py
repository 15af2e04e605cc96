"""A storm of different codes: what is kept does not grow with it.

The storm of a million codes: pytest -q -m long tests/unit/scoring/test_event_storm.py
"""

from __future__ import annotations

import psutil
import pytest

from tests.support.events import PARTITION, batch, cycles, door_scorer, encoded

RECORDS = 5_000
MAX_PAGE_BYTES = 1_000_000
MAX_GROWTH_BYTES = 64 << 20


@pytest.mark.parametrize("codes", [50_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_distinct_codes_take_bounded_memory(codes: int) -> None:
    scorer, process = door_scorer(), psutil.Process()
    scorer.process([batch(encoded(cycles("a", 5)))])
    at, alarms, rows, before = 25, 0, 0, 0
    for first in range(0, codes, RECORDS):
        events = [("a", 5_000 + n * 0.01, f"code {n:x} z") for n in range(first, first + RECORDS)]
        result = scorer.process([batch(encoded(events), at)])
        at += RECORDS
        assert result.scored is not None
        rows += len(result.scored.points)
        alarms += int(result.scored.verdicts.flag.sum())
        if first == 4 * RECORDS:  # what is bounded is full
            before = process.memory_info().rss
    assert scorer.events is not None
    assert rows >= codes
    assert alarms <= 100 + codes // 1_000 + 5
    assert scorer.events.exhausted() == [PARTITION]
    assert len(scorer.events.dump(PARTITION)) < MAX_PAGE_BYTES
    assert process.memory_info().rss - before < MAX_GROWTH_BYTES
