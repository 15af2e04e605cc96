"""Injected sets: the same seed gives the same faults, and each fault is what it says."""

from __future__ import annotations

from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest

from pipeline.core.errors import InputError
from pipeline.evaluate import inject
from pipeline.evaluate.layouts import find


@pytest.fixture
def quotes(tmp_path):
    rng = np.random.default_rng(1)
    for name in ("AAA", "BBB"):
        close = 50 * np.exp(np.cumsum(rng.normal(0, 0.01, 1000)))
        table = {
            "Date": pd.date_range("2013-01-01", periods=1000, freq="B").date,
            "Close": close,
            "Volume": rng.integers(1000, 2000, 1000),
        }
        (tmp_path / "quotes").mkdir(exist_ok=True)
        pd.DataFrame(table).to_csv(tmp_path / "quotes" / f"{name}.csv", index=False)
    return tmp_path / "quotes"


def test_stock_faults_are_seeded_and_leave_the_rest_of_the_returns_alone(quotes, tmp_path):
    inject.stocks(quotes, tmp_path / "x")
    inject.stocks(quotes, tmp_path / "y")
    assert (tmp_path / "x" / "AAA.csv").read_text() == (tmp_path / "y" / "AAA.csv").read_text()
    series = {entry.name: entry.read() for entry in find(tmp_path / "x", "labelled")}
    assert series["AAA"].windows.tolist() != series["BBB"].windows.tolist()
    for name, one in series.items():
        assert sorted(one.kinds) == sorted(inject.STOCK_FAULTS)
        assert one.warm_up == inject.STOCK_WARM_UP
        assert one.windows[:, 0].min() >= one.warm_up
        assert one.label.sum() == sum(last - first + 1 for first, last in one.windows)
        clean = pd.read_csv(quotes / f"{name}.csv")
        change = np.diff(np.log(one.values[:, 0])) - np.diff(np.log(clean["Close"]))
        # The return into the row after an event may differ too: a quote that was stuck catches up there.
        touched = {row for first, last in one.windows for row in range(first, last + 2)}
        assert set(np.flatnonzero(np.abs(change) > 1e-9) + 1) <= touched


@pytest.mark.parametrize(("kind", "check"), [
    ("spike", lambda old, new, at: new[at, 0] != old[at, 0] and new[at + 1, 0] == old[at + 1, 0]),
    ("level_shift", lambda old, new, at: np.ptp(np.log(new[at:, 0] / old[at:, 0])) < 1e-12 and new[at, 0] != old[at, 0]),
    ("volatility_burst", lambda old, new, at: np.std(np.diff(np.log(new[at - 1 : at + 10, 0]))) > 3.5 * np.std(np.diff(np.log(old[at - 1 : at + 10, 0])))),
    ("stuck_quote", lambda old, new, at: (new[at : at + 8] == old[at - 1]).all()),
    ("volume_burst", lambda old, new, at: (new[at : at + 2, 1] == 10 * old[at : at + 2, 1]).all() and (new[:, 0] == old[:, 0]).all()),
])  # fmt: skip
def test_each_stock_fault(kind, check):
    rng = np.random.default_rng(2)
    old = np.stack([50 * np.exp(np.cumsum(rng.normal(0, 0.01, 200))), rng.uniform(1000, 2000, 200)], axis=1)
    new = old.copy()
    rows = inject.STOCK_FAULTS[kind](new, 100, rng)
    assert rows >= 1
    assert (new[:100] == old[:100]).all()
    assert check(old, new, 100)


@pytest.mark.parametrize("kind", inject.SENSOR_FAULTS)
def test_each_sensor_fault_touches_one_channel_within_its_rows(kind):
    rng = np.random.default_rng(3)
    old = rng.normal(10, 1, (600, 3))
    new = old.copy()
    rows = inject.SENSOR_FAULTS[kind](new, 300, rng)
    changed, channels = np.nonzero(new != old)
    assert len(set(channels)) == 1
    assert changed.min() >= 300
    assert changed.max() < 300 + rows


def test_flows_are_summed_on_a_grid_and_labelled_by_the_bad_events(tmp_path):
    source = tmp_path / "flows"
    source.mkdir()
    start = pd.Timestamp("2023-03-10 10:00:00")
    seconds = [0, 1, 11, 35, 39]
    record = {"sPackets": 1, "rPackets": 2, "sBytesSum": 100, "rBytesSum": 50}
    rows = [
        {"startDate": start + pd.Timedelta(seconds=s), "rAddress": f"host{s % 2}", **record} for s in seconds
    ]
    with ZipFile(source / "westermo_flows_left.zip", "w") as archive:
        archive.writestr("output_left.csv", pd.DataFrame(rows).to_csv(index=False))
    epoch = start.timestamp()
    (source / "westermo_events.txt").write_text(
        f"[{epoch + 12:.3f} -- x -- 0] [BAD-SSH-START] y\n[{epoch + 15:.3f} -- x -- 0] [GOOD-SSH-START] y\n[{epoch + 31:.3f} -- x -- 0] [BAD-SSH-END] y\n"
    )
    inject.flows(source, tmp_path / "out")
    (series,) = [entry.read() for entry in find(tmp_path / "out", "labelled")]
    assert series.channels == ("flows", "packets", "bytes", "peers")
    assert series.values.tolist() == [[2, 6, 300, 2], [1, 3, 150, 1], [0, 0, 0, 0], [2, 6, 300, 1]]
    assert series.kinds == ("ssh",)
    assert series.windows.tolist() == [[1, 3]]


def test_a_source_without_files_is_named(tmp_path):
    with pytest.raises(InputError, match="no file"):
        inject.stocks(tmp_path, tmp_path / "out")
    (tmp_path / "X.csv").write_text("Date,Close\n2013-01-01,1\n")
    with pytest.raises(InputError, match="no column Volume"):
        inject.stocks(tmp_path, tmp_path / "out")
