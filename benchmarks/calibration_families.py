"""False alarms of a detector on undisturbed synthetic series of many kinds.

Every alarm on these series is false. Young rows are rows 200 to 2,000 of a series, old rows those from 4,000
on. An alarm is the first flagged row after twelve rows without a flag, as in the daemon.

    python -m benchmarks.calibration_families [--detector standard] [--decision usual_range] [--series 12]
    [--every 5m 1m] [--families normal walk …] [--alarm-rate 1e-4]

Prints a Markdown table of false alarms per 10,000 rows.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from detectors import DetectorSpec, build, contract
from detectors.base import CAUSES, Points, Verdicts
from pipeline.scoring.usual_range import MIN_ROWS_UNTIL_CLOSED

Numbers = NDArray[np.float64]
ROWS = 12_000
MINUTE_NS, DAY_NS = 60_000_000_000, 86_400_000_000_000
CADENCES_NS = {"1m": MINUTE_NS, "5m": 5 * MINUTE_NS}
START_NS = 1_767_571_200_000_000_000  # 2026-01-05, a Monday, 00:00 UTC
YOUNG_ROWS, OLD_ROWS = slice(200, 2_000), slice(4_000, ROWS)
SEED = 7


def autoregressive(rng: np.random.Generator, n: int, phi: float) -> Numbers:
    """Return n values of an AR(1) process of variance 1."""
    x, noise = np.zeros(n), rng.normal(0, np.sqrt(1 - phi * phi), n)
    x[0] = rng.normal()
    for i in range(1, n):
        x[i] = phi * x[i - 1] + noise[i]
    return x


def _garch(rng: np.random.Generator, n: int) -> Numbers:
    x, variance, noise = np.zeros(n), 1.0, rng.normal(size=n)
    for i in range(n):
        x[i] = np.sqrt(variance) * noise[i]
        variance = 0.02 + 0.08 * x[i] ** 2 + 0.9 * variance
    return x


def _set_points(rng: np.random.Generator, n: int) -> Numbers:
    levels: list[float] = []
    while len(levels) < n:
        levels += [float(rng.choice([10, 20, 35, 60]))] * int(rng.exponential(300) + 20)
    return np.array(levels[:n]) + rng.normal(0, 0.3, n)


#: Name → values from a generator, the number of rows, and the daily sine of the rows.
FAMILIES: dict[str, Callable[[np.random.Generator, int, Numbers], Numbers]] = {
    "normal": lambda rng, n, day: 50 + rng.normal(0, 2, n),
    "ar1 .9": lambda rng, n, day: autoregressive(rng, n, 0.9),
    "ar1 .99": lambda rng, n, day: autoregressive(rng, n, 0.99),
    "ar1 .995": lambda rng, n, day: autoregressive(rng, n, 0.995),
    "t3": lambda rng, n, day: rng.standard_t(3, n),
    "garch": lambda rng, n, day: _garch(rng, n),
    "lognormal": lambda rng, n, day: np.exp(5 + 0.5 * day + autoregressive(rng, n, 0.7) * 0.5),
    "rare counts": lambda rng, n, day: rng.poisson(0.01, n).astype(float),
    "counts .3": lambda rng, n, day: rng.poisson(0.3, n).astype(float),
    "set points": lambda rng, n, day: _set_points(rng, n),
    "walk": lambda rng, n, day: np.cumsum(rng.normal(0, 1, n)),
    "seasonal": lambda rng, n, day: 20 + 5 * day + rng.normal(0, 0.5, n),
    "minute traffic": lambda rng, n, day: rng.poisson(
        40 * (1.1 + day) * np.exp(0.1 * autoregressive(rng, n, 0.9))
    ).astype(float),
    "rounded": lambda rng, n, day: np.round(20 + 1.5 * day + 0.3 * autoregressive(rng, n, 0.99), 1),
    "constant": lambda rng, n, day: np.full(n, 50.0),
}
NETWORK_FAMILIES = frozenset({"lognormal"})
#: Families of two channels: the second is half the first, and noise of a fifth of its spread.
RELATED = "related "
RELATED_FAMILIES = tuple(
    RELATED + name for name in ("normal", "ar1 .9", "t3", "garch", "set points", "seasonal")
)
OWN_NOISE_SHARE = 0.2


def family_points(name: str, series: int, every_ns: int, seed: int = SEED) -> Points:
    """Return ``ROWS`` rows of each series of a family.

    Args:
        name: Name of the family, also one of ``RELATED_FAMILIES``.
        series: Number of series.
        every_ns: Cadence.
        seed: Seed of the values.
    """
    n = ROWS
    day = np.sin(2 * np.pi * np.arange(n) * every_ns / DAY_NS)
    of_one = FAMILIES[name.removeprefix(RELATED)]
    made = []
    for i in range(series):
        rng = np.random.default_rng([seed, i, *name.encode()])
        channels = [of_one(rng, n, day)]
        if name.startswith(RELATED):
            own = autoregressive(rng, n, 0.9) * np.std(channels[0]) * OWN_NOISE_SHARE
            channels.append(0.5 * (channels[0] + own))
        made.append(np.stack(channels, axis=1))
    time = np.tile(START_NS + np.arange(n, dtype=np.int64) * every_ns, series)
    slot = np.repeat(np.arange(series, dtype=np.int32), n)
    zeros = np.zeros(n * series, np.int32)
    return Points(slot, time, np.concatenate(made), zeros, np.full(n * series, every_ns, np.int64))


def alarm_starts(flag: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Return the rows of one series at which an alarm begins."""
    rows = np.flatnonzero(flag)
    return rows[np.diff(rows, prepend=-MIN_ROWS_UNTIL_CLOSED - 1) > MIN_ROWS_UNTIL_CLOSED]


