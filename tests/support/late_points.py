"""Streams of one engine whose points come late, beside the same points in the order of time."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sqlalchemy import text

from pipeline.core.types import Anomaly, Partition
from pipeline.engine.engine import Engine
from pipeline.services.series_revision import StreamRevision
from storage.history.writer import HistoryWriter
from storage.results import late_records
from tests.faults.feed import Log, record
from tests.support.engines import Bench

PLANT = Partition("plant", 0)
QUIET_START_S, QUIET_END_S = 20, 30


@dataclass(frozen=True, slots=True)
class LatePoints:
    """Records as they arrive, and in the order of time."""

    arrived: list[bytes]
    ordered: list[bytes]


def random_late_points(rng: random.Random, seconds: int, *, corrections: bool) -> LatePoints:
    """Return two series with deviations of 1 to 9 points, and with points that come up to 25 s late.

    Args:
        rng: Source of the choices.
        seconds: Ticks of each series.
        corrections: Also send wrong values whose correction comes later.
    """
    arrivals: list[tuple[float, bytes]] = []
    points: list[tuple[int, bytes]] = []
    for series in range(2):
        name = f"p0-{series}"
        deviations = _deviations(rng, seconds)
        for second in range(seconds):
            usual = round(20 + 3 * math.sin(second / 10 + series) + rng.gauss(0, 0.3), 3)
            point = record(name, second, deviations.get(second, usual))
            points.append((second, point))
            luck, delay = rng.random(), rng.randrange(1, 25) + 0.5
            movable = QUIET_START_S < second < seconds - QUIET_END_S
            if movable and luck < 0.04:
                arrivals.append((second + delay, point))
                continue
            if movable and luck > 0.985 and corrections:
                arrivals.append((second, record(name, second, rng.choice((20.0, 530.0)))))
                arrivals.append((second + delay, point))
                continue
            arrivals.append((second, point))
    tide = record("p0-tide", seconds + 60, 1.0)
    return LatePoints(*([*_in_time(some), tide] for some in (arrivals, points)))


def _in_time(some: Sequence[tuple[float, bytes]]) -> list[bytes]:
    return [value for _, value in sorted(some, key=lambda one: one[0])]


def _deviations(rng: random.Random, seconds: int) -> dict[int, float]:
    found: dict[int, float] = {}
    begin = rng.randrange(30, 60)
    while begin < seconds - QUIET_END_S:
        found |= {begin + i: 500.0 + rng.randrange(60) for i in range(rng.choice((1, 2, 4, 6, 9)))}
        begin += rng.randrange(14, 50)
    return found


class LateBench(Bench):
    """A bench whose test decides when a revision is prepared, applied and stored.

    ``running`` is its engine.
    """

    def __init__(self, folder: Path, template: Path, values: Sequence[bytes], **settings: Any) -> None:
        """Start without an engine; snapshots are taken by ``snapshot`` only."""
        storage = {"history_path": str(folder / "history"), "snapshot_every": "1000s"}
        log = Log(list(values), ["any"] * len(values))
        super().__init__(folder, template, [log], storage=storage, **settings)
        self.running: Engine

    def begin(self) -> None:
        """Start an engine; one that runs is crashed, and its recorded history is as it is on the disk."""
        crashed = self.open.copy()
        for engine in crashed:
            writer_of(engine)._write = lambda buffer: None  # type: ignore[method-assign]
        self.running = self.engine(history=True, revisions=True)
        self.running.turn(0.0)
        for engine in crashed:
            writer_of(engine).close()
            self.open.remove(engine)

    def read_until(self, count: int) -> None:
        """Read the first ``count`` records."""
        self.fill(lambda log: count)
        self.drain(self.running)

    def prepare(self) -> None:
        """Score series with pending late points again."""
        self._revision().prepare(self.running, lambda seconds: self._written(), at_once=True)

    def apply(self) -> None:
        """Commit one prepared revision."""
        self._revision().apply(self.running)

    def snapshot(self) -> None:
        """Take a snapshot."""
        self.running.parts.snapshots.renew()
        self.running.turn(0.0)

    def revise_all(self) -> None:
        """Revise until no late point is pending."""
        for _ in range(30):
            self.prepare()
            self.apply()
            self.snapshot()
            if not self.pending():
                return
        raise AssertionError(f"{self.pending()} late points are pending")

    def pending(self) -> int:
        """Return the number of late points that have revised nothing yet."""
        with self.database.read() as connection:
            return len(late_records.pending(connection, "plant", [PLANT], 10_000))

    def damage_snapshot(self) -> None:
        """Make the stored snapshot unreadable."""
        with self.database.begin() as connection:
            connection.execute(text("UPDATE snapshot_pages SET data = x'00' WHERE page = 1"))

    def states(self) -> dict[tuple[str, str, str], Any]:
        """Return each array of the state of each series, by series, layer and name."""
        scorer = self.running.parts.scorer
        return {
            (name, layer, key): array[slot].copy()
            for slot, name in enumerate(scorer.names())
            if name is not None
            for layer, arrays in scorer.series.state.items()
            for key, array in arrays.items()
        }

    def _revision(self) -> StreamRevision:
        (found,) = (one for one in self.running.parts.sinks if isinstance(one, StreamRevision))
        return found

    def _written(self) -> None:
        done = threading.Event()
        writer_of(self.running)._do(done.set)
        assert done.wait(60)


def writer_of(engine: Engine) -> HistoryWriter:
    """Return the writer of the recorded history of an engine."""
    sink = engine.parts.writers._history
    assert sink is not None
    return sink._writer


def final_verdicts(found: Sequence[Anomaly]) -> dict[str, tuple[Any, ...]]:
    """Return all that must be equal to the order of time, by id; NaN equals NaN."""
    return {
        str(a.id): (
            *(a.series, a.state, a.severity, a.direction, a.cause, a.start_ns, a.end_ns, a.peak_ns, a.points),
            *map(repr, (a.score, a.surprise, a.ratio, a.observed, a.expected, a.lower, a.upper)),
            a.forecaster,
        )
        for a in found
    }


def check_equal(live: LateBench, right: LateBench) -> None:
    """Compare verdicts and states with those of the order of time."""
    assert final_verdicts(live.anomalies()) == final_verdicts(right.anomalies())
    found, wanted = live.states(), right.states()
    assert found.keys() == wanted.keys()
    different = {key for key in wanted if not np.array_equal(found[key], wanted[key], equal_nan=True)}
    assert different == set()
