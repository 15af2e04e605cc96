"""Training data: the same rows by every way, and nothing of an incident in them."""

from __future__ import annotations

import json
from dataclasses import fields
from functools import partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors import build
from detectors.base import DetectorSpec
from pipeline.config.schema import Config
from pipeline.core.errors import InputError, SourceError
from pipeline.jobs import tasks
from pipeline.models.champion import detector_spec
from pipeline.sources import make_source
from pipeline.sources.kafka.offset_range import RangeSource
from pipeline.sources.memory import MemoryLog, MemorySource
from pipeline.training import quarantine as judging
from pipeline.training.dataset import from_files, from_history, from_source, join_history
from pipeline.training.quarantine import ExclusionReason, ReviewLabel, SeriesRows, quarantine
from tests.faults.feed import config_tree, make_log
from tests.support.engines import Bench
from tests.support.retraining import DAY, STEP, lived, sensors
from tests.support.trainings import BEGIN, MINUTE, config_of, tide, write_history

LIGHT = DetectorSpec(tier="light", channels=("v",))


def rows_of(x: np.ndarray, flagged: np.ndarray | None = None) -> SeriesRows:
    series, rows = x.shape
    time = np.tile(np.arange(rows) * STEP, series).astype(np.int64)
    flags = np.zeros(x.size, bool) if flagged is None else flagged.reshape(-1)
    return SeriesRows(
        [f"s{i}" for i in range(series)], np.arange(series + 1) * rows, time, x.reshape(-1, 1), flags
    )


def flags(x: np.ndarray, series: int, rows: slice) -> np.ndarray:
    found = np.zeros(x.shape, bool)
    found[series, rows] = True
    return found


def test_history_files_and_log_give_the_same_rows(tmp_path, sqlite_template) -> None:
    log = make_log(0, 300)
    bench = Bench(tmp_path, sqlite_template, [log], lateness="0s")
    bench.fill()
    try:
        bench.drain(bench.engine(history=True)).close()
        bench.open.clear()
    finally:
        bench.close()
    stream = bench.config.streams["plant"]
    kept = from_history(str(tmp_path / "history"), "plant", stream.channels)
    source = RangeSource(MemorySource(bench.log, "other"), None, None)
    read = from_source("plant", stream, build(detector_spec(stream)), source)
    path = tmp_path / "log.csv"
    good = [
        json.loads(value)
        for value, kind in zip(log.values, log.kinds, strict=True)
        if kind != "dead_lettered"
    ]
    path.write_text("s,t,v\n" + "".join(f"{r['s']},{r['t']},{r['v']}\n" for r in good))
    files = {"files": {"paths": [str(path)]}}
    tree = config_tree(
        "sqlite://", files, lateness="0s", format={"csv": {"series": "s", "time": "t", "values": ["v"]}}
    )
    csv = Config.model_validate(tree).streams["plant"]
    filed = from_source("plant", csv, build(detector_spec(csv)), make_source("plant", csv.source, csv.format))
    assert len(kept) > 1000
    assert kept.flagged.any()
    for other in (read, filed):
        assert other.series == kept.series
        for name in ("first", "time", "values", "missed", "every", "flagged", "allowed"):
            np.testing.assert_array_equal(getattr(other, name), getattr(kept, name), name)


def test_a_log_that_does_not_decode_is_an_error_that_names_the_partition() -> None:
    log = MemoryLog("plant", 1)
    log.extend([b"nonsense"] * 600)
    stream = Config.model_validate(config_tree("sqlite://", {"memory": {"name": "plant"}})).streams["plant"]
    with pytest.raises(
        SourceError, match=r"plant\[0\]: too many records cannot be decoded \(last: offset \d+, "
    ):
        from_source("plant", stream, build(LIGHT), RangeSource(MemorySource(log), None, None))


