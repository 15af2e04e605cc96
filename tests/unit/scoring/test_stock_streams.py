"""Prices that cannot be, splits, and prices in the wrong unit."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import pandas as pd
import pytest

from forewatch import Config, detect

ROWS, BAD = 900, 700


def prices(seed: int = 0, move: float = 1e-3) -> np.ndarray:
    return 100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(size=ROWS) * move))


def bars(price: np.ndarray, volume: np.ndarray | None = None, every: str = "1min") -> pd.DataFrame:
    frame = pd.DataFrame({"close": price}, index=pd.date_range("2026-03-02", periods=len(price), freq=every))
    return frame if volume is None else frame.assign(volume=volume)


def volumes(seed: int = 1) -> np.ndarray:
    return np.round(np.exp(np.random.default_rng(seed).normal(9, 0.3, ROWS)))


def verdicts(frame: pd.DataFrame, **keys) -> pd.DataFrame:
    return detect(frame, preset="stock", **({"detector": "light"} | keys)).reset_index(drop=True)


@pytest.mark.parametrize("decision", ["usual_range", "surprise"])
@pytest.mark.parametrize("detector", ["light", "standard"])
@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_price_that_cannot_be_is_an_anomaly(bad, detector, decision):
    price = prices()
    price[BAD] = bad
    found = verdicts(bars(price), detector=detector, decision=decision)
    assert found.flag[BAD]
    assert found.cause[BAD] == "impossible_value"
    assert not found.flag[BAD + 1 : BAD + 20].any()


def test_the_first_price_can_be_impossible():
    price = prices()
    price[0] = 0
    assert verdicts(bars(price), decision="usual_range").cause[0] == "impossible_value"


def test_a_volume_of_0_is_no_anomaly_and_a_negative_one_is():
    volume = volumes()
    volume[BAD], volume[BAD + 50] = 0, -5
    found = verdicts(bars(prices(), volume), decision="usual_range")
    assert found.cause[BAD] != "impossible_value"
    assert found.cause[BAD + 50] == "impossible_value"
    assert found.statement[BAD + 50].startswith("volume was −5")


def test_all_prices_of_a_bar_are_prices():
    price = prices()
    frame = bars(price).assign(open=price, high=price * 1.001, low=price * 0.999)
    frame.iloc[BAD, frame.columns.get_loc("low")] = 0
    found = verdicts(frame, decision="usual_range")
    assert found.statement[BAD].startswith("low was 0")


@pytest.mark.parametrize("ratio", [2.0, 4.0, 10.0, 0.1])
def test_a_split_is_recognised_by_price_and_volume(ratio):
    price, volume = prices(), volumes()
    price[BAD:] /= ratio
    volume[BAD:] *= ratio
    assert not verdicts(bars(price, volume), decision="usual_range").flag[BAD - 5 : BAD + 5].any()


@pytest.mark.parametrize("grown", [1.0, 40.0], ids=["wrong price", "fall"])
def test_a_quarter_of_a_price_without_its_volume_is_an_anomaly(grown):
    price, volume = prices(), volumes()
    price[BAD:] /= 4
    volume[BAD:] *= grown
    found = verdicts(bars(price, volume), decision="usual_range")
    assert found.flag[BAD]


def test_a_split_without_volume_is_recognised_by_its_ratio():
    price = prices()
    price[BAD:] /= 2
    assert not verdicts(bars(price), decision="usual_range").flag[BAD - 5 : BAD + 5].any()


@pytest.mark.parametrize("factor", [100.0, 0.01])
@pytest.mark.parametrize("tickers", [1, 8])
def test_prices_in_the_wrong_unit_are_told_as_they_are(tickers, factor):
    frames = []
    for ticker in range(8):
        price = prices(ticker)
        if ticker < tickers:
            price[BAD] *= factor
        frames.append(bars(price).assign(ticker=f"t{ticker}"))
    frame = pd.concat(frames)
    found = verdicts(frame, series="ticker", values="close", decision="usual_range")
    found["ticker"], found["close"] = frame.ticker.to_numpy(), frame.close.to_numpy()
    for ticker, rows in found.groupby("ticker"):
        bad = rows.iloc[BAD]
        assert bad.flag == (int(ticker[1:]) < tickers)
        if bad.flag:
            assert bad["observed:close"] == pytest.approx(bad.close, rel=1e-6)
            assert (bad.severity, bad.direction) == ("critical", "up" if factor > 1 else "down")
            assert bad.lower < bad.expected < bad.upper


def test_the_way_back_from_a_wrong_price_is_not_its_peak():
    from pipeline.core.types import Severity
    from tests.support.frames import anomalies_of

    price = prices()
    price[BAD] = 100 * price[BAD - 1] * 1.03
    (anomaly,) = [
        one
        for one in anomalies_of(bars(price), preset="stock", detector="light", decision="surprise")
        if one.severity is not Severity.INFO
    ]
    assert anomaly.observed[0] == pytest.approx(price[BAD])
    assert anomaly.direction == "up"


def test_trainings_read_enough_daily_bars():
    stream = {"source": {"files": {"paths": ["x"]}}, "format": {"csv": {"time": "t", "values": ["v"]}}}
    config = Config.model_validate({"streams": {"s": {**stream, "every": "1d"}, "m": stream}})
    assert config.streams["s"].training_history == timedelta(days=700) == config.retention.keep_history
    assert config.streams["m"].training_history == timedelta(days=30)
    given = {"streams": {"s": {**stream, "every": "1d", "retraining": {"history": "90d"}}}}
    assert Config.model_validate(given).streams["s"].training_history == timedelta(days=90)