def measure(spec: DetectorSpec, name: str, series: int, every_ns: int) -> tuple[list[float], Counter[str]]:
    """Return false alarms per 10,000 young and old rows, and alarms by cause.

    Args:
        spec: The detector.
        name: Name of the family.
        series: Number of series.
        every_ns: Cadence.
    """
    verdicts: Verdicts = contract.run_batches(build(spec), family_points(name, series, every_ns))
    flag, cause = verdicts.flag.reshape(series, ROWS), verdicts.cause.reshape(series, ROWS)
    alarms = [(i, row) for i in range(series) for row in alarm_starts(flag[i])]
    rates = [
        sum(rows.start <= row < rows.stop for _, row in alarms) / (series * (rows.stop - rows.start)) * 1e4
        for rows in (YOUNG_ROWS, OLD_ROWS)
    ]
    return rates, Counter(CAUSES[cause[i, row]] for i, row in alarms)


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--detector", default="standard")
    parser.add_argument("--decision", default="usual_range", choices=("surprise", "usual_range"))
    parser.add_argument("--series", type=int, default=12)
    parser.add_argument("--every", nargs="+", choices=CADENCES_NS, default=["5m"])
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=list(FAMILIES))
    parser.add_argument("--alarm-rate", type=float, default=1e-4)
    return parser.parse_args()


def main() -> None:
    """Run the benchmark of the command line."""
    options = arguments()
    print("| family | cadence | young | old | alarms by cause |\n| --- | --- | --- | --- | --- |")
    for every in options.every:
        sums = []
        for name in options.families:
            spec = DetectorSpec(
                tier=options.detector,
                preset="network" if name in NETWORK_FAMILIES else "sensor",
                decision=options.decision,
                alarm_rate=options.alarm_rate,
            )
            rates, causes = measure(spec, name, options.series, CADENCES_NS[every])
            sums.append(rates)
            told = ", ".join(f"{cause} {count}" for cause, count in causes.most_common())
            print(f"| {name} | {every} | {rates[0]:.2f} | {rates[1]:.2f} | {told} |", flush=True)
        young, old = np.mean(sums, axis=0)
        print(f"| mean | {every} | {young:.2f} | {old:.2f} | |", flush=True)


if __name__ == "__main__":
    main()