def test_a_stream_without_a_history_has_no_rows(tmp_path) -> None:
    data = from_history(str(tmp_path / "nothing"), "plant", ["v"])
    assert (len(data), data.series, data.excluded) == (0, [], [])


def test_flagged_points_are_left_out_with_a_day_of_what_they_left_behind() -> None:
    x = sensors(2, 14, shift_day=10)
    allowed, excluded = quarantine(rows_of(x, flags(x, 0, slice(10 * DAY, 10 * DAY + 5))), [])
    assert not allowed[10 * DAY : 11 * DAY + 4].any()
    assert allowed[: 10 * DAY].all()
    # no label within a day; the other series is not affected
    assert allowed[11 * DAY + 6 :].all()
    (one,) = excluded
    assert (one.series, one.reason, one.by, one.start_ns) == (
        "s0",
        ExclusionReason.FLAGGED,
        "detector",
        10 * DAY * STEP,
    )
    assert one.points == (~allowed).sum()


def test_a_shift_labelled_true_is_left_out_until_it_is_over() -> None:
    x = sensors(2, 20)
    x[0, 10 * DAY : 13 * DAY] += 25.0
    label = ReviewLabel("s0", 10 * DAY * STEP, (10 * DAY + 5) * STEP, ExclusionReason.ANOMALY, "ann")
    allowed, (one,) = quarantine(rows_of(x, flags(x, 0, slice(10 * DAY, 10 * DAY + 5))), [label])
    assert not allowed[10 * DAY : 13 * DAY].any()
    assert allowed[14 * DAY + 6 : 20 * DAY].all()  # day by day: at most one day too many
    assert (one.reason, one.by) == (ExclusionReason.ANOMALY, "ann")


def test_a_shift_labelled_false_goes_back_in_with_its_aftermath() -> None:
    x = sensors(1, 14, shift_day=10)
    flagged = flags(x, 0, slice(10 * DAY, 10 * DAY + 5)) | flags(x, 0, slice(11 * DAY, 11 * DAY + 3))
    label = ReviewLabel("s0", 10 * DAY * STEP, (10 * DAY + 4) * STEP, ExclusionReason.NORMAL, "bob")
    allowed, excluded = quarantine(rows_of(x, flagged), [label])
    assert allowed.all()
    assert excluded == []


def test_a_spike_leaves_nothing_behind() -> None:
    x = sensors(1, 14)
    x[0, 10 * DAY] += 60.0
    allowed, _ = quarantine(rows_of(x, flags(x, 0, slice(10 * DAY, 10 * DAY + 1))), [])
    np.testing.assert_array_equal(np.flatnonzero(~allowed), [10 * DAY])


@pytest.mark.filterwarnings("error")
def test_a_channel_that_is_missing_after_a_stretch_says_nothing_of_its_end() -> None:
    values = sensors(2, 14).T.copy()
    values[10 * DAY :, 1] = np.nan
    time = np.arange(len(values), dtype=np.int64) * STEP
    assert judging.aftermath(time, values, values, 10 * DAY, 10 * DAY + 5, int(time[-1])) == 10 * DAY + 5


def test_a_range_that_somebody_took_out_stays_out_whatever_the_labels_say() -> None:
    x = sensors(3, 4)
    everything = ReviewLabel(None, DAY * STEP, 2 * DAY * STEP - 1, ExclusionReason.EXCLUDED, "carol")
    normal = ReviewLabel("s1", DAY * STEP, 2 * DAY * STEP - 1, ExclusionReason.NORMAL, "bob")
    allowed, excluded = quarantine(rows_of(x), [everything, normal])
    out = ~allowed.reshape(x.shape)
    assert out[:, DAY : 2 * DAY].all()
    assert out.sum() == 3 * DAY
    assert [(one.series, one.points, one.by) for one in excluded] == [
        (f"s{i}", DAY, "carol") for i in range(3)
    ]


