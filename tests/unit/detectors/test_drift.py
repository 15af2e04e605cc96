"""Drift: detection, silence during incidents, and agreement with river."""

from __future__ import annotations

import json

import numpy as np
import pytest
from river.drift import PageHinkley

from detectors import drift
from detectors.base import Points, Verdicts
from detectors.drift import DriftMonitor, block_kernels, pooled
from detectors.drift.block_kernels import (
    BLOCK_POINTS,
    PH_BLOCKS,
    PROFILE_DAYS,
    REFERENCE_BLOCKS,
    page_hinkley,
)
from pipeline.config.schema import Config
from pipeline.monitoring.drift_sink import DriftEvidence, DriftSink
from tests.faults.feed import config_tree
from tests.support.retraining import DAY, STEP, STREAM, batches, scorer, sensors


def evidence_of(
    x: np.ndarray, expected: np.ndarray, flagged: np.ndarray | None = None, batch: int = 1000, **options
) -> list[drift.Drift]:
    """Evidence of a stream ``x`` (S, T) whose points come in the order of their times."""
    series, rows = x.shape
    monitor, found = DriftMonitor(**options), []
    slot, time = (
        np.tile(np.arange(series, dtype=np.int32), rows),
        np.repeat(np.arange(rows, dtype=np.int64) * STEP, series),
    )
    columns = (x.T.reshape(-1, 1), expected.T.reshape(-1, 1).astype(np.float32))
    flags = np.zeros(x.size, bool) if flagged is None else flagged.T.reshape(-1)
    for at in range(0, x.size, batch):
        here = slice(at, at + batch)
        n = len(slot[here])
        points = Points(slot[here], time[here], columns[0][here], np.zeros(n, np.int32), np.full(n, STEP))
        blank = np.zeros(n, np.float32)
        nothing = blank[:, None]
        verdicts = Verdicts(
            blank,
            blank,
            flags[here],
            columns[1][here],
            nothing,
            nothing,
            nothing,
            *np.stack([blank, blank]).astype(np.uint8),
        )
        if evidence := monitor.update(points, verdicts):
            found.append(evidence)
    return found


def wave(days: int, series: int = 40) -> np.ndarray:
    """Return the values that a perfect forecaster expects of ``sensors``."""
    t = np.arange(days * DAY)
    return np.array([50 + 10 * np.sin(2 * np.pi * t / DAY + i) for i in range(series)])


def test_page_hinkley_is_that_of_river() -> None:
    rng = np.random.default_rng(0)
    values = np.r_[rng.normal(5, 2, REFERENCE_BLOCKS + 300), rng.normal(8, 2, 60)]
    usual, spread = values[:REFERENCE_BLOCKS].mean(), values[:REFERENCE_BLOCKS].std(ddof=1)
    theirs = PageHinkley(1, block_kernels.DELTA_SPREADS, block_kernels.ALARM_THRESHOLD, block_kernels.FADING)
    page, since, begun, around = (
        np.zeros(10),
        np.zeros(2, np.int64),
        np.zeros(2, np.int64),
        np.zeros(2, np.float32),
    )
    for now, value in enumerate(values):
        z, statistic = page_hinkley(page, since, value, now, 1, begun, around)
        if now < REFERENCE_BLOCKS:
            assert np.isnan(z)
            continue
        theirs.update(
            np.clip((value - usual) / spread, -block_kernels.MAX_ABS_SPREADS, block_kernels.MAX_ABS_SPREADS)
        )
        assert (statistic > block_kernels.ALARM_THRESHOLD) == theirs.drift_detected
        if theirs.drift_detected:
            break
        up, down = theirs._sum_increase - theirs._min_increase, theirs._max_decrease - theirs._sum_decrease
        assert statistic == pytest.approx(max(up, down), abs=1e-4)
    assert REFERENCE_BLOCKS + 300 < now < REFERENCE_BLOCKS + 330
    assert begun[1] == pytest.approx(REFERENCE_BLOCKS + 300, abs=8)
    assert (around[0], around[1]) == (pytest.approx(usual, rel=1e-6), pytest.approx(8, abs=1.5))


@pytest.mark.parametrize("seed", range(3))
def test_forty_days_of_forty_series_without_a_drift_give_no_evidence(seed: int) -> None:
    assert evidence_of(sensors(40, 40, seed=seed), wave(40)) == []


def test_worse_forecasts_are_a_drift_once_and_it_says_since_when() -> None:
    x = sensors(40, 30)
    x[:, 20 * DAY :] += np.random.default_rng(1).normal(0, 1.5, (40, 10 * DAY))
    (evidence,) = evidence_of(x, wave(30))
    assert 20 < evidence.at_ns / STEP / DAY < 22
    assert evidence.since_ns / STEP / DAY == pytest.approx(20, abs=1)
    assert evidence.watched == 40
    assert any("residual" in one or "of 40 series" in one for one in evidence.statistics)
    assert all(one.after > 1.2 * one.before for one in evidence.series)


