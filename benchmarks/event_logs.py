"""Logs without sessions, made and real, with the default configuration.

    python -m benchmarks.event_logs                                   # made logs
    python -m benchmarks.event_logs --data ../shared/data/events      # six real logs, both halves

A made log is written by eight programs at the same time. Each repeats its steps, at a rate that depends on
the phase of the system, and a phase has about 250 lines. One line in a hundred is a rare one. In a growing
log, templates appear that were never seen, fewer with time, some of them as a burst. A fault is put after 100
further lines and has at most 40 lines. The real logs are samples of 2,000 lines.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.events import SYSTEMS
from detectors.sequences.detector import Events, EventVerdicts, NextEventDetector
from detectors.sequences.fit import fit_detector, pieces_of
from pipeline.decode.log_templates import LogTemplates

PROGRAMS, PHASES, RARE = 8, 4, 10
TESTED, FAULTS, BEFORE = 3000, 20, 100
CLOSE_AFTER = 3
KINDS = ("one new code", "burst of it", "many new codes", "burst of a rare one", "steps reversed")


class MadeLog:
    """Writer of one log."""

    def __init__(self, seed: int, growth: float) -> None:
        """Draw the programs and their rates.

        ``growth`` is the expected number of new templates of a line, times √lines.
        """
        self.rng, self.growth = random.Random(seed), growth
        self.programs = [
            [f"program{p} step{s}" for s in range(self.rng.randrange(2, 7))] for p in range(PROGRAMS)
        ]
        rates = (0.02, 0.2, 1.0, 3.0)
        self._rates = [[self.rng.choice(rates) for _ in range(PROGRAMS)] for _ in range(PHASES)]
        self._at, self._phase = [0] * PROGRAMS, 0
        self._lines, self._new, self._burst = 0, 0, list[str]()

    def rare(self) -> str:
        """Return a rare code."""
        return f"rare{self.rng.randrange(RARE)}"

    def line(self) -> str:
        """Return the code of the next line."""
        rng = self.rng
        self._lines += 1
        if rng.random() < 1 / 250:
            self._phase = rng.randrange(PHASES)
            return f"phase{self._phase}"
        if self._burst:
            return self._burst.pop()
        if rng.random() < self.growth / self._lines**0.5:
            self._new += 1
            self._burst = [f"new{self._new}"] * rng.choice((0, 0, 0, 1, 2, 5))
            return f"new{self._new}"
        if self._new and rng.random() < 0.03:
            return f"new{rng.randrange(1, self._new + 1)}"
        return self.rare() if rng.random() < 0.01 else self._step()

    def lines(self, count: int) -> list[str]:
        """Return the codes of the next lines."""
        return [self.line() for _ in range(count)]

    def fault(self, kind: str) -> list[str]:
        """Return the codes of a fault, one of ``KINDS``, among ordinary lines."""
        if kind == "one new code":
            return ["never seen"]
        codes = {
            "burst of it": ["never seen"] * 20,
            "many new codes": [f"never seen {number}" for number in range(20)],
            "burst of a rare one": [self.rare()] * 20,
            "steps reversed": max(self.programs, key=len)[::-1] * 3,
        }[kind]
        return [one for code in codes for one in (code, *self.lines(self.rng.randrange(2)))]

    def _step(self) -> str:
        (program,) = self.rng.choices(range(PROGRAMS), self._rates[self._phase])
        steps, at = self.programs[program], self._at[program]
        ends_early = len(steps) > 3 and self.rng.random() < 0.05
        self._at[program] = 0 if ends_early else (at + 1) % len(steps)
        return steps[at]


def judged(detector: NextEventDetector, codes: list[str]) -> EventVerdicts:
    """Return the verdicts on a log."""
    token = detector.vocabulary.encode(codes)
    return detector.step(detector.initial(1), Events(np.zeros(len(token), np.int32), token))[1]


def incidents(flag: np.ndarray) -> int:
    """Return the number of runs of flagged lines, with few quiet ones in between."""
    return int(np.count_nonzero(np.diff(np.flatnonzero(flag)) > CLOSE_AFTER) + flag.any())


def measure_made_logs(sizes: list[int], seeds: int) -> None:
    """Print the flagged ordinary lines and the found faults of each kind."""
    print(
        "growth  learned  seed   limit  window  ordinary: flagged, incidents  "
        + "  ".join(f"{kind:>14s}" for kind in KINDS)
    )
    for growth in (0.0, 1.0):
        for size in sizes:
            for seed in range(seeds):
                log = MadeLog(seed, growth)
                learned = log.lines(size)
                detector, _ = fit_detector(
                    pieces_of(learned, min(100, size // 50)), sessions=False, seed=seed
                )
                context = len(learned)
                flag = judged(detector, learned + log.lines(TESTED)).flag[context:]
                shares = []
                for kind in KINDS:
                    found = 0
                    for number in range(FAULTS):
                        copy = deepcopy(log)
                        copy.rng = random.Random(number)
                        before = copy.lines(BEFORE)
                        found += judged(detector, before + copy.fault(kind)).flag[BEFORE:].any()
                    shares.append(found / FAULTS)
                print(
                    f"{growth:6.1f} {size:8d} {seed:5d} {detector.limit:7.2f} {detector.window_limit:7.2f}"
                    f" {flag.mean():18.4f} {incidents(flag):11d}"
                    + "  ".join(f"{share:14.2f}" for share in shares),
                    flush=True,
                )


def halves_of_log(data: Path, system: str) -> Iterator[tuple[list[str], list[str], np.ndarray]]:
    """Yield learned codes, tested codes, and which tested lines are alerts."""
    frame = pd.read_csv(data / f"{system}_2k.structured.csv.gz")
    lines = [str(line) for line in frame["Content"]]
    alert = (frame["Label"] != "-").to_numpy() if "Label" in frame else np.zeros(len(frame), np.bool_)
    half = len(lines) // 2
    for learned, tested in ((slice(None, half), slice(half, None)), (slice(half, None), slice(None, half))):
        templates = LogTemplates()
        before = [templates.code(line) for line in lines[learned]]
        yield before, [templates.code(line) for line in lines[tested]], alert[tested]


def measure_real_logs(data: Path) -> None:
    """Print alarms on ordinary lines and on alerts."""
    print(
        "log        half  codes  new lines   limit  window  ordinary lines: alarms, incidents   alerts found"
    )
    for system in SYSTEMS:
        for number, (before, after, alert) in enumerate(halves_of_log(data, system)):
            detector, _ = fit_detector(pieces_of(before, len(before) // 50), sessions=False)
            flag = judged(detector, after).flag
            new = np.mean(~np.isin(np.array(after), list(set(before))))
            print(
                f"{system:10s} {number:4d} {len(set(before)):6d} {new:10.3f} {detector.limit:7.2f}"
                f" {detector.window_limit:7.2f} {flag[~alert].mean():22.4f} {incidents(flag & ~alert):10d}"
                f" {int((flag & alert).sum()):10d} of {int(alert.sum())}",
                flush=True,
            )


def main() -> None:
    """Run the measurements that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", type=int, default=[1000, 5000])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    if given.data is None:
        measure_made_logs(given.sizes, given.seeds)
    else:
        measure_real_logs(given.data)


if __name__ == "__main__":
    main()