def test_maintenance_ends_when_it_was_said_to_end() -> None:
    x = sensors(1, 14, shift_day=10)
    label = ReviewLabel("s0", 10 * DAY * STEP, (10 * DAY + 9) * STEP, ExclusionReason.MAINTENANCE, "dan")
    allowed, (one,) = quarantine(rows_of(x), [label])
    assert (one.reason, one.points) == (ExclusionReason.MAINTENANCE, 10)
    assert (~allowed).sum() == 10


def test_a_ruling_on_a_series_or_a_time_that_is_not_there_changes_nothing() -> None:
    x = sensors(1, 2)
    review_labels = [
        ReviewLabel("gone", 0, STEP, ExclusionReason.ANOMALY, "ann"),
        ReviewLabel("s0", 900 * DAY * STEP, 901 * DAY * STEP, ExclusionReason.EXCLUDED, "ann"),
    ]
    allowed, excluded = quarantine(rows_of(x), review_labels)
    assert allowed.all()
    assert excluded == []


@settings(max_examples=40)
@given(st.data())
def test_what_is_left_out_adds_up(draw: st.DataObject) -> None:
    lengths = draw.draw(st.lists(st.integers(0, 60), min_size=1, max_size=5))
    total = sum(lengths)
    time = np.concatenate([np.empty(0, np.int64), *[np.arange(n) * STEP for n in lengths]]).astype(np.int64)
    flagged = np.array(draw.draw(st.lists(st.booleans(), min_size=total, max_size=total)), bool)
    first = np.r_[0, np.cumsum(lengths)].astype(np.int64)
    rows = SeriesRows([f"s{i}" for i in range(len(lengths))], first, time, np.ones((total, 1)), flagged)
    places = st.sampled_from([None, *rows.series])
    label = st.builds(
        ReviewLabel,
        places,
        st.integers(0, 30 * STEP),
        st.integers(30 * STEP, 60 * STEP),
        st.sampled_from(ExclusionReason),
        st.just("x"),
    )
    review_labels = draw.draw(st.lists(label, max_size=4))
    allowed, excluded = quarantine(rows, review_labels)
    assert sum(one.points for one in excluded) == (~allowed).sum()
    assert all(one.start_ns <= one.end_ns and one.points > 0 for one in excluded)
    if not any(label.reason is ExclusionReason.NORMAL for label in review_labels):
        assert not allowed[flagged].any()


def test_of_too_many_rows_the_newest_are_read_evenly_over_the_series(tmp_path) -> None:
    """Two segments; the shorter series keeps all that it has, the others share the rest, and what was not
    read is counted.
    """
    config = config_of("sqlite:///unused", tmp_path, detector="light")
    first = {"a": tide(300, 1), "b": tide(40, 2), "c": tide(300, 3)}
    write_history(config, first)
    write_history(
        config, {"a": tide(30, 4), "c": tide(100, 5)}, begin=BEGIN + 300 * MINUTE, offset=640, epoch=2
    )
    read = partial(from_history, str(tmp_path / "history"), "plant", ["temperature"])
    whole, few = read(), read(most_rows=240)
    assert (len(whole), whole.unread) == (770, 0)
    assert np.diff(few.first).tolist() == [100, 40, 100]
    assert (len(few), few.unread) == (240, 530)
    for place, (begin, end) in enumerate(pairwise(few.first.tolist())):
        last = int(whole.first[place + 1])
        np.testing.assert_array_equal(few.time[begin:end], whole.time[last - (end - begin) : last])
        np.testing.assert_array_equal(few.values[begin:end], whole.values[last - (end - begin) : last])
    assert len(read(most_rows=770)) == 770
    assert len(read(most_rows=1)) == 3, "one of each at the least"
    assert read(most_rows=50, since_ns=BEGIN + 300 * MINUTE).unread == 80


