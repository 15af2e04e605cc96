"""Curves of the quantities that a sentence speaks of, in pictures."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.alerts.messages.chart_quantity import (
    HOUR_NS,
    quantity_of,
    running_extreme,
    running_mean,
    running_repeats,
    running_trend,
)
from pipeline.alerts.messages.text import leading
from pipeline.core.usual_range_text import MEAN_READINGS, TREND_READINGS
from tests.unit.alerts.test_message_of_the_end import alert_about
from tests.unit.alerts.test_usual_range_text import MINUTE_NS, anomaly

TIMES = (np.arange(200) + 1) * MINUTE_NS


def columns(values: NDArray[Any], **others: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the columns of a picture."""
    same = dict.fromkeys(("value", "expected", "lower", "upper"), values)
    return {"time": TIMES, "flag": np.arange(200) >= 190} | same | others


def test_a_mean_follows_as_slowly_as_that_of_the_detector():
    steps = running_mean(np.r_[np.zeros(20), np.ones(8)])
    assert steps[19] == 0
    assert steps[20] == pytest.approx(1 / MEAN_READINGS)
    with_gaps = np.r_[np.nan, np.full(MEAN_READINGS, 4.0), np.nan]
    assert running_mean(with_gaps)[-2:].tolist() == [4.0, 4.0]
    assert np.isnan(running_mean(with_gaps)[:-2]).all()  # one reading is no mean


def test_a_trend_is_summed_as_by_the_detector():
    sums = running_trend(np.r_[np.full(400, 0.01), np.nan])
    assert sums[399] == pytest.approx(0.01 * TREND_READINGS, rel=0.01)
    assert sums[400] == pytest.approx(sums[399] * (1 - 1 / TREND_READINGS))
    # A jump back ends a trend, and its rest begins another one, as far as it is cut.
    steps = np.array([0.01, 0.01, -0.5])
    left = 0.5 - (0.01 * (1 - 1 / TREND_READINGS) + 0.01) * (1 - 1 / TREND_READINGS)
    assert running_trend(steps)[-1] == pytest.approx(-left)
    assert running_trend(steps, 0.02)[-1] == pytest.approx(-0.02)


def test_the_trend_is_cut_so_that_it_meets_the_stated_number():
    steps = np.random.default_rng(2).normal(0, 0.001, 200)
    steps[170:190] = 0.004
    steps[190] = -0.3  # a jump back, which the detector counts as far as it is usual
    detector = np.expm1(running_trend(steps, 0.0045))
    one = replace(anomaly("trend", float(detector[189]), -0.02, 0.01), relative=True, peak_ns=int(TIMES[189]))
    view = alert_about(replace(one, start_ns=int(TIMES[175]), end_ns=int(TIMES[189]))).anomalies[0]
    points = columns(80 * np.exp(np.cumsum(steps)))
    points["value"][0] = 80
    found = quantity_of(view, leading(view), points)
    assert found is not None
    assert found.values[189] / 100 == pytest.approx(detector[189], rel=0.02)
    assert found.values[199] / 100 == pytest.approx(detector[199], abs=0.01)


def test_the_mean_of_counts_is_drawn_as_the_detector_averages_it():
    values = np.r_[np.full(190, 4e6), np.zeros(10)]
    of_logarithms = np.expm1(running_mean(np.log1p(values)))
    view = alert_about(replace(anomaly("unusual_level", 621, 1_937, 9e6), peak_ns=int(TIMES[196]))).anomalies[
        0
    ]
    for stated, drawn in ((of_logarithms, of_logarithms), (running_mean(values), running_mean(values))):
        top = msgspec.structs.replace(leading(view), observed=float(stated[196]))
        found = quantity_of(view, top, columns(values))
        assert found is not None
        np.testing.assert_allclose(found.values, drawn)


def test_repeats_and_extremes():
    assert running_repeats(np.array([5.0, 5, 5, 6, 6])).tolist() == [0, 1, 2, 0, 1]
    hours = np.arange(5) * HOUR_NS
    highest = running_extreme(hours, np.array([9.0, 1, 2, 3, 1]), highest=True)
    assert highest.tolist() == [9, 9, 9, 3, 3]


