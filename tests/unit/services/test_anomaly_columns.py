"""The columns of ``detect`` about anomalies under the decision "usual_range"."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from detectors import REGISTRY, build
from detectors.base import CAUSES, DetectorSpec, Points, State, Verdicts
from pipeline import detect

ROWS = 200


class FixedRange:
    """A detector whose usual range of every channel is 0 to 50 at all times."""

    states_usual_ranges = True

    def __init__(self, spec: DetectorSpec, weights: Any) -> None:
        self.spec = spec
        self._inner = build(replace(spec, tier="light", decision="surprise"), weights)
        self.version, self.state_version = self._inner.version, self._inner.state_version

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def step(self, state: State, points: Points) -> tuple[State, Verdicts]:
        state, verdicts = self._inner.step(state, points)
        ratio = np.abs(points.values - 25) / 25
        rows, lead = np.arange(len(points)), ratio.argmax(axis=1)
        verdicts.ratio = ratio[rows, lead].astype(np.float32)
        verdicts.channel = lead.astype(np.int16)
        verdicts.observed = points.values[rows, lead].astype(np.float32)
        verdicts.side = np.sign(verdicts.observed - 25).astype(np.int8)
        verdicts.usual_low[:], verdicts.usual_high[:] = 0, 50
        verdicts.flag = verdicts.ratio > 1
        verdicts.cause[:] = CAUSES.index("unusual_value")
        return state, verdicts


@pytest.fixture
def ranged(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setitem(REGISTRY, "ranged", FixedRange)
    return {"time": "ts", "series": "sensor", "detector": "ranged", "decision": "usual_range", "every": "1m"}


def readings() -> pd.DataFrame:
    ts = pd.date_range("2026-01-01", periods=ROWS, freq="1min")
    one = pd.DataFrame({"ts": ts, "sensor": "a", "x": 20.0, "y": 30.0})
    other = one.assign(sensor="b")
    one.loc[[100, 101, 104], "x"] = [60.0, 70.0, 55.0]
    one.loc[120, "y"] = -80.0
    return pd.concat([one, other], ignore_index=True).sample(frac=1, random_state=2)


def test_an_anomaly_has_a_name_and_its_numbers_on_its_rows(ranged: dict[str, Any]) -> None:
    frame = readings()
    found = detect(frame, values=["x", "y"], **ranged)
    rows = found.assign(ts=frame["ts"], sensor=frame["sensor"], x=frame["x"]).sort_values(["sensor", "ts"])
    minute = (rows["ts"] - pd.Timestamp("2026-01-01")) / pd.Timedelta("1min")
    named = rows["anomaly"].notna()
    assert minute[named].tolist() == [100, 101, 102, 103, 104, 120]
    assert set(rows["sensor"][named]) == {"a"}
    assert rows["anomaly"].nunique() == 2
    first, second = rows[minute == 103].iloc[0], rows[minute == 120].iloc[0]
    assert (first["direction"], first["observed:x"], first["lower:x"], first["upper:x"]) == ("up", 70, 0, 50)
    assert (first["expected:x"], first["contribution:x"], first["observed:y"]) == (25, 1, 30)
    assert (second["direction"], second["observed:y"], second["severity"]) == ("down", -80, "major")
    assert first["statement"] == "x was as high as 70, usual 0 to 50"
    assert not first["flag"]
    for _, anomaly in rows[named].groupby("anomaly"):
        assert anomaly["x"].sub(25).abs().max() == abs(anomaly.loc[anomaly["surprise"].idxmax(), "x"] - 25)
    assert rows["observed:x"].isna().equals(~named)


def test_one_channel_has_the_short_names(ranged: dict[str, Any]) -> None:
    found = detect(readings(), values=["x"], **ranged)
    named = found[found["anomaly"].notna()]
    assert len(named) == 5
    assert (named["observed:x"] == 70).all()
    assert (named["upper"] == 50).all()


def test_the_decision_by_surprise_has_no_such_columns() -> None:
    found = detect(
        readings(), values=["x"], time="ts", series="sensor", detector="light", decision="surprise"
    )
    assert not {"anomaly", "severity", "statement", "observed:x"} & set(found.columns)


def test_series_that_are_too_short_for_usual_ranges_are_named() -> None:
    rng = np.random.default_rng(4)
    rows = {"short": 120, "long": 700}
    frame = pd.concat(
        pd.DataFrame(
            {
                "ts": pd.date_range("2026-01-05", periods=n, freq="1min"),
                "sensor": name,
                "x": rng.normal(20, 1, n),
            }
        )
        for name, n in rows.items()
    )
    with pytest.warns(UserWarning, match=r"1 of 2 series are too short .* short \(120 rows\)\.") as warned:
        detect(frame, values=["x"], time="ts", series="sensor", detector="light")
    assert "decision='surprise'" in str(warned[0].message)
    assert warned[0].filename == __file__