def test_another_level_of_many_series_is_a_drift_of_the_inputs() -> None:
    x, expected = sensors(40, 40), wave(40)
    x[:15, 25 * DAY :] += 8.0
    expected[:15, 25 * DAY :] += 8.0  # a forecaster that follows at once: its residuals see nothing
    (evidence,) = evidence_of(x, expected)
    assert 25 < evidence.at_ns / STEP / DAY < 29
    assert {one.kind for one in evidence.series} == {"input"}
    assert {one.slot for one in evidence.series} <= set(range(15))


def test_a_daily_rhythm_with_quiet_weekends_is_no_drift() -> None:
    x = sensors(8, 60)
    weekend = (np.arange(x.shape[1]) // DAY + 3) % 7 >= 5
    x[:, weekend] -= 30.0
    expected = wave(60, 8)
    expected[:, weekend] -= 30.0
    assert evidence_of(x, expected) == []


def test_one_series_of_forty_is_not_the_stream_but_of_one_it_is() -> None:
    x, expected = sensors(40, 40), wave(40)
    x[0, 25 * DAY :] += 8.0
    expected[0, 25 * DAY :] += 8.0
    assert evidence_of(x, expected) == []
    (evidence,) = evidence_of(x[:1], expected[:1])
    assert evidence.series[0].slot == 0
    assert "1 of 1 series" in evidence.statistics


def test_an_incident_of_a_day_is_no_drift() -> None:
    x, expected = sensors(1, 40), wave(40, 1)
    x[0, 25 * DAY : 26 * DAY] += 30.0
    flagged = np.zeros(x.shape, bool)
    flagged[0, 25 * DAY : 25 * DAY + 4] = True
    assert evidence_of(x, expected, flagged) == []
    assert evidence_of(x, expected) != []  # without the flag it would be one


def test_flagged_points_alone_never_are_a_drift() -> None:
    x, expected = sensors(4, 40), wave(40, 4)
    flagged = np.zeros(x.shape, bool)
    flagged[:, 20 * DAY :: 3] = True
    x[flagged] += 50.0
    assert evidence_of(x, expected, flagged) == []


def test_after_the_cool_down_what_came_is_the_usual() -> None:
    x = sensors(40, 60)
    for day in (20, 40):
        x[:, day * DAY :] += np.random.default_rng(day).normal(0, day / 10, (40, (60 - day) * DAY))
    days = [one.at_ns / STEP / DAY for one in evidence_of(x, wave(60))]
    assert len(days) == 2
    assert 20 < days[0] < 23
    assert 40 < days[1] < 43
    (only,) = evidence_of(x, wave(60), cool_down_ns=45 * DAY * STEP)
    assert only.at_ns / STEP / DAY < 23


def test_evidence_does_not_depend_on_how_points_are_batched() -> None:
    x, expected = sensors(20, 35), wave(35, 20)
    x[:8, 25 * DAY :] += 8.0
    expected[:8, 25 * DAY :] += 8.0
    one, two = (evidence_of(x, expected, batch=batch) for batch in (160, 4000))
    assert [len(one), len(two)] == [1, 1]
    assert one[0].since_ns == pytest.approx(two[0].since_ns, abs=DAY * STEP)


def test_a_slot_with_another_series_is_reset_and_slots_beyond_the_limit_are_ignored(
    monkeypatch,
) -> None:
    monkeypatch.setattr("detectors.drift.monitor.MAX_CHANNEL_SLOTS", 3)
    monitor = DriftMonitor()
    n = 5 * BLOCK_POINTS
    slot = np.repeat(np.arange(5, dtype=np.int32), BLOCK_POINTS)
    points = Points(slot, np.arange(n) * STEP, np.ones((n, 1)), np.zeros(n, np.int32), np.full(n, STEP))
    blank = np.zeros(n, np.float32)
    nothing = blank[:, None]
    monitor.update(
        points,
        Verdicts(
            blank,
            blank,
            blank > 1,
            nothing,
            nothing,
            nothing,
            nothing,
            *np.stack([blank, blank]).astype(np.uint8),
        ),
    )
    assert monitor._state["page"][:, 0, PH_BLOCKS].tolist() == [1, 1, 1]
    monitor.forget(np.array([1, 4], np.int32))
    assert monitor._state["page"][:, 0, PH_BLOCKS].tolist() == [1, 0, 1]


def test_the_engine_s_sink_names_the_series_of_a_stream_that_drifts(tmp_path, sqlite_template) -> None:
    """The whole way: records in a log, the real engine and detector, one evidence that a job row can hold."""
    from pipeline.engine.factory import build_engine
    from pipeline.observability.metrics import Metrics, StreamMetrics
    from pipeline.sources.memory import MemoryLog, MemorySource
    from storage.sql.database import Database
    from tests.support.engines import shutil

    shutil.copy(sqlite_template, tmp_path / "db")
    changes = {
        "detector": "light",
        "every": "10m",
        "limits": {},
        "lateness": "0s",
        "engine": {"max_batch": 4000},
    }
    config = Config.model_validate(
        config_tree(f"sqlite:///{tmp_path}/db", {"memory": {"name": "plant"}}, **changes)
    )
    x = sensors(40, 34)
    x[:30, 24 * DAY :] += 9.0
    log = MemoryLog("plant", 1)
    rows = [(f"s{i}", t * 600_000, x[i, t]) for t in range(x.shape[1]) for i in range(40)]
    log.extend(
        [
            json.dumps({"s": name, "t": 1_750_032_000_000 + at, "v": round(value, 4)}).encode()
            for name, at, value in rows
        ]
    )
    found: list[DriftEvidence] = []
    database, source = Database(config.database), MemorySource(log)
    engine = build_engine(
        "plant",
        config,
        database,
        source,
        StreamMetrics(Metrics(), "plant"),
        make_sinks=lambda scorer: [DriftSink(scorer, 6 * 3600 * 10**9, found.append)],
    )
    position = None
    while position is None or (position.next_offset or 0) < len(rows):
        engine.turn(0.0)
        position = next(iter(engine.parts.ownership.positions.values()), None)
    engine.close()
    database.close()
    (evidence,) = found
    day = (evidence.at_ns - 1_750_032_000_000 * 10**6) / STEP / DAY
    assert 24 < day < 29
    names = {one["series"] for one in evidence.series}
    assert names
    assert names <= {f"s{i}" for i in range(30)}
    assert json.loads(json.dumps(evidence.as_dict()))["stream"] == "plant"


@pytest.mark.parametrize("remembers", [True, False])
def test_a_restart_just_before_the_change_does_not_blind_it(remembers: bool) -> None:
    """With what was kept the series' usual is known at once; without it, four days later, the new level is
    the usual.
    """
    x = sensors(20, 30)
    x[:, 24 * DAY :] += 9.0
    live, found, kept = scorer(STREAM), [], []

    def keep(partition, state) -> None:
        kept.append(state())

    sink = DriftSink(live, 6 * 3600 * 10**9, found.append, keep)
    for number, records in enumerate(batches(x)):
        if number == 24 * DAY // 6:
            sink.close()
            assert found == []
            sink = DriftSink(live, 6 * 3600 * 10**9, found.append, keep, [kept[-1]] if remembers else [])
        sink.append(live.process([records]))
    assert [one.stream for one in kept] == ["plant"] * len(kept)
    assert bool(found) == remembers
    if remembers:
        assert (found[0].at_ns - 1_000_000 * STEP) / STEP / DAY < 28
        assert found[0].series, "it is the series that say so, not only what pools them"


@pytest.mark.parametrize(("until", "exact"), [(20, True), (300, True), (900, True), (3_000, False)])
def test_a_pool_that_is_given_what_another_knew_goes_on_where_that_was(until: int, exact: bool) -> None:
    """Also in the middle of a change; what lies farther back than is kept moves the moment of an alarm, not
    whether it comes.
    """
    rng = np.random.default_rng(0)
    values = np.r_[
        rng.normal(10, 1, until), rng.normal(10, 1, 100) + np.arange(100) / 15, rng.normal(20, 1, 200)
    ]
    one, said = pooled.PooledDrift("residual"), ([], [])
    for at, value in enumerate(values):
        if at == until + 10:
            other = pooled.PooledDrift("residual", one.known())
            assert np.array_equal(other.known(), one.known())
            assert len(one.known()) <= pooled.POOL_REFERENCE_VALUES + pooled.POOL_KEPT_VALUES
        for pool, names in zip((one, other) if at >= until + 10 else (one,), said, strict=False):
            names.extend((at, name) for name in pool.update(np.array([value]), 1))
    assert not exact or said[0] == said[1]
    assert {name for _, name in said[0]} == {name for _, name in said[1]}
    assert said[1] or until == 20


def test_the_cool_down_and_what_is_known_of_other_slots_come_back() -> None:
    live, kept = scorer(STREAM), []
    sink = DriftSink(live, 10**9, lambda evidence: None, lambda partition, state: kept.append(state()))
    for records in batches(sensors(3, 8)):
        sink.append(live.process([records]))
    sink._monitor.quiet_until = 77
    sink.close()
    other = scorer(STREAM)
    again = DriftSink(other, 10**9, lambda evidence: None, kept=kept)
    assert again._monitor.quiet_until == 77
    assert len(again._monitor.pooled()["residual"]) > 5
    assert all(
        np.array_equal(values, sink._monitor.pooled()[kind])
        for kind, values in again._monitor.pooled().items()
    )
    (first,) = batches(sensors(3, 1)[::-1, :6] * 0 + 50)
    lines = [line.replace(b"s0", b"new") for line in first.values[::-1]]  # other slots, a series that is new
    first.values[:] = lines
    again.append(other.process([first]))
    slots = {name: slot for slot, name in enumerate(other.names())}
    before = sink._monitor._state["profile"]
    assert set(slots) == {"s1", "s2", "new"}
    for name in ("s1", "s2"):
        old = next(slot for slot, known in enumerate(live.names()) if known == name)
        later = again._monitor._state["profile"][slots[name]]
        assert (later[:, PROFILE_DAYS] >= before[old][:, PROFILE_DAYS]).all()
        assert before[old][:, PROFILE_DAYS].any()
    assert again._monitor._state["profile"][slots["new"]][:, PROFILE_DAYS].sum() <= 1
