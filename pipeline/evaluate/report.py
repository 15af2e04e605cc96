"""The report of a run: JSON, and an HTML page that shows the errors first."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.report_style import report_style
from pipeline.evaluate.accuracy_metrics import QUIET_ROWS, segments
from pipeline.evaluate.calibration import calibration_of, calibration_rows
from pipeline.evaluate.code_version import commit
from pipeline.evaluate.evaluation import Run
from pipeline.evaluate.plots import SIZE, View, around, png, whole
from pipeline.evaluate.scoring_run import SEED
from pipeline.evaluate.set_metrics import Summary, as_dict

#: Maximum number of plots of each kind, which bounds the size of the page.
_PICTURES = 12
#: The size of a plot is given in HTML, so that the layout does not move while the page loads.
_SIZE = 'width="{}" height="{}"'.format(*SIZE)


def document(run: Run, summary: Summary, yardsticks: Mapping[str, Summary]) -> dict[str, Any]:
    """Return all measurements and settings as JSON values, without NaN."""
    task = run.task
    return _plain(
        {
            "dataset": str(task.dataset),
            "layout": task.layout,
            "detector": task.detector,
            "forecaster": task.forecaster,
            "preset": task.preset,
            "threshold": task.threshold,
            "commit": commit(),
            "seed": SEED,
            "made": datetime.now(UTC).isoformat(timespec="seconds"),
            "points": run.points,
            "dropped_points": sum(scores.dropped for scores in run.scores),
            "wall_seconds": round(run.wall_seconds, 3),
            "scoring_seconds": round(run.seconds, 3),
            "points_per_second": round(run.points / run.seconds) if run.seconds else None,
            **as_dict(summary),
            "yardsticks": {name: as_dict(other)["metrics"] for name, other in yardsticks.items()},
            "calibration": {age: counts.as_dict() for age, counts in calibration_of(run).items()},
            "errors": run.errors,
        }
    )


def write(path: Path, run: Run, summary: Summary, yardsticks: Mapping[str, Summary]) -> None:
    """Write the report. Raises InputError.

    Args:
        path: file; its suffix, .json or .html, is the format.
        run: scores of the series.
        summary: metrics of the run.
        yardsticks: metrics of the yardsticks by name.
    """
    made = document(run, summary, yardsticks)
    text = (
        json.dumps(made, indent=1, ensure_ascii=False) if path.suffix == ".json" else page(run, summary, made)
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    except OSError as error:
        raise InputError(f"{path}: cannot write the report: {error.strerror}") from None


def page(run: Run, summary: Summary, made: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML page."""
    template = Template(files("pipeline.evaluate").joinpath("report.html").read_text())
    misses, alarms = _misses(run), _false_alarms(run)
    return template.substitute(
        style=report_style(),
        title=escape(f"{made['detector']} on {Path(made['dataset']).name}"),
        facts=_facts(made),
        metrics=_metrics(summary, made),
        calibration=_table(
            [["rows", "stated", "observed", "within"], *calibration_rows(made["calibration"])]
        ),
        errors=_errors(run.errors),
        miss_count=len(misses),
        misses=_figures(misses, "no event was missed"),
        alarm_count=len(alarms),
        alarms=_figures(alarms, "no false alarm"),
        series=_series_table(summary),
        overviews=_figures(_overviews(run, summary), "no series"),
        shown=_PICTURES,
    )


# Plots.

Picture = tuple[float, str, View]  # severity (highest first), caption, plot


def _misses(run: Run) -> list[Picture]:
    """Return the missed events after the warm-up, the one with the lowest score first."""
    found = []
    for series, scores in zip(run.series, run.scores, strict=True):
        for number, (first, last) in enumerate(series.windows):
            if last < series.warm_up or scores.flag[max(first, series.warm_up) : last + 1].any():
                continue
            peak = first + int(np.argmax(scores.surprise[first : last + 1]))
            kind = f" ({series.kinds[number]})" if series.kinds else ""
            caption = (
                f"{series.name}{kind}: rows {first:,}–{last:,}, highest surprise {scores.surprise[peak]:.1f}"
            )
            found.append((-float(scores.surprise[peak]), caption, around(series, scores, first, last, peak)))
    return sorted(found, key=lambda picture: -picture[0])


