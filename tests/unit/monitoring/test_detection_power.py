"""Detection power: what is caught grows with the size, the live stream does not feel it, and it costs no more
than it may.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detectors import build
from detectors.base import Detector, DetectorSpec
from pipeline.cli.app import app
from pipeline.core.types import Partition, Power
from pipeline.monitoring import detection_power as powering
from pipeline.monitoring.detection_power import PowerSink, measure, summaries
from pipeline.observability.metrics import Metrics, PowerMetrics
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.training.dataset import take_points
from pipeline.training.synthetic_changes import KINDS, LEAD, ROWS, SIZES, disturb, probe, robust_deviation
from tests.support.retraining import STREAM, batches, lived, points_of, scorer, sensors, write_history

LIGHT = DetectorSpec(tier="light", channels=("v",))


def test_each_kind_of_change_is_what_its_name_says() -> None:
    x = np.arange(60.0)
    assert np.flatnonzero(disturb(x, "spike", 5, 10) - x).tolist() == [10]
    assert (disturb(x, "dip", 5, 10) - x)[10] == -5
    assert (disturb(x, "shift", -5, 10) - x)[[9, 10, 59]].tolist() == [0, -5, -5]
    drift = disturb(x, "drift", 5, 10) - x
    assert drift[9] == 0 < drift[10] < drift[20] < drift[29] == drift[59] == 5
    assert disturb(x, "flat", 0, 10)[9:].tolist() == [9.0] * 51
    with pytest.raises(ValueError, match="no change is called 'wobble'"):
        disturb(x, "wobble", 1, 3)


def test_a_spread_is_a_standard_deviation_that_one_wild_value_does_not_move() -> None:
    x = np.random.default_rng(0).normal(7, 3, 500)
    assert robust_deviation(x) == pytest.approx(3, rel=0.15)
    x[[5, 9]] = [np.nan, 300.0]
    assert robust_deviation(x) == pytest.approx(3, rel=0.2)
    assert robust_deviation(np.full(10, 4.0)) == robust_deviation(np.full(3, np.nan)) == 0.0


def probed(detector: Detector, values: np.ndarray, rows: int = ROWS) -> list[Power]:
    points = points_of(values)
    n = values.shape[1] - rows
    state, _ = detector.step(detector.initial(1), take_points(points, np.arange(n)))
    before = {name: array.copy() for name, array in state.items()}
    found = probe(detector, state, 0, take_points(points, np.arange(n, n + rows)), "s", np.array([1.0]), 0)
    assert all(np.array_equal(state[name], before[name], equal_nan=True) for name in state), (
        "the live state was touched"
    )
    return found


@pytest.mark.parametrize("tier", ["light", "standard"])
def test_large_changes_of_noise_are_caught_and_small_ones_are_not(tier: str) -> None:
    noise = np.random.default_rng(0).normal(0, 1, (1, 3000))
    found = {one.kind: one for one in probed(build(DetectorSpec(tier=tier, channels=("v",))), noise)}
    assert found.keys() == set(KINDS)
    for kind in ("spike", "dip"):
        assert found[kind].minimum_size is not None
        assert 2 <= found[kind].minimum_size <= 8, "one spread is what the noise does all the time"
        assert found[kind].delay == 0
    assert found["shift"].minimum_size is not None
    assert found["drift"].delay is None or found["drift"].delay >= 1
    assert found["flat"].detected in (0.0, 1.0)


def test_a_copy_that_is_flagged_anyway_catches_nothing() -> None:
    x = np.random.default_rng(0).normal(0, 1, (1, 3000))
    x[0, -ROWS + LEAD] += 60.0
    found = {one.kind: one for one in probed(build(LIGHT), x)}
    assert found["dip"].minimum_size is None
    assert found["dip"].detected == 0


def test_a_constant_series_or_too_few_rows_cannot_be_tried() -> None:
    detector = build(LIGHT)
    points = points_of(np.ones((1, 40)))
    assert probe(detector, detector.initial(1), 0, points, "s", np.array([0.0]), 0) == []
    assert (
        probe(detector, detector.initial(1), 0, take_points(points, np.arange(LEAD)), "s", np.array([1.0]), 0)
        == []
    )


def test_medians_count_a_series_that_catches_nothing_as_the_worst() -> None:
    some = [
        Power("s", "v", "spike", minimum_size, 1, 0.5, 1.0) for minimum_size in (1.0, 2.0, None, None, None)
    ]
    (spike,) = summaries(some)
    assert (spike.series, spike.minimum_size, spike.undetectable_share) == (5, None, 0.6)
    (spike,) = summaries(some[:3])
    assert (spike.minimum_size, spike.delay) == (2.0, 1.0)


def test_measured_on_history_it_repeats_itself_by_seed(tmp_path: Path) -> None:
    data = lived(tmp_path, build(LIGHT), sensors(5, 6))
    one, two = (measure(build(LIGHT), data, 3, seed=1) for _ in range(2))
    assert one == two
    assert len(one) == 3
    assert measure(build(LIGHT), data, 3, seed=2).keys() != one.keys()


# ------------------------------------------------------------------------------------------------ live


class Clock:
    """A clock that goes on by ``step`` seconds each time it is looked at."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 0.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def run(sink_of, x: np.ndarray) -> tuple[list[BatchResult], PowerSink | None]:
    live = scorer(STREAM)
    sink = sink_of(live)
    results = []
    for records in batches(x):
        results.append(live.process([records]))
        if sink is not None:
            sink.append(results[-1])
    return results, sink


