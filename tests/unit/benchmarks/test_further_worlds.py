"""The further worlds are complete, repeatable, and disturbed only where they say so."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest

from benchmarks import worlds
from benchmarks.further_worlds import FURTHER_WORLDS, HELD_OUT
from benchmarks.simulated import World, open_world, plus

NAMES = [make.__name__ for make in FURTHER_WORLDS]


def test_every_second_world_is_held_out() -> None:
    assert sorted(NAMES) == NAMES
    assert tuple(NAMES[1::2]) == HELD_OUT
    presets = [make(1).preset for make in FURTHER_WORLDS]
    assert [presets.count(one) for one in ("sensor", "network", "stock")] == [6, 4, 2]


@pytest.mark.parametrize("name", NAMES)
def test_world(name: str) -> None:
    make = FURTHER_WORLDS[NAMES.index(name)]
    world, same, other = make(1), make(1), make(2)
    frame = world.frame()
    assert world.name == name
    assert world.options.keys() <= {"timezone", "calendar"}
    assert len(world.series) >= 4
    assert 7 <= len(world.faults) <= 10
    assert world.times[-1] - world.times[0] >= pd.Timedelta("27D")
    assert np.isfinite(frame[list(world.channels)].to_numpy()).all()
    assert not frame.duplicated(["series", "time"]).any()
    pd.testing.assert_frame_equal(frame, same.frame())
    assert world.faults == same.faults
    assert not frame[list(world.channels)].equals(other.frame()[list(world.channels)])
    assert world.counted_from == int(0.4 * world.rows)
    for fault in world.faults:
        assert world.counted_from <= fault.first <= fault.last < world.rows
        assert set(fault.channels) <= set(world.channels)
        assert fault.direction in ("up", "down", "")
        lost = world.lost.get(fault.series, np.zeros(world.rows, bool))
        assert not lost[fault.first : fault.last + 1].any()
    for series in world.series:
        mine = sorted((one.first, one.last_of_return) for one in world.faults if one.series == series)
        assert all(end < later for (_, end), (later, _) in pairwise(mine)), series


def small_world() -> World:
    world = open_world("small", ("sensor", "1h"), ("a", "b"), ("2026-03-02", 14, "Europe/Paris"), 1)
    world.series = {name: {"a": world.noise(), "b": world.noise()} for name in ("x", "y")}
    world.fault("step", "x", world.span(7, 9, 20), "up", a=plus(9))
    world.expected.append(("y", *world.span(10, 0, 24)))
    return world


def told(world: World, *events: tuple[str, int, str, str, float]) -> pd.DataFrame:
    """Return the verdicts of a detector with events of a series, row, channel, direction and value."""
    frame = world.frame()
    out = pd.DataFrame(index=frame.index)
    out["anomaly"] = None
    for column in ("severity", "direction", "statement"):
        out[column] = ""
    for column in ("contribution", "observed", "lower", "upper"):
        for channel in world.channels:
            out[f"{column}:{channel}"] = 0.0
    for number, (series, row, channel, direction, value) in enumerate(events):
        at = frame.index[(frame["series"] == series) & (frame["time"] == world.times[row])][0]
        out.loc[at, ["anomaly", "direction", "statement"]] = [f"e{number}", direction, f"event {number}"]
        out.loc[at, [f"contribution:{channel}", f"observed:{channel}"]] = [1.0, value]
    return out


def test_events_are_judged_by_row_and_direction(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world()
    first, last = world.faults[0].first, world.faults[0].last
    cases = {
        ("x", first, "a", "up", 9.0): (1, 1, 0, 0),
        ("x", first, "a", "mixed", 9.0): (1, 1, 0, 0),
        ("x", first, "a", "down", -9.0): (1, 0, 1, 0),
        ("x", first, "b", "down", -9.0): (1, 0, 0, 0),
        ("x", first, "a", "up", 0.0): (1, 0, 0, 0),  # inside the stated range
        ("x", last + 10, "a", "down", -9.0): (0, 0, 0, 0),  # the way back, twice five rows
        ("x", last + 11, "a", "down", -9.0): (0, 0, 0, 1),
        ("y", first, "a", "up", 9.0): (0, 0, 0, 1),
        ("y", world.at(10, 12), "a", "up", 9.0): (0, 0, 0, 0),  # an expected day
        ("y", 20, "a", "up", 9.0): (0, 0, 0, 0),  # does not count yet
    }
    for event, counts in cases.items():
        monkeypatch.setattr(worlds, "detect", lambda *_, event=event, **__: told(world, event))
        result = worlds.judge(world, "standard")
        found, right, contradicting = len(result.found), result.right, result.contradicting
        assert (found, right, contradicting, len(result.false)) == counts, event
    assert result.series_weeks == pytest.approx(2 * (0.6 * world.rows - 0.6) / 168, abs=0.02)


def test_lost_rows_do_not_move_events(monkeypatch: pytest.MonkeyPatch) -> None:
    world = small_world()
    world.lose(0.3, 6)
    first = world.faults[0].first
    assert world.lost["x"][:first].any()
    monkeypatch.setattr(worlds, "detect", lambda *_, **__: told(world, ("x", first, "a", "up", 9.0)))
    assert worlds.judge(world, "standard").right == 1


def test_command_line_chooses_worlds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen: list[str] = []

    def judge(world: World, detector: str, **_: object) -> worlds.Result:
        seen.append(world.name)
        return worlds.Result(world.name, [worlds.Verdict(world.faults[0])], ["f"], [], 2.0)

    monkeypatch.setattr(worlds, "judge", judge)
    worlds.main(["--held-out"])
    assert tuple(seen) == HELD_OUT
    assert "0/6" in capsys.readouterr().out.splitlines()[-1]
    worlds.main(["solar", "--events"])
    assert seen[-1] == "solar"
    assert "missed: inverter 1 strings lost" in capsys.readouterr().out
