"""Accuracy table of every open set with one default configuration.

Beside each figure stand those of the yardsticks and the target.

    python -m benchmarks.accuracy [--detector standard] [--decision surprise] [--sets nab ucr …] [--jobs 1]
    [--alarm-rate 2e-4] [--scores DIR] [--out FOLDER]

Prints a Markdown table and, as the last line, the same as JSON. The open data is expected in ../shared/data
beside the checkout, or in the folder of ``--data`` (``forewatch data fetch``).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from detectors.base import DECISIONS
from detectors.thresholds import THRESHOLDS
from pipeline.evaluate import inject, report
from pipeline.evaluate.code_version import commit
from pipeline.evaluate.evaluation import EvaluationTask, Run, evaluate, score_yardstick
from pipeline.evaluate.scoring_run import SEED, YARDSTICKS
from pipeline.evaluate.set_metrics import Summary, summarise
from pipeline.observability.log_setup import configure_logs

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"


@dataclass(frozen=True)
class BenchmarkSet:
    """Source and figures of a set.

    ``figures`` maps each figure of the table to its target (None: no target).
    """

    folder: str
    layout: str
    figures: dict[str, float | None]
    preset: str = "sensor"
    maker: str | None = None  # of pipeline.evaluate.inject


EVENTS = {
    "event F1": None,
    "median delay, rows": None,
    "share of rows in alarm": None,
    "false alarms per 10,000 rows": 1.0,
}
RANKING = {"VUS-PR": None, "AUC-PR": None}
NAB = {
    "NAB standard": 80.0,
    "NAB reward_low_FP_rate": 72.0,
    "NAB reward_low_FN_rate": 85.0,
    "NAB standard, own threshold": 70.0,
    "NAB standard, own alarms": None,
}
RECALLS = {f"recall, {kind}": 0.9 for kind in inject.STOCK_FAULTS}
SENSOR_RECALLS = {f"recall, {kind}": None for kind in inject.SENSOR_FAULTS}
#: A trading year has 252 days: two false alarms a year are 79 in 10,000 rows.
STOCK_FALSE = {"false alarms per 10,000 rows": 2 / 252 * 1e4}

SETS = {
    "nab": BenchmarkSet("nab", "nab", NAB | EVENTS),
    "tsb-ad-u-r": BenchmarkSet(
        "tsb-ad-u-r", "labelled", {"VUS-PR": 0.65, "VUS-PR, whole series": None, "AUC-PR": None} | EVENTS
    ),
    "ucr": BenchmarkSet(
        "ucr", "labelled", {"UCR accuracy": 0.8, "UCR accuracy, by recording": None, "VUS-PR": None} | EVENTS
    ),
    "kpi": BenchmarkSet("kpi", "labelled", RANKING | EVENTS | {"event F1": 0.75, "median delay, rows": 7.0}),
    "wsd": BenchmarkSet("wsd", "labelled", EVENTS | {"event F1": 0.75, "median delay, rows": 3.0}),
    "nasa": BenchmarkSet("nasa", "labelled", RANKING | EVENTS),
    "network": BenchmarkSet("network", "labelled", RANKING | EVENTS, "network"),
    "flows": BenchmarkSet("network", "labelled", EVENTS, "network", "flows"),
    "skab": BenchmarkSet(
        "skab", "skab", {"row F1, best at FAR ≤ 10 %": 0.85, "row F1": None, "row FAR": None} | EVENTS
    ),
    "sensors": BenchmarkSet("skab/anomaly-free", "labelled", SENSOR_RECALLS | EVENTS, "sensor", "sensors"),
    "stocks": BenchmarkSet("stocks", "labelled", RECALLS | EVENTS | STOCK_FALSE, "stock", "stocks"),
}


def measure(name: str, options: argparse.Namespace, made: Path) -> tuple[Run, Summary, dict[str, Summary]]:
    """Run one set; create the data of an injected one first."""
    chosen = SETS[name]
    folder = options.data / chosen.folder
    if not folder.is_dir():
        raise SystemExit(
            f"there is no folder {folder}: fetch the set with `forewatch data fetch --to {options.data}` "
            "if it can be fetched (`forewatch data list`), or choose others with --sets; name the data "
            "folder with --data"
        )
    if chosen.maker:
        inject.MAKERS[chosen.maker](folder, made / name)
        folder = made / name
    scores = options.scores / options.detector / name if options.scores else None
    run = evaluate(
        EvaluationTask(
            folder,
            chosen.layout,
            options.detector,
            chosen.preset,
            options.threshold,
            scores,
            options.jobs,
            decision=options.decision,
            alarm_rate=options.alarm_rate,
        )
    )
    summary = summarise(run)
    yardsticks = {other: summarise(score_yardstick(run, other)) for other in YARDSTICKS}
    if options.out:
        for ending in ("html", "json"):
            report.write(options.out / f"{options.detector}-{name}.{ending}", run, summary, yardsticks)
    return run, summary, yardsticks


def rows(name: str, summary: Summary, yardsticks: dict[str, Summary]) -> list[list[str]]:
    """Return the table lines of one set."""
    lines = []
    for figure, target in SETS[name].figures.items():
        if not any(found.name == figure for found in summary.figures):
            continue
        found = summary[figure]
        others = [
            next((f.all for f in other.figures if f.name == figure), None) for other in yardsticks.values()
        ]
        met = "" if target is None else "yes" if (found.all - target) * found.better >= 0 else "no"
        goal = "" if target is None else ("≥ " if found.better > 0 else "≤ ") + f"{target:.3g}"
        lines.append([name, figure, *map(report.number, (found.all, found.a, found.b, *others)), goal, met])
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--threshold", choices=THRESHOLDS, default="static")
    parser.add_argument("--decision", choices=DECISIONS, default="surprise")
    parser.add_argument("--alarm-rate", type=float, help="share of normal rows; not given: the default")
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--sets", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--scores", type=Path)
    parser.add_argument("--out", type=Path, help="folder for an HTML and a JSON report of each set")
    return parser.parse_args()


def main() -> None:
    """Run the benchmark of the command line."""
    options = arguments()
    configure_logs("warning")
    made = {}
    print(f"detector {options.detector}, decision {options.decision}, commit {commit()}, seed {SEED}\n")
    head = ["set", "metric", "all", "half a", "half b", *YARDSTICKS, "target", "met"]
    print("| " + " | ".join(head) + " |\n|" + " --- |" * len(head))
    with tempfile.TemporaryDirectory() as folder:
        for name in options.sets:
            run, summary, yardsticks = measure(name, options, Path(folder))
            for line in rows(name, summary, yardsticks):
                print("| " + " | ".join(line) + " |", flush=True)
            made[name] = report.document(run, summary, yardsticks)
    print("\n| set | series | points | wall s | points/s | failed |\n|" + " --- |" * 6)
    for name, one in made.items():
        facts = (
            name,
            len(one["series"]),
            one["points"],
            one["wall_seconds"],
            one["points_per_second"] or "from disk",
            len(one["errors"]),
        )
        print("| " + " | ".join(map(str, facts)) + " |")
    print(
        f"\nall sets: {sum(one['wall_seconds'] for one in made.values()):.0f} s with "
        f"{options.jobs} process(es)\n"
    )
    brief = {
        name: {key: value for key, value in one.items() if key != "series"} for name, one in made.items()
    }
    print(
        json.dumps(
            {
                "benchmark": "accuracy",
                "detector": options.detector,
                "commit": commit(),
                "seed": SEED,
                "sets": brief,
            }
        )
    )


if __name__ == "__main__":
    main()
