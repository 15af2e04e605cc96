"""Golden verdicts of the decision by usual ranges on three synthetic channels.

Run as a program, it writes them again: ``python -m tests.support.usual_range_golden``.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from detectors import DetectorSpec, build, contract
from detectors.base import Points, Verdicts

FILE = Path(__file__).parents[1] / "unit" / "detectors" / "golden" / "usual_range.json"
ROWS_PER_DAY, EVERY_NS = 288, 5 * contract.MINUTE_NS
ROWS, ONE_BY_ONE = 16 * ROWS_PER_DAY, 200  # the last rows are also given one at a time
MONDAY_NS = 1_704_067_200_000_000_000
CASES = {
    "light": DetectorSpec(tier="light", decision="usual_range", channels=("a", "b", "c")),
    "standard": DetectorSpec(tier="standard", decision="usual_range", channels=("a", "b", "c")),
    "strong": DetectorSpec(tier="strong", decision="usual_range", channels=("a", "b", "c")),
}


def points() -> Points:
    """Return a wave, a shift machine and a count, with a fault in each and one at the end."""
    rng, row = np.random.default_rng(5), np.arange(ROWS)
    hour, day = row % ROWS_PER_DAY / 12, row // ROWS_PER_DAY
    works = (hour >= 7) & (hour < 17) & (day % 7 < 5)
    values = np.stack(
        [
            20 + 5 * np.sin(2 * np.pi * hour / 24) + rng.normal(0, 0.5, ROWS),
            np.where(works, 100.0, 20.0) + rng.normal(0, 1, ROWS),
            rng.poisson(2, ROWS).astype(float),
        ],
        axis=1,
    )
    values[3_000:3_010, 0] += 9
    values[4_000:4_100, 1] = 60
    values[3_500:3_600, 2] = 9
    values[-50:-40, 0] -= 12
    zeros = np.zeros(ROWS, np.int32)
    return Points(zeros, MONDAY_NS + row * EVERY_NS, values, zeros, np.full(ROWS, EVERY_NS))


def verdicts(case: str, batch: int, last_alone: bool) -> Verdicts:
    """Return the verdicts of ``case`` in batches of ``batch`` rows, the last rows one at a time if asked."""
    cuts = list(range(batch, ROWS - ONE_BY_ONE, batch))
    if last_alone:
        cuts += list(range(ROWS - ONE_BY_ONE, ROWS))
    return contract.run_batches(build(CASES[case]), points(), tuple(cuts))


def outside(found: Verdicts) -> list[dict[str, Any]]:
    """Return the rows outside their range, numbers to six places."""
    names = ("ratio", "observed", "usual_low", "usual_high")
    return [
        {
            "row": i,
            "flag": bool(found.flag[i]),
            "channel": int(found.channel[i]),
            "cause": int(found.cause[i]),
            "side": int(found.side[i]),
        }
        | {name: float(f"{getattr(found, name)[i]:.6g}") for name in names}
        for i in np.flatnonzero(found.ratio > 1).tolist()
    ]


def main() -> None:
    """Write the golden file."""
    cases = {case: outside(verdicts(case, ROWS, False)) for case in CASES}
    FILE.write_text(
        json.dumps(cases, indent=0).replace(',\n"', ', "').replace("{\n", "{").replace("\n}", "}") + "\n"
    )


if __name__ == "__main__":
    main()
