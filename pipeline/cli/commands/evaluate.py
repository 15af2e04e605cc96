"""Command ``evaluate``: accuracy of a detector on labelled series, and comparison of two detectors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.cli.output import print_note, show_fields, show_json, show_table
from pipeline.core.errors import InputError

if TYPE_CHECKING:
    from pipeline.evaluate.evaluation import EvaluationTask, Run
    from pipeline.evaluate.set_metrics import Summary

#: A clock change repeats a few timestamps; a larger share of dropped rows means that the file is not sorted.
_MAX_DROPPED_RATIO = 0.01


def evaluate(
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="Folder with the labelled series.")
    ] = None,
    layout: Annotated[
        str,
        typer.Option(
            help="nab: data/**/*.csv and combined_windows.json. labelled: CSVs of timestamp, "
            "value…, label (also .gz) "
            "and manifest.csv (file, rows, train_rows). skab: ;-separated CSVs of datetime, "
            "sensors, anomaly, changepoint."
        ),
    ] = "labelled",
    detector: Annotated[
        str, typer.Option(help="light, standard, strong, or the name of a registered detector.")
    ] = "standard",
    preset: Annotated[str, typer.Option(help="Kind of time series: sensor, network or stock.")] = "sensor",
    threshold: Annotated[
        str,
        typer.Option(
            help="Threshold of an alarm: static (the alarm rate), or learned by each series: "
            "quantile, spot, dspot, conformal."
        ),
    ] = "static",
    forecaster: Annotated[
        str,
        typer.Option(
            help="Train this network on the rows that are not measured, and use it in place of the packaged "
            "LSTM: feedforward, rnn, lstm, gru, encoder_decoder, attention or deep_lstm; with further inputs "
            "gru+calendar+lags."
        ),
    ] = "",
    compare: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="A B",
            help="Compare two detectors on DATASET, or two JSON reports, with a paired test over the series.",
        ),
    ] = None,
    scores: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write the score of every row into this folder; series that are already there are "
            "not scored again.",
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a report, .html or .json (with --compare one for each detector: FILE-A, FILE-B).",
        ),
    ] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Number of processes.")] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", "-n", min=1, help="Use only the first N series, sorted by name.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Measure the accuracy of a detector on labelled series.

    Each series is scored in one causal pass, with the same code as in the daemon.
    """
    if report is not None and report.suffix not in (".json", ".html"):
        raise InputError(f"--report {report}: name a file that ends in .json or .html")
    if report is not None:
        _writable(report)
    if compare is not None and all(name.endswith(".json") for name in compare):
        _compare_reports(Path(compare[0]), Path(compare[1]), json)
        return
    if compare is not None and any(name.endswith(".json") for name in compare):
        raise InputError(f"--compare {' '.join(compare)}: name two detectors or two JSON reports")
    if dataset is None:
        raise InputError(
            "DATASET is missing: give the folder with the labelled series (only two JSON reports need none)"
        )
    from pipeline.evaluate.evaluation import EvaluationTask, check_names

    tasks = [
        EvaluationTask(dataset, layout, name, preset, threshold, scores, jobs, limit, forecaster=forecaster)
        for name in (compare or (detector,))
    ]
    for task in tasks:  # all of them before the first, which may take an hour
        check_names(task)
    if compare is None:
        _evaluate(tasks[0], report, json)
    else:
        _compare_detectors(tasks, report, json)


def _writable(report: Path) -> None:
    """Raise InputError now if the report could not be written after the evaluation."""
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        if report.is_dir() or not os.access(report if report.exists() else report.parent, os.W_OK):
            raise PermissionError(None, "a folder" if report.is_dir() else "no permission")
    except OSError as error:
        raise InputError(f"--report {report}: cannot be written: {error.strerror}") from None


def _evaluate(task: EvaluationTask, report: Path | None, json: bool) -> None:
    from pipeline.evaluate import report as reports
    from pipeline.evaluate.evaluation import evaluate

    run = evaluate(task)
    summary, yardsticks = _measure(run)
    if report is not None:
        reports.write(report, run, summary, yardsticks)
    made = reports.document(run, summary, yardsticks)
    if json:
        show_json(made)
    else:
        _show(made)
    _note_dropped(made)
    _fail_on_errors(made)


def _measure(run: Run) -> tuple[Summary, dict[str, Summary]]:
    from pipeline.evaluate.evaluation import score_yardstick
    from pipeline.evaluate.scoring_run import YARDSTICKS
    from pipeline.evaluate.set_metrics import summarise

    return summarise(run), {name: summarise(score_yardstick(run, name)) for name in YARDSTICKS}