@pytest.mark.parametrize(
    ("cause", "label", "of_values"),
    [
        ("unusual_level", "smoothed over about 8", True),
        ("absence", "highest of the last 3 hours", True),
        ("unusual_step", "change (1/min)", False),
        ("unusual_noise", "smoothed change (1/min)", False),
        ("trend", "drift (1/min)", False),
        ("flatline", "repeated readings", False),
    ],
)
def test_each_quantity_is_named_and_drawn(cause: str, label: str, of_values: bool):
    one = replace(anomaly(cause, 50, -12, 38), direction="down" if cause == "absence" else "up")
    view = alert_about(one).anomalies[0]
    top = msgspec.structs.replace(leading(view), unit="1/min")
    found = quantity_of(view, top, columns(np.sin(np.arange(200.0))))
    assert found is not None
    assert (found.label, found.of_values) == (label, of_values)
    assert len(found.values) == 200
    assert (-12 if cause == "absence" else 38) in found.ends


def test_the_value_itself_needs_no_further_curve():
    for cause, usual in (("unusual_value", "usual range of the value"), ("static_limit", "limit")):
        view = alert_about(anomaly(cause, 50, -12, 38)).anomalies[0]
        found = quantity_of(view, leading(view), columns(np.ones(200)))
        assert found is not None
        assert (found.label, found.usual, found.low, found.high) == ("", usual, -12, 38)


def test_only_the_end_that_is_told_is_drawn_of_an_absence():
    one = replace(anomaly("absence", 200, 900, 1460), direction="down")
    view = alert_about(one).anomalies[0]
    found = quantity_of(view, leading(view), columns(np.ones(200)))
    assert found is not None
    assert (found.low, found.high) == (900, None)


def test_an_end_that_the_sentence_leaves_out_is_not_drawn():
    view = alert_about(anomaly("unusual_value", 40, 500, 25e6)).anomalies[0]
    found = quantity_of(view, leading(view), columns(np.ones(200)))
    assert found is not None
    assert (found.low, found.high) == (500, None)


@pytest.mark.parametrize("logarithms", [False, True])
def test_the_range_of_a_forecast_lies_beside_the_forecast(logarithms: bool):
    forward, back = (np.log1p, np.expm1) if logarithms else (np.asarray, np.asarray)
    expected = np.linspace(50, 90, 200)
    low, high = (float(back(forward(np.array(70.0)) + one)) for one in (-0.6, 0.6))
    one = anomaly("forecast", 5, low, high)
    view = alert_about(replace(one, expected=[2.0, 70.0])).anomalies[0]
    found = quantity_of(view, leading(view), columns(np.full(200, 60.0), expected=expected))
    assert found is not None
    np.testing.assert_allclose(found.low, back(forward(expected) - 0.6), rtol=1e-9)
    np.testing.assert_allclose(found.high, back(forward(expected) + 0.6), rtol=1e-9)


@pytest.mark.parametrize("relative", [False, True])
def test_a_relation_shows_what_is_implied_and_the_mean_difference(relative: bool):
    rng = np.random.default_rng(3)
    values, off = 10 + rng.random(200), rng.normal(0, 0.1, 200).astype(np.float32)
    off[180:] = 1.5
    view = alert_about(replace(anomaly("relation", 1.4, -0.7, 0.733), relative=relative)).anomalies[0]
    found = quantity_of(view, leading(view), columns(values, relation=off))
    assert found is not None
    mean = running_mean(off.astype(np.float64), 4)
    assert (found.label, found.of_values) == (f"smoothed difference{' (%)' if relative else ''}", False)
    if relative:
        np.testing.assert_allclose(found.values, 100 * np.expm1(mean))
        np.testing.assert_allclose(found.implied, np.expm1(np.log1p(values) - off))
        assert found.high == pytest.approx(73.3)
    else:
        np.testing.assert_allclose(found.values, mean)
        np.testing.assert_allclose(found.implied, values - off)
        assert found.high == 0.733
    assert found.is_outside[185:].all()
    assert not found.is_outside[:180].any()


def test_rows_of_an_earlier_version_have_no_curve_of_a_relation():
    view = alert_about(anomaly("relation", 1.4, -0.7, 0.733)).anomalies[0]
    for points in (columns(np.ones(200)), columns(np.ones(200), relation=np.full(200, np.nan, np.float32))):
        assert quantity_of(view, leading(view), points) is None
