"""The stateful detector, frames of other libraries, and the plot."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from forewatch import Detector, InputError, detect, plot

ROWS, BAD = 600, 500


def frame(series: str = "a") -> pd.DataFrame:
    rng = np.random.default_rng(ord(series))
    times = pd.date_range("2026-03-02", periods=ROWS, freq="1min", tz="UTC")
    values = 20 + rng.normal(0, 0.5, ROWS)
    values[BAD] = 60
    return pd.DataFrame({"ts": times, "temp": values, "room": series})


def both() -> pd.DataFrame:
    return pd.concat([frame("a"), frame("b")]).sort_values("ts", kind="stable").reset_index(drop=True)


OPTIONS = {"time": "ts", "series": "room", "detector": "light"}


def test_rows_one_by_one_get_the_verdicts_of_the_whole_frame():
    rows = both().iloc[-260:]
    online = Detector(["temp"], **OPTIONS)
    online.learn_many(both().iloc[:-260])
    scores = []
    for row in rows.to_dict("records"):
        scores.append(online.score_one(row))
        online.learn_one(row)
    whole = detect(both(), values=["temp"], **OPTIONS)["score"].iloc[-260:]
    np.testing.assert_allclose(scores, whole, atol=1e-3)


def test_scoring_leaves_the_state_as_it_is():
    online = Detector(["temp"], **OPTIONS).fit(both()[: 2 * BAD])
    bad = {"ts": frame().ts[BAD], "temp": 60.0, "room": "a"}
    first = online.verdict_one(bad)
    assert first == pytest.approx(online.verdict_one(bad)) or first["cause"] != "none"
    assert first["flag"]
    assert online.score_one(bad) > 0.999
    assert online.score_one({**bad, "temp": 20.0}) < 0.99


def test_arrays_without_times_as_in_scikit_learn():
    X = np.random.default_rng(0).normal(size=(500, 2))
    detector = Detector(detector="light").fit(X)
    ahead = np.vstack([X[:5], [[40, 40]], X[5:10]])
    assert detector.predict(ahead).tolist().count(-1) >= 1
    assert detector.score_samples(ahead).argmin() == 5
    assert (Detector(detector="light").fit_predict(X) == 1).mean() > 0.98


def test_parameters_can_be_read_and_set():
    detector = Detector(["temp"], **OPTIONS)
    assert Detector(**detector.get_params()).get_params() == detector.get_params()
    assert detector.set_params(time=None).time is None


def test_a_saved_detector_goes_on(tmp_path):
    online = Detector(["temp"], **OPTIONS).fit(both()[: 2 * BAD])
    online.save(tmp_path / "detector.zip")
    rows = both()[2 * BAD :]
    again = Detector.load(tmp_path / "detector.zip")
    np.testing.assert_array_equal(online.score_samples(rows), again.score_samples(rows))
    assert b"pickle" not in (tmp_path / "detector.zip").read_bytes()


@pytest.mark.parametrize("content", [b"", b"PK nothing", None])
def test_a_file_that_is_no_detector(tmp_path, content):
    path = tmp_path / "x.zip"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read"):
        Detector.load(path)


def test_what_is_refused():
    with pytest.raises(InputError, match="lateness would hold rows back"):
        Detector(lateness="5s")
    with pytest.raises(InputError, match="nothing to save"):
        Detector().save("x")
    with pytest.raises(InputError, match="no frame of pandas"):
        detect({"a": [1]})
    with pytest.raises(InputError, match="preset"):
        Detector(["temp"], time="ts", preset="weather").learn_many(frame())


def test_frames_of_polars_and_arrow():
    pl = pytest.importorskip("polars")
    expected = detect(both(), values=["temp"], **OPTIONS)
    as_polars = detect(pl.from_pandas(both()), values=["temp"], **OPTIONS)
    assert isinstance(as_polars, pl.DataFrame)
    np.testing.assert_array_equal(as_polars["flag"].to_numpy(), expected["flag"])
    as_arrow = detect(pa.Table.from_pandas(both()), values=["temp"], **OPTIONS)
    assert isinstance(as_arrow, pa.Table)
    assert as_arrow.column("cause").to_pylist() == expected["cause"].tolist()
    with pytest.raises(InputError, match="collect"):
        detect(pl.from_pandas(both()).lazy(), values=["temp"], **OPTIONS)


def test_the_plot_shows_each_series(tmp_path):
    rows = both()
    figure = plot(rows, detect(rows, values=["temp"], **OPTIONS), time="ts", values="temp", series="room")
    assert [axis.get_title(loc="left") for axis in figure.axes] == ["a temp", "b temp"]
    reds = [len(axis.collections[1].get_offsets()) for axis in figure.axes]
    assert min(reds) >= 1
    figure.savefig(tmp_path / "x.png")
    with pytest.raises(InputError, match="do not belong"):
        plot(rows, rows[:3])
    with pytest.raises(InputError, match=r"plot\(frame, detect\(frame"):
        plot(rows, rows, values="temp")
    with pytest.raises(InputError, match="plot: Series is no frame"):
        plot(rows, rows["temp"])
