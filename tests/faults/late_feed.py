"""Late and corrected points, beside the same points in the order of time."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from tests.faults.feed import LIMIT, SPIKE, Log, record

#: Seconds of the beginning and of the end in which every point comes in time.
QUIET_START_S, QUIET_END_S = 20, 30


@dataclass(slots=True)
class LateLog:
    """One partition: as it arrives, and in the order of time."""

    arrived: Log
    ordered: Log
    late: int = 0
    corrected: int = 0


def make_late_log(partition: int, seconds: int, series: int = 3, seed: int = 1) -> LateLog:
    """Return series that tick once a second, with points that come late, and wrong values.

    Args:
        partition: Number of the partition.
        seconds: Ticks of each series.
        series: Number of series.
        seed: Seed of the values.
    """
    rng = random.Random(f"late/{seed}/{partition}")
    found = LateLog(Log(), Log())
    arrivals: list[tuple[float, bytes]] = []
    points: list[tuple[int, bytes]] = []
    for one in range(series):
        name = f"p{partition}-{one}"
        late_until, delay = 0, 0
        for second in range(seconds):
            value = round(20 + 3 * math.sin(second / 10 + one) + rng.gauss(0, 0.3), 3)
            if second % 41 in (20 + one, 21 + one) and QUIET_START_S < second < seconds - QUIET_END_S:
                value = SPIKE + second % 7
            point = record(name, second, value)
            points.append((second, point))
            movable = QUIET_START_S < second < seconds - QUIET_END_S
            luck = rng.random()
            if movable and second >= late_until and luck < 0.02:
                late_until, delay = second + rng.choice((1, 2, 4)), rng.randrange(3, 20)
            if second < late_until:
                arrivals.append((second + delay + 0.5, point))
                found.late += 1
                continue
            if movable and luck > 0.985:
                wrong = 20.0 if value > LIMIT else SPIKE
                arrivals.append((second, record(name, second, wrong)))
                arrivals.append((second + rng.randrange(1, 20) + 0.5, point))
                found.corrected += 1
                continue
            arrivals.append((second, point))
    for _, value in sorted(arrivals, key=lambda one: one[0]):
        found.arrived.add(value, "any")
    for _, value in sorted(points, key=lambda one: one[0]):
        found.ordered.add(value, "scored")
    return found
