"""Tables of docs/lab-notes/accuracy.md.

The input is the output of ``benchmarks.accuracy`` for each tier.

for tier in light standard strong; do python -m benchmarks.accuracy --detector $tier > $tier.log; done
python -m benchmarks.accuracy_table light.log standard.log strong.log
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.accuracy import SETS
from pipeline.evaluate.report import number
from pipeline.evaluate.scoring_run import YARDSTICKS

Runs = dict[str, dict[str, Any]]  # tier → the last line of its log


def row(runs: Runs, name: str, figure: str, target: float | None) -> list[str] | None:
    """Return the cells of one figure, None where no tier has it.

    Args:
        runs: Runs by tier.
        name: Name of the data set.
        figure: Name of the metric.
        target: Target of the metric.
    """
    found = {tier: run["sets"][name]["metrics"].get(figure) for tier, run in runs.items()}
    if not any(found.values()):
        return None
    least = not figure.startswith(("false", "median"))
    reached = [
        tier
        for tier, of in found.items()
        if target is not None and of and (of["all"] >= target if least else of["all"] <= target)
    ]
    goal = "" if target is None else f"{'≥' if least else '≤'} {target:.3g}: {', '.join(reached) or 'none'}"
    yardsticks = next(iter(runs.values()))["sets"][name]["yardsticks"]
    own = [f"{_text(of['all'])} ({_text(of['a'])} / {_text(of['b'])})" if of else "" for of in found.values()]
    return [
        name,
        figure,
        *own,
        *(_text(yardsticks[other].get(figure, {}).get("all")) for other in YARDSTICKS),
        goal,
    ]


def _text(value: float | None) -> str:
    return "–" if value is None else number(value)


def _print(head: list[str], rows: list[list[str]]) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    print()


def main() -> None:
    """Run the benchmark of the command line."""
    lines = [json.loads(Path(path).read_text().strip().splitlines()[-1]) for path in sys.argv[1:]]
    runs: Runs = {line["detector"]: line for line in lines}
    rows = [
        cells
        for name, one in SETS.items()
        for figure, target in one.figures.items()
        if (cells := row(runs, name, figure, target))
    ]
    _print(["set", "metric", *(f"{tier} (a / b)" for tier in runs), *YARDSTICKS, "target"], rows)
    costs = []
    for name in SETS:
        sets = [run["sets"][name] for run in runs.values()]
        costs.append(
            [
                name,
                f"{sets[0]['points']:,}",
                *(f"{one['wall_seconds']:.0f}, {one['points_per_second']:,}" for one in sets),
            ]
        )
    _print(["set", "points", *(f"{tier}: wall s, points/s" for tier in runs)], costs)
    for tier, run in runs.items():
        print(
            f"{tier}: {sum(one['wall_seconds'] for one in run['sets'].values()):.0f} s, commit "
            f"{run['commit']}"
        )


if __name__ == "__main__":
    main()