def test_the_newest_points_of_each_series_and_a_choice_of_series(tmp_path) -> None:
    detector = build(LIGHT)
    whole = lived(tmp_path, detector, sensors(3, 4))
    few = from_history(str(tmp_path), "plant", ["v"], most_points=100)
    assert np.diff(few.first).tolist() == [100] * 3
    np.testing.assert_array_equal(few.values[100:200], whole.values[2 * 4 * DAY - 100 : 2 * 4 * DAY])
    one = whole.only([1])
    assert one.series == ["s1"]
    np.testing.assert_array_equal(one.values, whole.values[4 * DAY : 8 * DAY])
    np.testing.assert_array_equal(one.owner, np.zeros(4 * DAY))
    assert whole.tail(0.25).reshape(3, -1)[:, 3 * DAY :].all()
    assert whole.tail(0.25).sum() == 3 * DAY


def test_points_in_quarantine_are_missing_to_a_detector_that_learns(tmp_path) -> None:
    label = ReviewLabel("s0", 0, DAY * STEP - 1, ExclusionReason.EXCLUDED, "ann")
    data = lived(tmp_path, build(LIGHT), sensors(2, 3), [label])
    points = data.points(clean=True)
    assert np.isnan(points.values[:DAY]).all()
    assert not np.isnan(data.points(clean=False).values).any()
    assert {f.name for f in fields(points)} == {"slot", "time", "values", "missed", "every"}


def test_files_stand_for_what_is_older_than_the_history(tmp_path) -> None:
    tree = config_tree("sqlite://", {"memory": {}}, lateness="0s", every="10m", limits={}, future=None)
    stream = Config.model_validate(tree).streams["plant"]
    x = sensors(3, 6)
    rows = [(f"s{i}", t, x[i, t]) for i in range(1, 3) for t in range(4 * DAY)]
    folder = tmp_path / "past"
    folder.mkdir()
    (folder / "a.csv").write_text(
        "s,t,v\n"
        + "".join(f"{name},{t * 600_000 + 1_750_000_000_000},{float(value)!r}\n" for name, t, value in rows)
    )
    past = from_files("plant", stream, folder, build(LIGHT))
    assert past.series == ["s1", "s2"]
    recent = lived(tmp_path / "history", build(LIGHT), x[:2, 3 * DAY :])  # s0 and s1
    recent.time = recent.time + 3 * DAY * STEP + 1_750_000_000 * 10**9
    both = join_history(past, recent)
    assert both.series == ["s0", "s1", "s2"]
    assert np.diff(both.first).tolist() == [3 * DAY, 6 * DAY, 4 * DAY]
    np.testing.assert_array_equal(both.values[both.owner == 1, 0], x[1])
    assert (np.diff(both.time)[np.diff(both.owner) == 0] == STEP).all()
    alone = join_history(past, from_history(str(tmp_path / "nothing"), "plant", ["v"]))
    np.testing.assert_array_equal(alone.values, past.values)
    named = stream.model_copy(update={"warm_start": folder})
    data, (since_ns, until_ns) = tasks._load_data(
        tasks.Task(1, 1, "train", "plant", named, str(tmp_path / "nothing"), "", None, None, (), {})
    )
    np.testing.assert_array_equal(data.values, past.values)
    assert (since_ns, until_ns) == (past.time.min(), past.time.max())


def test_a_folder_without_files_is_an_error(tmp_path) -> None:
    stream = Config.model_validate(config_tree("sqlite://", {"memory": {}})).streams["plant"]
    with pytest.raises(InputError, match="holds no file"):
        from_files("plant", stream, tmp_path, build(LIGHT))


def test_python_runs_once_an_incident_however_many_series_there_are(monkeypatch) -> None:
    calls = []
    real = judging.aftermath
    monkeypatch.setattr(judging, "aftermath", lambda *given: calls.append(1) or real(*given))
    x = np.random.default_rng(0).normal(size=(10_000, 50))
    flagged = np.zeros(x.shape, bool)
    flagged[::100, 40] = True
    _, excluded = quarantine(rows_of(x, flagged), [])
    assert len(calls) == len(excluded) == 100
