"""Plots of one channel: its band, true windows and alarms, and the surprisal."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.evaluate.accuracy_metrics import QUIET_ROWS, segments
from pipeline.evaluate.layouts import Labelled
from pipeline.evaluate.scoring_run import Scores

#: In a plot of more rows, each bin is drawn by its lowest and highest value.
_BINS = 1200
_DPI = 100
#: Width and height of a plot, in pixels.
SIZE = (1100, 310)
#: A gap of more median steps than this breaks the lines.
_GAP = 20
_TRUTH, _ALARM, _BAND, _EXPECTED, _LINE, _WARM = (
    "#2e9e5b",
    "#d1322d",
    "#a9cdf0",
    "#1f6fc4",
    "#22303c",
    "#9aa5b1",
)


@dataclass(frozen=True, slots=True)
class View:
    """Rows ``first`` … ``last`` of a series; ``peak`` selects the channel."""

    series: Labelled
    scores: Scores
    first: int
    last: int
    peak: int


def around(series: Labelled, scores: Scores, first: int, last: int, peak: int) -> View:
    """Return the rows of an event or alarm with some context on both sides."""
    margin = max(2 * (last - first + 1), 100)
    return View(series, scores, max(first - margin, 0), min(last + margin, len(series) - 1), peak)


def whole(series: Labelled, scores: Scores) -> View:
    """Return the whole series, with the channel of its highest surprisal."""
    return View(series, scores, 0, len(series) - 1, int(np.argmax(scores.surprise)))


def channel_of(view: View) -> int:
    """Return the channel that is furthest out of its band at the peak, in band widths."""
    scores, peak = view.scores, view.peak
    width = np.maximum(scores.upper[peak].astype(np.float64) - scores.lower[peak], 1e-12)
    with np.errstate(invalid="ignore"):
        outside = np.abs(view.series.values[peak] - scores.expected[peak]) / width
    return int(np.argmax(np.where(np.isfinite(outside), outside, -1.0)))


def png(view: View) -> str:
    """Return the plot as a data URI of a PNG."""
    from matplotlib.dates import ConciseDateFormatter
    from matplotlib.figure import Figure

    figure = Figure(figsize=(SIZE[0] / _DPI, SIZE[1] / _DPI), dpi=_DPI, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    channel = channel_of(view)
    _values(top, view, channel)
    _surprise(bottom, view)
    for axes in (top, bottom):
        _spans(axes, view)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
    formatter: Any = ConciseDateFormatter
    bottom.xaxis.set_major_formatter(formatter(bottom.xaxis.get_major_locator()))
    bottom.xaxis.get_offset_text().set_fontsize(8)
    if len(view.series.channels) > 1:
        top.set_ylabel(view.series.channels[channel], fontsize=8)
    out = BytesIO()
    figure.savefig(out, format="png")
    return "data:image/png;base64," + b64encode(out.getvalue()).decode()


def _values(axes: Any, view: View, channel: int) -> None:
    rows = slice(view.first, view.last + 1)
    time = _time(view)
    value = view.series.values[rows, channel]
    low, high = view.scores.lower[rows, channel], view.scores.upper[rows, channel]
    bins = _bins(len(value))
    broken = _after_gap(time)
    axes.fill_between(
        time[bins], _reduce(np.fmin, low, bins), _reduce(np.fmax, high, bins), color=_BAND, alpha=0.45, lw=0
    )
    axes.plot(
        time[bins],
        np.where(broken, np.nan, view.scores.expected[rows, channel])[bins],
        color=_EXPECTED,
        lw=0.8,
    )
    axes.plot(*_envelope(time, np.where(broken, np.nan, value), bins), color=_LINE, lw=0.8)
    flagged = np.flatnonzero(view.scores.flag[rows])
    axes.plot(time[flagged], value[flagged], ls="", marker="o", ms=4, color=_ALARM)
    finite = value[np.isfinite(value)]
    if len(finite):
        margin = 0.08 * (finite.max() - finite.min()) or 1.0
        axes.set_ylim(finite.min() - margin, finite.max() + margin)


def _surprise(axes: Any, view: View) -> None:
    time = _time(view)
    surprise = view.scores.surprise[view.first : view.last + 1]
    bins = _bins(len(surprise))
    axes.fill_between(time[bins], _reduce(np.fmax, surprise, bins), color=_LINE, alpha=0.6, lw=0, step="post")
    axes.set_ylim(0, max(6.0, float(surprise.max()) * 1.05))
    axes.set_ylabel("surprise", fontsize=8)


def _spans(axes: Any, view: View) -> None:
    """Draw true windows in green, the warm-up in grey, alarms as red bars."""
    time = view.series.time.astype("datetime64[ns]")

    def shade(first: int, last: int, **style: Any) -> None:
        if last >= view.first and first <= view.last:
            axes.axvspan(time[max(first, view.first)], time[min(last, view.last)], **style)

    if view.series.warm_up:
        shade(0, view.series.warm_up - 1, color=_WARM, alpha=0.18, lw=0)
    for first, last in view.series.windows:
        shade(first, last, color=_TRUTH, alpha=0.20, lw=1.2)
    for first, last in segments(view.scores.flag, QUIET_ROWS):
        shade(first, last, color=_ALARM, alpha=0.55, lw=1.2)


def _after_gap(time: NDArray[np.datetime64]) -> NDArray[np.bool_]:
    """Return a mask (n,) of the rows after a gap."""
    steps = np.diff(time.astype(np.int64), prepend=time[:1].astype(np.int64))
    return np.asarray(steps > int(_GAP * np.median(steps)))


def _time(view: View) -> NDArray[np.datetime64]:
    return view.series.time[view.first : view.last + 1].astype("datetime64[ns]")


def _bins(rows: int) -> NDArray[np.int64]:
    """Return the first row of each bin."""
    return np.unique(np.linspace(0, rows, min(rows, _BINS), endpoint=False).astype(np.int64))


def _reduce(how: np.ufunc, values: NDArray[Any], bins: NDArray[np.int64]) -> NDArray[Any]:
    return np.asarray(how.reduceat(values, bins))


def _envelope(
    time: NDArray[Any], value: NDArray[Any], bins: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the line itself, or the lowest and highest value of each bin in turn."""
    if len(bins) == len(value):
        return time, value
    pairs = np.stack([_reduce(np.fmin, value, bins), _reduce(np.fmax, value, bins)], axis=1)
    return np.repeat(time[bins], 2), pairs.reshape(-1)
