"""The metrics of one run: by series, over the set and over its two halves.

Rows of the warm-up are cut off first, except for "VUS-PR, whole series", which is computed as published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pipeline.evaluate import nab
from pipeline.evaluate.accuracy_metrics import (
    QUIET_ROWS,
    Bools,
    Events,
    Rows,
    average_precision,
    best_threshold,
    count_events,
    count_rows,
    mean_by,
    recording,
    segments,
    ucr_hit,
)
from pipeline.evaluate.evaluation import Run
from pipeline.evaluate.layouts import Labelled
from pipeline.evaluate.scoring_run import Scores
from pipeline.evaluate.vus import find_length, vus_pr

NAN = float("nan")


@dataclass(slots=True)
class Measures:
    """Metrics of a detector on one series.

    NaN or None: the metric is not defined (no anomaly, or several for ``hit``).
    """

    name: str
    half: str
    rows: int
    vus_pr: float
    vus_pr_whole: float
    auc_pr: float
    hit: bool | None
    events: Events
    confusion: Rows
    kinds: dict[str, Events]  # if the set names the kinds of its anomalies
    dropped: int = 0  # rows that the pipeline did not score: late, or with a repeated time
    # layout nab: gain over no detection at the best threshold of the corpus
    nab_gain: float = NAN


def measure(series: Labelled, scores: Scores, half: str) -> Measures:
    """Return all metrics of one series."""
    after = slice(series.warm_up, None)
    label, flag, surprise = series.label[after], scores.flag[after], scores.surprise[after]
    window = find_length(series.values[:, 0])
    only_one = len(series.windows) == 1 and label.any()
    return Measures(
        name=series.name,
        half=half,
        rows=len(series),
        vus_pr=vus_pr(surprise, label, window),
        vus_pr_whole=vus_pr(scores.surprise, series.label, window),
        auc_pr=average_precision(surprise, label),
        hit=ucr_hit(scores.surprise, series.label, series.warm_up) if only_one else None,
        events=count_events(flag, label),
        confusion=count_rows(flag, label),
        kinds={kind: _of_kind(series, scores, kind) for kind in sorted(set(series.kinds))},
        dropped=scores.dropped,
    )


def _of_kind(series: Labelled, scores: Scores, kind: str) -> Events:
    """Count the events of one kind.

    Only ``events`` and ``found`` have a meaning, because an alarm has no kind.
    """
    spans = [
        span
        for span, name in zip(series.windows, series.kinds, strict=True)
        if name == kind and span[0] >= series.warm_up
    ]
    return Events(
        events=len(spans), found=sum(bool(scores.flag[first : last + 1].any()) for first, last in spans)
    )


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric of a set.

    ``better`` is 1 if more is better, −1 if less is better, 0 if it is only context.
    """

    name: str
    better: int
    of: Callable[[Sequence[Measures]], float]


def _mean(attribute: str) -> Callable[[Sequence[Measures]], float]:
    def of(measures: Sequence[Measures]) -> float:
        values = [v for m in measures if not np.isnan(v := getattr(m, attribute))]
        return float(np.mean(values)) if values else NAN

    return of


def _events(attribute: str) -> Callable[[Sequence[Measures]], float]:
    return lambda measures: (
        float(getattr(reduce(add, (m.events for m in measures), Events()), attribute)) if measures else NAN
    )


def _recall_of(kind: str) -> Metric:
    return Metric(
        f"recall, {kind}",
        1,
        lambda measures: reduce(add, (m.kinds[kind] for m in measures if kind in m.kinds), Events()).recall,
    )


def _confusion(attribute: str) -> Callable[[Sequence[Measures]], float]:
    """Count over all rows of the series with an anomaly, as in the SKAB benchmark."""

    def of(measures: Sequence[Measures]) -> float:
        labelled = [m.confusion for m in measures if m.events.events]
        return float(getattr(reduce(add, labelled), attribute)) if labelled else NAN

    return of


def _accuracy(measures: Sequence[Measures]) -> float:
    return (
        float(np.mean([bool(m.hit) for m in measures]))
        if measures and all(m.hit is not None for m in measures)
        else NAN
    )


def _accuracy_by_recording(measures: Sequence[Measures]) -> float:
    if any(m.hit is None for m in measures):
        return NAN
    return mean_by([recording(PurePosixPath(m.name).name) for m in measures], [bool(m.hit) for m in measures])


METRICS = (
    Metric("VUS-PR", 1, _mean("vus_pr")),
    Metric("VUS-PR, whole series", 1, _mean("vus_pr_whole")),
    Metric("AUC-PR", 1, _mean("auc_pr")),
    Metric("UCR accuracy", 1, _accuracy),
    Metric("UCR accuracy, by recording", 1, _accuracy_by_recording),
    Metric("event F1", 1, _events("f1")),
    Metric("event precision", 1, _events("precision")),
    Metric("event recall", 1, _events("recall")),
    Metric("median delay, rows", -1, _events("median_delay")),
    Metric("share of rows in alarm", 0, _events("alarm_share")),
    Metric("false alarms per 10,000 rows", -1, _events("false_per_10k")),
    Metric("row F1", 1, _confusion("f1")),
    Metric("row FAR", -1, _confusion("far")),
    Metric("row MAR", -1, _confusion("mar")),
)


