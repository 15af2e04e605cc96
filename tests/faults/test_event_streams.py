"""Streams of events while members are killed: nothing lost, nothing twice, verdicts of a backfill."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from tests.faults.feed import LATENESS_S, START_MS, Log
from tests.faults.stage import Stage
from tests.faults.storm import storm
from tests.support.events import CYCLE, saved_door_model
from tests.support.kafka_server import Topics

pytestmark = [pytest.mark.kafka, pytest.mark.postgres]

IDLE_S = 20
PERIOD_S = 60


class EventStage(Stage):
    """A stage whose stream has events."""

    model: Path
    #: A partition that is silent for the idle time and the lateness has no buffered record any more.
    buffered_at_end = (0, 1)

    def write_config(self, name: str, database: str, **changes: Any) -> Path:
        """Write the config of one stream of doors."""
        stream = {
            "source": {"kafka": self.kafka},
            "format": {"json": {"series": "door", "time": "t", "code": "event"}},
            "events": {"idle": f"{IDLE_S}s", "model": str(self.model)},
            "lateness": f"{LATENESS_S}s",
            "dead_letters": {"ratio": 0.9, "run": 50},
        }
        tree = {
            "database": database,
            "http": None,
            "storage": {"snapshot_every": "300ms", "history_path": str(self.folder / f"history-{name}")},
            "engine": {"max_batch": 500},
            "streams": {"plant": stream},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(json.dumps(tree))
        return path


def event(door: str, second: float, code: object) -> bytes:
    return json.dumps({"door": door, "t": START_MS + round(second * 1000), "event": code}).encode()


def make_event_log(partition: int, periods: int, doors: int = 4) -> Log:
    """Return cycles of doors, some in a wrong order, cut short or with a new code.

    The last cycle is that of a further door, far behind the others.
    """
    chance, log = random.Random(partition), Log()
    for period in range(periods):
        found = []
        for door in range(doors):
            steps = list(CYCLE)
            if chance.random() < 0.15:
                place = chance.randrange(4)
                steps[place], steps[place + 1] = steps[place + 1], steps[place]
            if chance.random() < 0.1:
                steps = steps[: chance.randrange(1, 5)]
            if chance.random() < 0.1:
                steps.insert(3, f"smoke {chance.randrange(3)}")
            begin = period * PERIOD_S + chance.random() * 15
            times = [begin + (step + chance.random()) * 2 for step in range(len(steps))]
            found += [(at, f"p{partition}-{door}", code) for at, code in zip(times, steps, strict=True)]
        found.sort()
        for at, name, code in found:
            log.add(event(name, at, code), "scored")
            if chance.random() < 0.02:
                log.add(event(name, at, None), "dead_lettered")
        if period:
            log.add(event(f"p{partition}-0", (period - 1) * PERIOD_S, "badge"), "late")
    for step, code in enumerate(CYCLE):
        log.add(event(f"p{partition}-tide", periods * PERIOD_S + 60 + 10 * step, code), "scored")
    return log


@pytest.mark.timeout(300)
def test_kills_lose_no_event_and_repeat_none(
    tmp_path: Path, topics: Topics, schema_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EventStage, "model", saved_door_model(tmp_path), raising=False)
    stage = EventStage(
        tmp_path / "storm", topics, schema_url, [make_event_log(number, 30) for number in range(2)]
    )
    try:
        storm(stage, kills=4, freezes=1)
        figures = stage.account()
        print(figures)
        causes = {one.cause for one in stage.anomalies()}
    finally:
        stage.close()
    assert figures.problems == []
    assert (figures.lost, figures.twice, figures.score_difference) == (0, 0, 0.0)
    assert causes == {"unexpected_event", "missing_event", "new_event"}