def _show(made: dict[str, Any]) -> None:
    from pipeline.evaluate.calibration import calibration_rows
    from pipeline.evaluate.report import number

    others = made["yardsticks"]
    rows = [
        (
            name,
            *(number(figure[part]) for part in ("all", "a", "b")),
            *(number(other.get(name, {}).get("all")) for other in others.values()),
        )
        for name, figure in made["metrics"].items()
    ]
    show_table(("metric", "all", "half a", "half b", *others), rows, "no metric could be computed")
    print()
    show_table(("rows", "stated", "observed", "within"), calibration_rows(made["calibration"]), "")
    print()
    speed = f"{made['points_per_second']:,} points/s" if made["points_per_second"] else "nothing"
    show_fields(
        {
            "detector": f"{_name_of(made)}, preset {made['preset']}, threshold {made['threshold']}, "
            f"commit {made['commit']}, seed {made['seed']}",
            "size": f"{len(made['series'])} series, {made['points']:,} points "
            f"({made['dropped_points']:,} late or repeated ones dropped)",
            "time": f"{made['wall_seconds']:.1f} s in all, scoring {speed}",
        }
    )


def _name_of(made: dict[str, Any]) -> str:
    """Return the detector of a report, with its forecaster if it names one."""
    return f"{made['detector']} with {made['forecaster']}" if made["forecaster"] else str(made["detector"])


def _note_dropped(made: dict[str, Any]) -> None:
    for series in made["series"]:
        if series["dropped"] > _MAX_DROPPED_RATIO * series["rows"]:
            share = f"{series['dropped']:,} of {series['rows']:,} rows are out of order or repeat a timestamp and were not scored"
            print_note(
                f"{series['name']}: {share}; sort the file by time and keep one row for each timestamp"
            )


def _fail_on_errors(made: dict[str, Any]) -> None:
    if made["errors"]:
        for name, message in made["errors"].items():
            print_note(f"{name}: {message}")
        print_note(f"{len(made['errors'])} series failed and are not part of the metrics")
        raise typer.Exit(1)


def _compare_reports(a: Path, b: Path, json: bool) -> None:
    from pipeline.evaluate.paired_test import load

    _show_comparison(load(a), load(b), json)


def _compare_detectors(tasks: list[EvaluationTask], report: Path | None, json: bool) -> None:
    from dataclasses import replace

    from pipeline.evaluate import report as reports
    from pipeline.evaluate.evaluation import evaluate

    documents = []
    for task in tasks:
        own = replace(task, scores=task.scores / task.detector) if task.scores else task
        run = evaluate(own)
        summary, yardsticks = _measure(run)
        if report is not None:
            reports.write(report.with_stem(f"{report.stem}-{task.detector}"), run, summary, yardsticks)
        documents.append(reports.document(run, summary, yardsticks))
    _show_comparison(documents[0], documents[1], json)
    for made in documents[:1]:  # the rows that are dropped are the same for both
        _note_dropped(made)
    for made in documents:
        _fail_on_errors(made)


def _show_comparison(a: dict[str, Any], b: dict[str, Any], json: bool) -> None:
    from dataclasses import asdict

    from pipeline.evaluate.paired_test import compare
    from pipeline.evaluate.report import number

    pairs = compare(a, b)
    if json:
        show_json({"a": a["metrics"], "b": b["metrics"], "pairs": [asdict(pair) for pair in pairs]})
        return
    names = [
        f"{one['detector']} ({one['commit']})" if a["detector"] == b["detector"] else one["detector"]
        for one in (a, b)
    ]
    rows = []
    for name, figure in a["metrics"].items():
        first, second = figure["all"], b["metrics"].get(name, {}).get("all")
        change = second - first if first is not None and second is not None else None
        rows.append((name, number(first), number(second), number(change)))
    show_table(("metric of the set", *names, "change"), rows, "no metric could be computed")
    print()
    paired = [
        (
            p.metric,
            p.series,
            number(p.mean_a),
            number(p.mean_b),
            p.wins_a,
            p.wins_b,
            "< 0.0001" if p.p < 1e-4 else f"{p.p:.4f}",
        )
        for p in pairs
    ]
    columns = (
        "by series",
        "series",
        *(f"mean {name}" for name in names),
        *(f"{name} wins" for name in names),
        "p",
    )
    show_table(columns, paired, "the reports have no metric in common")
    print_note(
        "p: p-value of a two-sided paired sign-flip test over the series; a small value "
        "means that the difference is significant"
    )
