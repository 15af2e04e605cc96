"""What a picture draws: marks, ranges, dots, legends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from matplotlib.axes import Axes
from matplotlib.dates import date2num
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pipeline.alerts.messages.chart import ChartRenderer, figure_of
from pipeline.alerts.messages.chart_marks import CHARACTER_SHARE, Mark, marks_of, place
from pipeline.alerts.messages.chart_quantity import quantity_of
from pipeline.alerts.messages.payload import AnomalyView
from pipeline.alerts.messages.text import leading
from pipeline.core.types import Anomaly, AnomalyState
from pipeline.core.verdict_words import CAUSES_OF_CHANGES, CAUSES_OF_VALUES
from tests.unit.alerts.test_chart_quantity import TIMES, columns
from tests.unit.alerts.test_message_of_the_end import alert_about
from tests.unit.alerts.test_usual_range_text import MINUTE_NS, anomaly

CAUSES = sorted({"forecast", "flatline", "impossible_value", *CAUSES_OF_VALUES, *CAUSES_OF_CHANGES})


#: Those whose quantity is drawn among the values.
AMONG = ("forecast", *CAUSES_OF_VALUES)


def of_minutes(one: Anomaly, begin: int, alarm: int, end: int, **changes: Any) -> AnomalyView:
    """Return an anomaly that began, was an alarm and ended in these minutes."""
    spans = {"onset_ns": begin * MINUTE_NS, "start_ns": alarm * MINUTE_NS, "end_ns": (end + 7) * MINUTE_NS}
    spans |= {"outside_until_ns": end * MINUTE_NS, "peak_ns": alarm * MINUTE_NS}
    return alert_about(
        replace(one, **spans | {"state": AnomalyState.CLOSED} | changes), "resolved"
    ).anomalies[0]


def draw(view: AnomalyView, values: NDArray[Any], **others: NDArray[Any]) -> Figure:
    return figure_of(view, columns(values, **others), "UTC", "plant, unit=unit-1: rpm")


def lines_of(axes: Axes) -> dict[str, NDArray[Any]]:
    return {str(line.get_label()): np.asarray(line.get_ydata()) for line in axes.get_lines()}


def labels_of(axes: Axes) -> dict[str, float]:
    """Return the labels above the axes with their minutes."""
    return {text.get_text(): round(float(text.xy[0]) * 1440, 6) for text in axes.texts}


def test_begin_first_alarm_and_end_are_marked_where_they_are_stated():
    view = of_minutes(anomaly("flatline", 50, 1, 38), 100, 140, 150)
    figure = draw(view, np.ones(200))
    assert labels_of(figure.axes[0]) == {"begin": 100, "detected": 140, "end": 150}
    still_open = of_minutes(anomaly("flatline", 50, 1, 38), 100, 140, 150, state=AnomalyState.OPEN)
    assert set(labels_of(draw(still_open, np.ones(200)).axes[0])) == {"begin", "detected"}
    assert view.first_alarm == "1970-01-01T02:20:00.000000Z"


def test_equal_times_have_one_label():
    both = of_minutes(anomaly("unusual_value", 50, 1, 38), 140, 140, 150)
    assert [one.label for one in marks_of(both)] == ["begin and detected", "end"]
    assert both.first_alarm == ""
    single = of_minutes(anomaly("unusual_value", 50, 1, 38), 140, 140, 140)
    assert [one.label for one in marks_of(single)] == ["one reading"]


def test_labels_neither_overlap_nor_leave_the_picture():
    rng = np.random.default_rng(0)
    for _ in range(500):
        times = np.sort(rng.choice([rng.random(3), 0.9 + 0.1 * rng.random(3), 0.02 * rng.random(3)]))
        names = (("begin", "left"), ("detected", "center"), ("end", "right"))
        placed = place([Mark(at, *name) for at, name in zip(times, names, strict=True)], 0, 1)
        spans: dict[int, list[tuple[float, float]]] = {}
        for (at, label, side), row in placed:
            width = len(label) * CHARACTER_SHARE
            left = at - width * {"left": 1, "center": 0.5, "right": 0}[side]
            assert -1e-9 <= left <= left + width <= 1 + 1e-9
            assert all(left >= b or left + width <= a for a, b in spans.setdefault(row, []))
            spans[row].append((left, left + width))


def test_the_span_in_which_it_may_have_begun_is_lighter():
    view = of_minutes(anomaly("unusual_level", 50, 1, 38), 140, 145, 150)
    (axes,) = draw(view, np.full(200, 60.0)).axes
    stated, window = axes.patches
    assert (stated.get_x() * 1440, stated.get_width() * 1440) == pytest.approx((140, 10))
    assert (window.get_x() * 1440, window.get_width() * 1440) == pytest.approx((132, 8))
    assert window.get_label() == "may have begun here"
    assert 2 * window.get_facecolor()[3] <= stated.get_facecolor()[3]


def test_no_reading_after_the_end_is_marked():
    values = np.full(200, 10.0)
    values[179:195] = 50
    view = of_minutes(anomaly("unusual_value", 50, -12, 38), 180, 185, 190)
    (axes,) = draw(view, values, flag=np.arange(200) >= 184).axes
    (dots,) = [line for line in axes.get_lines() if line.get_label() == "outside"]
    minutes = np.round(date2num(dots.get_xdata()) * 1440).astype(int)
    assert minutes.tolist() == list(range(180, 191))  # those before the alarm had to last for it
    values[182:188] = 10  # back inside while the alarm was kept
    (axes,) = draw(view, values, flag=np.arange(200) >= 184).axes
    assert len(lines_of(axes)["outside"]) == 5


def test_the_usual_range_is_drawn_while_the_anomaly_lasts():
    for begin, end, drawn in ((100, 150, (100, 150)), (100, 100, (91, 109))):
        view = of_minutes(anomaly("unusual_value", 50, 8, 38), begin, begin, end)
        (axes,) = draw(view, np.full(200, 10.0)).axes
        (line, _) = [
            one for one in axes.get_lines() if np.ptp(one.get_ydata()) == 0 and one.get_linestyle() == ":"
        ]
        assert np.round(date2num(line.get_xdata()[[0, -1]]) * 1440).tolist() == list(drawn)


@pytest.mark.parametrize("cause", ["unusual_value", "unusual_step"])
def test_the_range_of_one_hour_is_drawn_in_that_hour(cause):
    view = of_minutes(anomaly(cause, 50, 8, 38), 20, 20, 190)
    view = msgspec.structs.replace(view, peak="1970-01-01T01:40:00.000000Z")
    for basis, drawn in (("working_days", (70, 130)), ("all_hours", (20, 190))):
        (*_, axes) = draw(msgspec.structs.replace(view, basis=basis), np.full(200, 10.0)).axes
        line = next(one for one in axes.get_lines() if one.get_linestyle() == ":")
        span = np.round(date2num(line.get_xdata()[[0, -1]]) * 1440).tolist()
        assert span == ([1, 200] if basis == "all_hours" and cause == "unusual_step" else list(drawn))


def test_dots_lie_on_the_curve_that_is_judged():
    values = np.r_[np.full(150, 10.0), np.full(50, 60.0)]
    view = of_minutes(anomaly("unusual_level", 55, -12, 38), 156, 160, 170)
    (axes,) = draw(view, values, flag=np.ones(200, bool)).axes
    lines = lines_of(axes)
    assert set(lines["outside"]) <= set(lines["smoothed over about 8"])
    assert (lines["outside"] > 38).all()
    view = of_minutes(anomaly("relation", 1.4, -0.7, 0.733), 181, 185, 190)
    off = np.where(np.arange(200) >= 179, 1.5, 0.0).astype(np.float32)
    above, below = draw(view, values, relation=off, flag=np.ones(200, bool)).axes
    np.testing.assert_allclose(lines_of(above)["implied by the other channels"], values - off)
    assert lines_of(below)["its usual limit"].tolist() == [-0.7, -0.7]
    assert (lines_of(below)["outside"] > 0.733).all()
    assert "outside" not in lines_of(above)


@pytest.mark.parametrize(
    ("values", "ends", "scale", "label"),
    [
        (np.linspace(50, 60, 200), (45, 55), "linear", "usual range of the value"),
        (
            np.linspace(50, 60, 200),
            (-400, 55),
            "linear",
            "usual range of the value (low end −400 not in view)",
        ),
        (
            np.linspace(50, 60, 200),
            (70, 400),
            "linear",
            "usual range of the value (high end 400 not in view)",
        ),
        (np.r_[np.full(199, 50.0), 9e5], (0, 60), "log", "usual range of the value (low end 0 not in view)"),
        (np.r_[np.full(199, 5e5), 0], (1900, 50_000), "symlog", "usual range of the value"),
        (np.r_[np.full(199, 70.0), 0], (67, 71), "linear", "usual range of the value"),
    ],
)
def test_both_ends_of_a_usual_range_are_in_view_or_in_the_legend(
    values: NDArray[Any], ends: tuple[float, float], scale: str, label: str
):
    view = of_minutes(anomaly("unusual_value", float(values[-1]), *ends), 199, 199, 199)
    (axes,) = draw(view, values).axes
    low, high = axes.get_ylim()
    assert axes.get_yscale() == scale
    assert label in lines_of(axes)
    for word, end in zip(("low", "high"), ends, strict=True):
        assert (low <= end <= high) == (f"{word} end" not in label)
    assert low <= values.min()
    assert values.max() <= high
    assert np.ptp(values) >= 0.35 * (high - low) or scale != "linear"


def test_an_end_that_is_not_in_view_is_written_as_in_the_sentence():
    view = of_minutes(anomaly("unusual_value", 9e8, 0, 2.5e8), 150, 150, 150)
    view = msgspec.structs.replace(
        view, channels=[msgspec.structs.replace(c, unit="B") for c in view.channels]
    )
    (axes,) = draw(view, np.linspace(1e6, 2e6, 200)).axes
    assert "usual range of the value (high end 250 MB not in view)" in lines_of(axes)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("cause", CAUSES)
def test_legend_and_labels_stay_inside_of_600_pixels(cause: str, relative: bool):
    rng = np.random.default_rng(1)
    values = np.abs(rng.normal(1e6, 2e5, 200))
    view = of_minutes(replace(anomaly(cause, 5e6, -9e9, 4e6), relative=relative), 100, 140, 150)
    channels = [msgspec.structs.replace(one, unit="kg/(m²·s·bar) of steam") for one in view.channels]
    channels = [
        msgspec.structs.replace(one, name=f"{one.name} of the {'very ' * 9}last pump") for one in channels
    ]
    view = msgspec.structs.replace(view, channels=channels)
    points = columns(values, relation=rng.normal(0, 1, 200).astype(np.float32))
    figure = figure_of(view, points, "America/Argentina/ComodRivadavia", "a stream, " + "unit=unit, " * 20)
    figure.draw_without_rendering()
    assert figure.bbox.width == 600
    for axes in figure.axes:
        extents = [axes.get_legend().get_window_extent(), *(text.get_window_extent() for text in axes.texts)]
        extents += [axes.yaxis.label.get_window_extent(), figure._suptitle.get_window_extent()]
        for one in extents:
            assert one.x0 >= 0
            assert one.x1 <= 600
            assert one.y0 >= 0
            assert one.y1 <= figure.bbox.height
        assert axes.get_window_extent().height >= 80  # the labels leave room for the curves
        if axes.texts:
            above = max(text.get_window_extent().y1 for text in axes.texts)
            assert above <= axes.get_legend().get_window_extent().y0 + 1


@pytest.mark.parametrize("recorded", [True, False])
def test_a_picture_of_recorded_rows_is_a_png(recorded: bool):
    one = replace(anomaly("relation", 50, -12, 38), start_ns=190 * MINUTE_NS, end_ns=195 * MINUTE_NS)
    names = ("value", "expected", "lower", "upper", *(("relation",) if recorded else ()))
    table = pa.table(
        {"time": TIMES, "flag": np.arange(200) > 190} | {f"{name}:rpm": np.ones(200) for name in names}
    )
    asked: list[str] = []

    def read(*given: Any) -> pa.Table:
        asked.extend(given[-1])
        return table

    png = ChartRenderer(read).draw("plant", alert_about(one).anomalies[0])
    assert png is not None
    assert png.startswith(b"\x89PNG")
    assert "relation:rpm" in asked


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "values",
    [[5.0], [np.nan] * 50, [3.0] * 149 + [np.inf], [1e15] * 149 + [1e-9]],
    ids=["one", "nan", "inf", "huge"],
)
def test_any_values_can_be_drawn(values: list[float]):
    rows, number = len(values), np.array(values)
    points = {"time": TIMES[:rows], "flag": np.ones(rows, bool), "relation": np.zeros(rows, np.float32)}
    points |= dict.fromkeys(("value", "expected", "lower", "upper"), number)
    for cause in CAUSES:
        view = of_minutes(anomaly(cause, 40.0, -12, 38), max(rows - 10, 1), max(rows - 5, 1), rows)
        figure = figure_of(view, points, "UTC", "plant")
        assert len(figure.axes) == 1 + (
            quantity_of(view, leading(view), points) is not None and cause not in AMONG
        )
        figure.draw_without_rendering()
