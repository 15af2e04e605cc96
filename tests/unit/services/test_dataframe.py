"""The detector on a frame: the daemon's verdicts, however the frame is sorted, and mistakes that are named."""

from __future__ import annotations

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest

from pipeline import detect
from pipeline.core.errors import InputError

ROWS = 600


def readings() -> pd.DataFrame:
    rng = np.random.default_rng(3)
    ts = pd.date_range("2026-01-01", periods=ROWS, freq="1min")
    frames = [
        pd.DataFrame({"ts": ts, "sensor": name, "temperature": 20 + rng.normal(0, 0.1, ROWS)})
        for name in ("a", "b")
    ]
    frames[1].loc[500, "temperature"] = 60.0
    return pd.concat(frames, ignore_index=True)


def verdicts_of(frame: pd.DataFrame, **options) -> pd.DataFrame:
    return detect(
        frame, **{"time": "ts", "values": ["temperature"], "series": "sensor", "detector": "light"} | options
    )


def test_the_spike_is_flagged_in_its_row():
    frame = readings()
    found = verdicts_of(frame)
    assert frame[found["flag"]][["sensor", "temperature"]].to_numpy().tolist() == [["b", 60.0]]
    assert found["upper"][ROWS + 500] < 60.0
    assert found["score"].notna().all()


@pytest.mark.parametrize("sort", ["time", "backwards", "shuffled"])
def test_the_order_of_the_rows_does_not_matter(sort):
    frame = readings()
    other = {
        "time": frame.sort_values("ts"),
        "backwards": frame[::-1],
        "shuffled": frame.sample(frac=1, random_state=1),
    }[sort]
    found = verdicts_of(other)
    assert found.index.equals(other.index)
    pd.testing.assert_frame_equal(found.sort_index(), verdicts_of(frame))


def test_rows_that_cannot_be_used_have_no_score():
    frame = readings()
    frame.loc[5, "ts"] = pd.NaT
    frame.loc[7, "temperature"] = np.inf
    found = verdicts_of(frame)
    assert np.flatnonzero(found["score"].isna()).tolist() == [5, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"time": "when"}, "no column when; it has ts, sensor, temperature"),
        ({"values": ["sensor"]}, "'sensor' is named as series and as value"),
        (
            {"values": ["sensor"], "series": None},
            "no row can be used; wrong_type: sensor is not a number, it is '[ab]'",
        ),
        ({"values": []}, "no numeric column"),
        ({"time": None}, "name the column of the event time"),
        ({"preset": "sensors"}, "preset: Input should be 'sensor', 'network' or 'stock'$"),
        ({"detector": "mine"}, "detector 'mine' is unknown"),
        ({"evry": "1m"}, "evry: Extra inputs"),
    ],
)
def test_mistakes_are_named(options, message):
    with pytest.raises(InputError, match=message):
        verdicts_of(readings(), **options)


@pytest.mark.parametrize(
    ("frame", "values", "message"),
    [
        (readings().rename(columns={"temperature": 7}), None, "the name of a column is 7; names are texts"),
        (readings().rename(columns={"temperature": 7}), 7, "the name of a column is 7; names are texts"),
        (
            readings().assign(t2=1.0).set_axis(["ts", "sensor", "v", "v"], axis=1),
            None,
            "columns are called v",
        ),
        (readings().astype({"temperature": complex}), "temperature", "neither number, text nor time"),
        (readings()["temperature"], None, "Series is no frame .* call to_frame"),
    ],
)
def test_frames_that_cannot_be_used_are_refused(frame, values, message):
    with pytest.raises(InputError, match=message):
        detect(frame, time="ts", series="sensor", values=values, detector="light")


def test_a_column_of_objects_with_a_word_among_its_numbers_is_refused():
    frame = readings().astype({"temperature": object})
    frame.loc[9, "temperature"] = "oops"
    with pytest.raises(InputError, match="neither number, text nor time: Could not convert 'oops'"):
        verdicts_of(frame)


def test_decimals_are_numbers():
    frame = readings()
    frame["temperature"] = [Decimal(f"{one:.3f}") for one in frame["temperature"]]
    found = verdicts_of(frame, values=None)
    assert np.flatnonzero(found["flag"]).tolist() == [ROWS + 500]


@pytest.mark.filterwarnings("ignore:Could not infer format")
def test_a_column_that_is_no_time_is_named():
    with pytest.raises(InputError, match="column sensor cannot be read as time"):
        verdicts_of(readings(), time="sensor", series=None)


def test_an_empty_frame_has_no_verdicts():
    assert len(verdicts_of(readings().head(0))) == 0


@pytest.mark.parametrize("unit", [1, 10**3, 10**6, 10**9])
def test_the_size_of_a_number_tells_the_unit_of_its_time(unit):
    rows = pd.DataFrame({"t": (1_700_000_000 + np.arange(50) * 60) * unit, "v": np.arange(50.0) % 3})
    dated = rows.assign(t=pd.to_datetime(1_700_000_000 + np.arange(50) * 60, unit="s", utc=True))
    of_number = detect(rows, time="t", values="v", detector="light")
    pd.testing.assert_frame_equal(of_number, detect(dated, time="t", values="v", detector="light"))


def test_a_number_that_is_no_time_is_refused():
    rows = pd.DataFrame({"t": np.arange(50), "v": np.arange(50.0)})
    with pytest.raises(InputError, match="no epoch after 1990"):
        detect(rows, time="t", values="v", detector="light")
