"""The repeated hour of autumn: both readings are kept, in any cut into batches."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.decode import make_decoder
from pipeline.windows import event_time
from pipeline.windows.event_time import EventTimeProcessor
from tests.support.decoding import PARTITION, records, stream

FORM = {"series": "k", "time": "t", "values": ["v"], "timezone": "Europe/Berlin"}


def outcomes(times: list[str], cut: int, **keys: object) -> tuple[list[int], list[int]]:
    config = stream({"json": FORM}, **keys)
    decoder, processor = make_decoder("s", config), EventTimeProcessor(config)
    state, buffer = processor.initial(1), processor.empty(PARTITION)
    out, at = [], []
    for start in range(0, len(times), cut):
        values = [f'{{"k":"a","t":"{t}","v":1}}'.encode() for t in times[start : start + cut]]
        columns, dead = decoder.decode(records(values, start))
        assert dead == []
        buffer, ready = processor.push(buffer, columns)
        admitted = processor.admit(state, np.zeros(len(ready), np.int32), ready)
        out += admitted.outcome.tolist()
        at += admitted.points.time.tolist()
    return out, at


def local(minutes: int, first: int, count: int) -> list[str]:
    return [
        f"2025-10-26 {(first + i * minutes) // 60:02}:{(first + i * minutes) % 60:02}:00"
        for i in range(count)
    ]


@pytest.mark.parametrize("cut", [1, 3, 100])
@pytest.mark.parametrize("minutes", [5, 15, 20, 30, 60])
def test_both_readings_are_scored(minutes, cut):
    hour = 60 // minutes
    times = local(minutes, 0, 3 * hour) + local(minutes, 120, 3 * hour)
    if minutes == 60:
        times = [t.replace("-26", "-25") for t in local(60, 600, 12)] + times  # the cadence is known
    out, at = outcomes(times, cut)
    assert set(out) == {event_time.SCORED}
    assert set(np.diff(at[-6 * hour :]).tolist()) == {minutes * 60 * 10**9}


def test_times_with_a_zone_and_duplicates_stay():
    zoned = ["2025-10-26T00:30:00Z", "2025-10-26T00:45:00Z", "2025-10-26T00:30:00Z"]
    assert outcomes(zoned, 100)[0] == [event_time.SCORED, event_time.SCORED, event_time.LATE]
    assert outcomes(local(15, 120, 1) * 2, 1)[0] == [event_time.SCORED, event_time.DUPLICATE]
