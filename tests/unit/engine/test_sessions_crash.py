"""Sessions under kills at any moment: ends and continued sessions are those of a process that never died."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from pipeline.core.errors import StorageUnavailable
from pipeline.engine.engine import Engine
from storage.stream_state import snapshots
from tests.support.engines import Bench, essence
from tests.support.events import CYCLE, Event, encoded
from tests.unit.engine.test_silent_sessions import PLANT, doors, turns  # noqa: F401

IDLE_S, LATENESS_S = 20.0, 2.0
#: Longer than idle and lateness.
SILENCE_S = 30.0

Step = tuple[str, Any]


def plan_of(seed: int) -> list[Step]:
    """Return records of three doors with pauses, some in a wrong order, cut short or late."""
    chance, at, place, steps = random.Random(seed), 0.0, dict.fromkeys("abc", 0), list[Step]()
    for _ in range(40):
        kind = chance.random()
        if kind < 0.15:
            steps.append(("silence", None))
            at += SILENCE_S
            place = dict.fromkeys("abc", 0)
            continue
        events: list[Event] = []
        for _ in range(chance.randrange(1, 4)):
            door = chance.choice("abc")
            step = chance.randrange(5) if chance.random() < 0.05 else place[door] % 5
            place[door] = step + 1
            late = 27.0 if chance.random() < 0.1 else 0.0
            events.append((door, at - late, CYCLE[step]))
            at += chance.choice((0.0, 0.5, 3.0))
        steps.append(("send", events))
    return [*steps, ("silence", None)]


class Run:
    """A bench that goes through a plan, and dies at moments drawn from ``seed``, if there is one."""

    def __init__(self, bench: Bench, clock: Callable[[float], None], seed: int | None) -> None:
        self.bench, self.clock = bench, clock
        self.chance = random.Random(seed) if seed is not None else None
        self.kills = 0
        self.engine: Engine = bench.engine()

    def go(self, plan: list[Step]) -> None:
        end = 0
        for kind, events in plan:
            if kind == "send":
                self.bench.log.extend(encoded(events), 0)
                end += len(events)
                if self.chance is None:
                    turns(self.engine)
                else:
                    turns(self.engine, self.chance.randrange(3))
                    self.maybe_kill()
            else:
                self.settle(end)
                for _ in range(6):
                    self.clock(SILENCE_S / 6)
                    turns(self.engine, 2)
                    if self.maybe_kill():
                        self.settle(end)
                self.settle(end)
                self.clock(SILENCE_S)
                turns(self.engine, 6)
        self.settle(end)

    def settle(self, end: int) -> None:
        """Read everything; a partition whose state could not be stored is acquired again a moment later."""
        for _ in range(60):
            turns(self.engine, 3)
            found = self.bench.positions().get(PLANT)
            if found is not None and found[0] == end and not self.engine.waits_for:
                return
            self.clock(0.6)
        raise AssertionError(f"not read up to {end}: {self.bench.positions()}")

    def maybe_kill(self) -> bool:
        if self.chance is None or self.chance.random() > 0.3:
            return False
        self.engine = self.bench.engine()
        self.kills += 1
        return True


@pytest.mark.parametrize("seed", range(4))
def test_kills_end_no_session_that_went_on(doors, clock, monkeypatch, seed):  # noqa: F811
    plan, save = plan_of(seed), snapshots.save
    whole = Run(doors([], storage={"snapshot_every": "1h"}), clock, None)
    whole.go(plan)
    chance = random.Random(seed)

    def sometimes(*arguments: Any, **named: Any) -> int:
        if chance.random() < 0.3:
            raise StorageUnavailable("away")
        return save(*arguments, **named)

    monkeypatch.setattr(snapshots, "save", sometimes)
    killed = Run(doors([], storage={"snapshot_every": chance.choice(["1h", "1ms"])}), clock, seed)
    killed.go(plan)
    assert killed.kills > 3
    assert essence(killed.bench.anomalies()) == essence(whole.bench.anomalies()) != []
    assert killed.bench.position().counts == whole.bench.position().counts
    assert killed.bench.late() == whole.bench.late()