@dataclass(slots=True)
class Figure:
    """One metric over the whole set and over the halves."""

    name: str
    better: int
    all: float
    a: float
    b: float


@dataclass(slots=True)
class Summary:
    """All metrics of a run, and its series."""

    figures: list[Figure]
    measures: list[Measures]

    def __getitem__(self, name: str) -> Figure:
        return next(figure for figure in self.figures if figure.name == name)


def summarise(run: Run) -> Summary:
    """Measure every series and the set.

    Metrics without a meaning for the set are omitted.
    """
    measures = [
        measure(series, scores, half)
        for series, scores, half in zip(run.series, run.scores, run.halves, strict=True)
    ]
    figures = _nab_figures(run, measures) if run.task.layout == "nab" and run.series else []
    kinds = sorted({kind for m in measures for kind in m.kinds})
    figures += _figures((*METRICS, *map(_recall_of, kinds)), measures) + _best_rows(run, measures)
    return Summary([figure for figure in figures if not np.isnan(figure.all)], measures)


def _figures(metrics: Sequence[Metric], measures: Sequence[Measures]) -> list[Figure]:
    halves = [[m for m in measures if m.half in half] for half in ("ab", "a", "b")]
    return [Figure(metric.name, metric.better, *map(metric.of, halves)) for metric in metrics]


def _best_rows(run: Run, measures: Sequence[Measures]) -> list[Figure]:
    """Return row F1 at the best threshold of the set with a bounded false-alarm rate.

    If most rows are anomalous, the best threshold without the bound flags every row.
    """
    labelled = [i for i, m in enumerate(measures) if m.events.events]
    if not labelled:
        return []
    cut = [
        (run.scores[i].surprise[run.series[i].warm_up :], run.series[i].label[run.series[i].warm_up :])
        for i in labelled
    ]
    threshold = best_threshold(
        np.concatenate([surprise for surprise, _ in cut]), np.concatenate([label for _, label in cut])
    )
    best = [
        replace(measures[i], confusion=count_rows(surprise >= threshold, label))
        for i, (surprise, label) in zip(labelled, cut, strict=True)
    ]
    metrics = (
        Metric("row F1, best at FAR ≤ 10 %", 1, _confusion("f1")),
        Metric("row FAR there", -1, _confusion("far")),
    )
    return _figures(metrics, best)


def _nab_figures(run: Run, measures: list[Measures]) -> list[Figure]:
    """Return the scores of the three profiles.

    They are taken at the best threshold of the whole corpus (both halves use it), and at the own threshold
    of the product. Own threshold: every flagged row is a detection. Own alarms: only the first row of each
    alarm, for which a user is notified.
    """
    corpus = nab.corpus([len(series) for series in run.series], [series.windows for series in run.series])
    surprises = [scores.surprise for scores in run.scores]
    halves = [np.array([m.half in half for m in measures]) for half in ("ab", "a", "b")]

    def figure(name: str, flags: list[Any], profile: nab.Profile) -> Figure:
        return Figure(name, 1, *(nab.score(flags, corpus, profile, half) for half in halves))

    figures = []
    for name, profile in nab.PROFILES.items():
        threshold = nab.sweep(surprises, corpus, profile).threshold
        flags = [surprise >= threshold for surprise in surprises]
        figures.append(figure(f"NAB {name}", flags, profile))
        if name == "standard":
            for m, gain in zip(measures, nab.file_gains(flags, corpus, profile), strict=True):
                m.nab_gain = float(gain)
    own = [scores.flag for scores in run.scores]
    figures += [figure(f"NAB {name}, own threshold", own, profile) for name, profile in nab.PROFILES.items()]
    return [
        *figures,
        figure("NAB standard, own alarms", [_onsets(flag) for flag in own], nab.PROFILES["standard"]),
    ]


def _onsets(flag: Bools) -> Bools:
    onset = np.zeros(len(flag), bool)
    onset[segments(flag, QUIET_ROWS)[:, 0]] = True
    return onset


def as_dict(summary: Summary) -> dict[str, Any]:
    """Return JSON values: metric → {all, a, b}, and the metrics of each series."""
    return {
        "metrics": {f.name: {"all": f.all, "a": f.a, "b": f.b} for f in summary.figures},
        "series": [_series(m) for m in summary.measures],
    }


def _series(m: Measures) -> dict[str, Any]:
    plain = {
        name: getattr(m, name)
        for name in ("name", "half", "rows", "vus_pr", "vus_pr_whole", "auc_pr", "hit", "nab_gain", "dropped")
    }
    counts = {name: getattr(m.events, name) for name in ("events", "found", "alarms", "right")}
    return (
        plain | counts | {"event_f1": m.events.f1, "delay": m.events.median_delay, "row_f1": m.confusion.f1}
    )
