"""Records of which everything is known: what is scored, what is late, twice there or unreadable, and where
the anomalies are.

Each partition has series of its own that tick once a second. The last record of a partition is the tide: it
lifts the watermark over all the others, so that it alone is still buffered when everything was read.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

START_MS = 1_750_000_000_000
LATENESS_S = 3
LIMIT = 100.0
SPIKE = 500.0
TIDE_S = 60
JUMP_S = 900
#: Seconds after a jump until each series has released a point: what is older is late from then on.
SETTLED_S = 15


@dataclass(slots=True)
class Log:
    """One partition's records; ``kinds[offset]`` says what must become of each: scored, late, duplicate or
    dead_lettered.
    """

    values: list[bytes] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    def add(self, value: bytes, kind: str) -> None:
        self.values.append(value)
        self.kinds.append(kind)

    def counts(self, until: int | None = None) -> Counter[str]:
        """Outcomes of the records before ``until``, once all of them are let go."""
        return Counter(self.kinds[:until])

    def dead(self) -> set[int]:
        return {offset for offset, kind in enumerate(self.kinds) if kind == "dead_lettered"}


def record(series: str, second: float, value: float) -> bytes:
    return json.dumps({"s": series, "t": START_MS + round(second * 1000), "v": value}).encode()


def make_log(
    partition: int,
    seconds: int,
    series: int = 4,
    seed: int = 1,
    first_second: int = 0,
    jump_every: int | None = None,
) -> Log:
    """About ``seconds × series`` records; every series has a spike of some points every 40 seconds or so.

    Args:
        partition: Number of the partition.
        seconds: Ticks of each series.
        series: Number of series.
        seed: Seed of the values.
        first_second: Event time of the first tick.
        jump_every: After so many ticks, event time jumps ahead, and then some records come from before.
    """
    rng = random.Random(f"{seed}/{partition}")
    log = Log()
    spikes = [_spikes(rng, seconds) for _ in range(series)]
    waiting: list[tuple[float, bytes]] = []  # those that come out of order, within the lateness
    jumped = 0
    for second in range(seconds):
        if jump_every and second and second % jump_every == 0:
            jumped += JUMP_S
            _release(log, waiting, math.inf)
        now = first_second + second + jumped
        settled = not jumped or second % (jump_every or 1) > SETTLED_S
        for one in range(series):
            name = f"p{partition}-{one}"
            normal = 20 + 3 * math.sin(now / 10 + one) + rng.gauss(0, 0.3)
            point = record(name, now, round(SPIKE + now % 7 if second in spikes[one] else normal, 3))
            luck = rng.random()
            if luck < 0.02:
                waiting.append((now + rng.choice((1, 2)), point))
                continue
            log.add(point, "scored")
            if luck < 0.03:
                log.add(point, "duplicate")
            elif luck < 0.04:
                log.add(_poison(rng, name, now), "dead_lettered")
            elif luck < 0.045 and second > 20 and settled:
                log.add(record(name, now - 10 - 1e-3 * one, 21.0), "late")
        if jumped and second % (jump_every or 1) == SETTLED_S + 1:
            _add_late(log, partition, series, now - JUMP_S // 2)
        _release(log, waiting, now)
    _release(log, waiting, math.inf)
    log.add(record(f"p{partition}-tide", first_second + seconds + jumped + TIDE_S, 1.0), "scored")
    return log


def _release(log: Log, waiting: list[tuple[float, bytes]], now: float) -> None:
    """Add the records that come out of order and are due."""
    for due, point in [w for w in waiting if w[0] <= now]:
        log.add(point, "scored")
        waiting.remove((due, point))


def _add_late(log: Log, partition: int, series: int, second: float) -> None:
    """Add a record of each series from before the jump of event time."""
    for one in range(series):
        log.add(record(f"p{partition}-{one}", second, 20.0), "late")


def _spikes(rng: random.Random, seconds: int) -> set[int]:
    """Seconds in which a series is out of its limits; the last 15 are quiet, so that every anomaly is closed
    at the end.
    """
    begins = range(rng.randrange(5, 30), seconds - 15, 40)
    return {
        begin + i for begin in begins for i in range(rng.choice((1, 2, 4, 6))) if begin + i < seconds - 15
    }


def _poison(rng: random.Random, series: str, second: int) -> bytes:
    good = json.loads(record(series, second, 1.0))
    return rng.choice(
        (
            b"\xff\xfe not json",
            b"",
            json.dumps(good | {"v": "twenty"}).encode(),
            json.dumps({k: v for k, v in good.items() if k != "t"}).encode(),
            json.dumps(good)[:-1].encode(),
        )
    )


def config_tree(database: str, source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A config of the one stream ``plant`` that reads such records.

    ``changes`` go into the stream; ``storage`` and ``engine`` beside it. ``without``: keys to leave out.
    """
    tree: dict[str, Any] = {
        "database": database,
        "http": None,
        "storage": {"snapshot_every": "300ms", **changes.pop("storage", {})},
        "engine": {"max_batch": 500, **changes.pop("engine", {})},
    }
    stream = {
        "source": source,
        "format": {"json": {"series": "s", "time": "t", "values": ["v"]}},
        "detector": "light",
        "every": "1s",
        "lateness": f"{LATENESS_S}s",
        "limits": {"v": {"max": LIMIT}},
        "dead_letters": {"ratio": 0.9, "run": 50},
    }
    without = changes.pop("without", ())
    return tree | {"streams": {"plant": {k: v for k, v in (stream | changes).items() if k not in without}}}