def verdicts(results: list[BatchResult]) -> list[np.ndarray]:
    return [
        np.concatenate([getattr(r.scored.verdicts, name) for r in results if r.scored])
        for name in ("surprise", "flag", "expected")
    ]


@pytest.fixture
def eager(monkeypatch):
    """Makes sinks that may take all the time there is."""
    monkeypatch.setattr(powering, "SHARE", 1e9)
    return lambda live, metrics: PowerSink(live, PowerMetrics(metrics, "plant"))


def test_live_series_are_tried_in_turn_and_do_not_feel_it(eager) -> None:
    metrics = Metrics()
    x = sensors(12, 12)
    plain, _ = run(lambda live: None, x)
    watched, sink = run(lambda live: eager(live, metrics), x)
    for one, two in zip(verdicts(plain), verdicts(watched), strict=True):
        np.testing.assert_array_equal(one, two)
    assert [a.id for r in plain for a in r.anomalies] == [a.id for r in watched for a in r.anomalies]
    assert sink is not None
    assert sink.found.keys() == {f"s{i}" for i in range(12)}
    assert all({one.kind for one in some} == set(KINDS) for some in sink.found.values())
    value = metrics.registry.get_sample_value(
        "forewatch_power_smallest_spreads", {"stream": "plant", "kind": "spike"}
    )
    assert value is not None
    assert value in SIZES


def test_what_was_found_is_kept_and_gone_on_with(eager, monkeypatch) -> None:
    kept: list[Power] = []
    sinks: list[PowerSink] = []

    def keeping(live: StreamScorer) -> PowerSink:
        metrics = PowerMetrics(Metrics(), "plant")
        sinks.append(PowerSink(live, metrics, keep=lambda series, found: kept.extend(found)))
        return sinks[-1]

    run(keeping, sensors(4, 12))
    assert {one.series for one in kept} == {"s0", "s1", "s2", "s3"}
    live = scorer(STREAM)
    last = list({(one.series, one.kind): one for one in kept}.values())
    again = PowerSink(live, PowerMetrics(Metrics(), "plant"), kept=last)
    assert {name: sorted(some, key=repr) for name, some in again.found.items()} == {
        name: sorted(some, key=repr) for name, some in sinks[0].found.items()
    }


def test_it_begins_nothing_while_it_has_taken_more_than_its_share(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(powering, "probe", lambda *given: calls.append(1) or [])
    _, sink = run(
        lambda live: PowerSink(live, PowerMetrics(Metrics(), "plant"), Clock(0.01)), sensors(12, 12)
    )
    assert sink is not None
    elapsed = sink._clock() - sink._started_at
    assert len(calls) <= 2  # on this clock every batch takes as long as everything else
    assert sink.spent <= elapsed


def test_a_series_that_goes_away_or_another_model_ends_what_was_begun(eager) -> None:
    live = scorer(STREAM)
    sink = eager(live, Metrics())
    for records in batches(sensors(3, 4)):
        sink.append(live.process([records]))
    assert sink._observed
    kept = sink._observed[0]
    live.drop(Partition("t", 0))
    for records in batches(sensors(3, 1) + 1.0):
        sink.append(live.process([records]))
    assert kept not in sink._observed
    live.detector = build(LIGHT)
    sink.found = {"s0": []}
    for records in batches(sensors(3, 1), begin=1000):
        sink.append(live.process([records]))
    assert sink.found == {}


# ------------------------------------------------------------------------------------------------ the command


@pytest.fixture
def config(tmp_path: Path, sqlite_template: Path) -> Path:
    import shutil

    shutil.copy(sqlite_template, tmp_path / "forewatch.db")
    detector, x = build(LIGHT), sensors(4, 5)
    points = points_of(x)
    _, said = detector.step(detector.initial(4), points)
    write_history(tmp_path / "forewatch.db.history", points, said, [f"s{i}" for i in range(4)])
    tree = STREAM.model_dump(
        mode="json", by_alias=True, include={"source", "format", "detector", "every"}, exclude_none=True
    )
    path = tmp_path / "forewatch.yaml"
    path.write_text(
        json.dumps(
            {"database": f"sqlite:///{tmp_path}/forewatch.db", "streams": {"plant": tree, "other": tree}}
        )
    )
    return path


def test_the_command_shows_medians_or_every_series(config: Path) -> None:
    result = CliRunner().invoke(app, ["power", "-s", "plant", "-c", str(config), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["kind"] for one in found["kinds"]] == list(KINDS)
    assert len(found["series"]) == 4 * len(KINDS)
    table = CliRunner().invoke(app, ["power", "-s", "plant", "-c", str(config), "-n", "2", "--details"])
    assert table.exit_code == 0
    assert table.stdout.splitlines()[0].split() == [
        "series",
        "channel",
        "kind",
        "minimum_size",
        "delay",
        "detected",
        "deviation",
    ]
    assert len(table.stdout.splitlines()) == 1 + 2 * len(KINDS)


def test_the_command_says_what_is_missing(config: Path) -> None:
    result = CliRunner().invoke(app, ["power", "-s", "other", "-c", str(config)])
    assert result.exit_code != 0
    assert "stream other: no series has 248 points in the history" in str(result.exception)