def _false_alarms(run: Run) -> list[Picture]:
    """Return the false alarms after the warm-up, the highest score first."""
    found = []
    for series, scores in zip(run.series, run.scores, strict=True):
        flag = scores.flag.copy()
        flag[: series.warm_up] = False
        for first, last in segments(flag, QUIET_ROWS):
            if series.label[first : last + 1].any():
                continue
            peak = first + int(np.argmax(scores.surprise[first : last + 1]))
            caption = f"{series.name}: rows {first:,}–{last:,}, surprise {scores.surprise[peak]:.1f}"
            found.append((float(scores.surprise[peak]), caption, around(series, scores, first, last, peak)))
    return sorted(found, key=lambda picture: -picture[0])


def _overviews(run: Run, summary: Summary) -> list[Picture]:
    """Return whole series, those with most misses and false alarms first."""
    pictures = []
    for series, scores, m in zip(run.series, run.scores, summary.measures, strict=True):
        missed, false = m.events.events - m.events.found, m.events.alarms - m.events.right
        caption = f"{series.name}: {missed} of {m.events.events} events missed, {false} of {m.events.alarms} alarms false"
        pictures.append((float(missed + false), caption, whole(series, scores)))
    return sorted(pictures, key=lambda picture: -picture[0])


def _figures(pictures: list[Picture], none: str) -> str:
    if not pictures:
        return f"<p class=good>{none}</p>"
    drawn = (
        f"<figure><figcaption>{escape(caption)}</figcaption><img {_SIZE} "
        f'alt="{escape(caption)}" src="{png(view)}"></figure>'
        for _, caption, view in pictures[:_PICTURES]
    )
    return "\n".join(drawn)


# Tables.


def _facts(made: Mapping[str, Any]) -> str:
    speed = f"{made['points_per_second']:,} points/s" if made["points_per_second"] else "nothing"
    facts = {
        "data set": f"{made['dataset']} ({made['layout']})",
        "detector": f"{made['detector']}, preset {made['preset']}, threshold {made['threshold']}",
        "code": f"commit {made['commit']}, seed {made['seed']}",
        "size": f"{len(made['series'])} series, {made['points']:,} points "
        f"({made['dropped_points']:,} late or repeated ones dropped)",
        "time": f"{made['wall_seconds']:.1f} s in all, scoring {speed}",
        "made": made["made"],
    }
    return "".join(f"<dt>{name}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())


def _metrics(summary: Summary, made: Mapping[str, Any]) -> str:
    """Return the metrics as rows: the set, both halves, and the yardsticks."""
    yardsticks = made["yardsticks"]
    rows = [["metric", "all", "half a", "half b", *yardsticks]]
    for figure in summary.figures:
        others = [others.get(figure.name, {}).get("all") for others in yardsticks.values()]
        rows.append([figure.name, *map(number, (figure.all, figure.a, figure.b)), *map(number, others)])
    return _table(rows)


def _series_table(summary: Summary) -> str:
    rows = [
        [
            "series",
            "half",
            "rows",
            "events",
            "missed",
            "false alarms",
            "dropped",
            "delay",
            "event F1",
            "VUS-PR",
            "AUC-PR",
        ]
    ]
    worst = sorted(
        summary.measures, key=lambda m: m.events.found - m.events.events - m.events.alarms + m.events.right
    )
    for m in worst:
        e = m.events
        delay = f"{e.median_delay:g}" if e.found else "–"
        counts = [
            f"{m.rows:,}",
            str(e.events),
            str(e.events - e.found),
            str(e.alarms - e.right),
            f"{m.dropped:,}",
            delay,
        ]
        figures = map(number, (e.f1 if e.events else math.nan, m.vus_pr, m.auc_pr))
        rows.append([m.name, m.half, *counts, *figures])
    return _table(rows)


def _errors(errors: Mapping[str, str]) -> str:
    if not errors:
        return ""
    rows = _table([["series", "error"], *([name, message] for name, message in errors.items())])
    return f'<h2>Series that failed: {len(errors)}</h2><p class="note">They are left out of every figure.</p><div class="errors">{rows}</div>'


def _table(rows: list[list[str]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in rows[0])
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows[1:])
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def number(value: float | None) -> str:
    """Format a number: three decimals below ten, one above, a dash for NaN."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.3f}" if abs(value) < 10 else f"{value:,.1f}"


def _plain(value: Any) -> Any:
    """Replace NaN by None, because JSON has no NaN."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, str):
        return [_plain(item) for item in value]
    return value
