"""The slice of the open data whose figures are pinned.

It is small enough for every CI run and has every kind of series.
"""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.accuracy import SETS
from pipeline.evaluate import inject
from pipeline.evaluate.evaluation import EvaluationTask, evaluate
from pipeline.evaluate.set_metrics import summarise

PINNED = Path(__file__).parent / "pinned.json"
TIERS = ("light", "standard")
#: Set → how many of its series (None: all).
SLICE = {"nab": None, "tsb-ad-u-r": 30, "ucr": 13, "kpi": 3, "nasa": 8, "skab": 12, "stocks": None}


def figures(tier: str, name: str, data: Path, made: Path) -> dict[str, float]:
    """The figures of a tier on the slice of one set, those that can be better or worse."""
    chosen = SETS[name]
    folder = data / chosen.folder
    if chosen.maker:
        inject.MAKERS[chosen.maker](folder, made)
        folder = made
    summary = summarise(
        evaluate(EvaluationTask(folder, chosen.layout, tier, chosen.preset, limit=SLICE[name]))
    )
    return {
        figure.name: round(figure.all, 4)
        for figure in summary.figures
        if figure.better and figure.name in chosen.figures
    }


def pinned() -> dict[str, dict[str, dict[str, float]]]:
    """tier → set → figure → value."""
    return dict(json.loads(PINNED.read_text()))


def worst_allowed(figure: str, value: float) -> float:
    """How bad a pinned figure may get: libraries and processors round differently, and one event of few is a
    large step.
    """
    if figure.startswith(("median delay", "false alarms", "row FAR")):
        return value + 0.25 * abs(value) + 0.5
    return value - 0.04 * abs(value) - 0.01
