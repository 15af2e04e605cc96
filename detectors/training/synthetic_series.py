"""Seeded synthetic series for pretraining and tests.

They need no licence, and no evaluation set leaks into them. A series is a *shape* (62 % seasonal in seven
wave families; ARMA, walks, piecewise, intermittent, chaotic) with *noise* and *changes* (trend, level shift,
spikes, stuck values, rounding, missing points) in random units.

>>> batch(seed=1, n=2, length=100).shape
(2, 100)
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from scipy.signal import lfilter

Series = NDArray[np.float64]
Shape = Callable[[Generator, int], Series]

PERIOD_RANGE_STEPS = (4.0, 512.0)


def batch(seed: int | tuple[int, ...], n: int, length: int) -> NDArray[np.float64]:
    """Return ``n`` series of ``length`` points, (n, length).

    NaN marks a missing point. Row i depends on ``seed`` and i alone.
    """
    rows = np.random.SeedSequence(seed).spawn(n)
    return np.stack([one(np.random.default_rng(row), length) for row in rows])


def one(rng: Generator, length: int) -> Series:
    """Return one series (length,) of a family drawn by ``SHARES``."""
    names = list(SHARES)
    return of_family(str(rng.choice(names, p=[SHARES[name] for name in names])), rng, length)


def of_family(family: str, rng: Generator, length: int) -> Series:
    """Return one series (length,) of a family of ``SHARES``.

    It has noise and changes, in random units.
    """
    x = FAMILIES[family](rng, length)
    x = x / (x.std() + 1e-9)
    if rng.random() < 0.8:
        x = x + _noise(rng, length) * math.exp(rng.uniform(math.log(0.003), math.log(0.7)))
    for share, change in CHANGES:
        if rng.random() < share:
            x = change(rng, x)
    unit = 10.0 ** rng.uniform(-3, 4)
    return unit * (x + rng.choice([0.0, 5.0, rng.normal(0, 30)]))


def _log_uniform(rng: Generator, low: float, high: float) -> float:
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _noise(rng: Generator, n: int) -> Series:
    """Draw white, heavy-tailed or autocorrelated noise, or noise of changing variance."""
    kind = rng.integers(4)
    if kind == 1:
        return rng.standard_t(3, n) / 1.7
    white = rng.normal(size=n)
    if kind == 2:
        a = rng.uniform(0.3, 0.95)
        return lfilter([math.sqrt(1 - a * a)], [1.0, -a], white)
    if kind == 3:
        return white * np.exp(0.5 * lfilter([0.1], [1.0, -0.99], rng.normal(size=n)))
    return white


# Seasonal: a wave family read along a phase that may jitter.


def _seasonal(rng: Generator, n: int) -> Series:
    """Draw a wave of period 4–512, more often a shorter one.

    Some have a second season, added or as an envelope.
    """
    period = _log_uniform(rng, *PERIOD_RANGE_STEPS)
    if rng.random() < 0.6:
        period = float(round(period))
    x = _wave(rng, _phase(rng, n, period))
    if rng.random() < 0.25:
        other = _wave(rng, _phase(rng, n, period * float(rng.choice([2, 3, 5, 7, rng.uniform(1.5, 9)]))))
        x = x * (1.0 + 0.4 * other) if rng.random() < 0.4 else x + rng.uniform(0.2, 1.5) * other
    if rng.random() < 0.3:  # strength changes from one cycle to the next
        x = x * np.exp(0.3 * lfilter([0.05], [1.0, -0.95], rng.normal(size=n)))
    return x


def _phase(rng: Generator, n: int, period: float) -> Series:
    """Return the cycles since the start; jitter makes the period vary."""
    jitter = 0.0 if rng.random() < 0.6 else _log_uniform(rng, 0.002, 0.05)
    return rng.random() + np.cumsum((1.0 + jitter * rng.normal(size=n)) / period)


def _wave(rng: Generator, phase: Series) -> Series:
    return WAVES[int(rng.integers(len(WAVES)))](rng, phase)


def _sine(rng: Generator, phase: Series) -> Series:
    return np.sin(2 * np.pi * phase)


def _harmonics(rng: Generator, phase: Series) -> Series:
    orders = np.arange(1, rng.integers(3, 8))
    weights = rng.normal(size=len(orders)) / orders
    return (
        weights[:, None] * np.sin(2 * np.pi * (orders[:, None] * phase + rng.random((len(orders), 1))))
    ).sum(0)


def _square(rng: Generator, phase: Series) -> Series:
    return (phase % 1.0 < rng.uniform(0.1, 0.9)).astype(float)


def _saw(rng: Generator, phase: Series) -> Series:
    top = rng.uniform(0.02, 0.98)
    at = phase % 1.0
    return np.where(at < top, at / top, (1 - at) / (1 - top))


def _bumps(rng: Generator, phase: Series) -> Series:
    """Draw a few Gaussian bumps a cycle, as of heart beats or machine strokes."""
    count = rng.integers(1, 6)
    centre, width, height = (
        rng.random((count, 1)),
        _log_uniform(rng, 0.01, 0.1) * rng.uniform(0.5, 2, (count, 1)),
        rng.normal(0, 1, (count, 1)),
    )
    distance = (phase - centre + 0.5) % 1.0 - 0.5
    return (height * np.exp(-0.5 * (distance / width) ** 2)).sum(0)


def _template(rng: Generator, phase: Series) -> Series:
    """Draw a random shape that repeats each cycle, linear between knots or stepwise."""
    knots = rng.normal(size=rng.integers(4, 25))
    at = (phase % 1.0) * len(knots)
    if rng.random() < 0.3:
        return knots[at.astype(int) % len(knots)]
    return np.interp(at, np.arange(len(knots) + 1), np.r_[knots, knots[:1]])


def _day(rng: Generator, phase: Series) -> Series:
    """Draw low nights and high days, with lower weekends."""
    day = np.clip(np.sin(2 * np.pi * phase) + rng.uniform(-0.3, 0.6), 0.0, None) ** rng.uniform(0.5, 2.0)
    weekend = (phase % 7.0) >= 5.0
    return day * np.where(weekend, rng.uniform(0.2, 1.0), 1.0)


WAVES: tuple[Callable[[Generator, Series], Series], ...] = (
    _sine,
    _harmonics,
    _square,
    _saw,
    _bumps,
    _template,
    _day,
)


# Other shapes.


def _arma(rng: Generator, n: int) -> Series:
    """Draw a stationary ARMA series.

    Its poles are inside the unit circle; complex pairs give stochastic cycles.
    """
    poles: list[complex] = []
    for _ in range(rng.integers(1, 4)):
        radius = rng.uniform(0.2, 0.98)
        turn = 0.0 if rng.random() < 0.5 else rng.uniform(0, np.pi)
        poles += (
            [radius * np.exp(1j * turn), radius * np.exp(-1j * turn)]
            if turn
            else [radius * rng.choice([-1.0, 1.0, 1.0])]
        )
    numerator = np.r_[1.0, rng.normal(0, 0.4, rng.integers(0, 3))]
    return lfilter(numerator, np.poly(poles).real, rng.normal(size=n + 200))[200:]


def _walk(rng: Generator, n: int) -> Series:
    """Draw a random walk, with momentum, heavy tails or volatility clusters (prices)."""
    steps = _noise(rng, n) + rng.normal(0, 0.05)
    return np.cumsum(lfilter([1.0], [1.0, -rng.uniform(0, 0.8)], steps) if rng.random() < 0.3 else steps)


def _piecewise(rng: Generator, n: int) -> Series:
    """Draw levels or ramps of random duration, sometimes from a few states only."""
    mean = _log_uniform(rng, 8, 300)
    piece = np.cumsum(rng.random(n) < 1.0 / mean)
    if rng.random() < 0.4:
        levels = rng.choice(rng.normal(size=rng.integers(2, 5)), piece[-1] + 1)
    else:
        levels = rng.normal(size=piece[-1] + 1)
    x = levels[piece]
    return np.cumsum(x) / mean if rng.random() < 0.3 else x


def _intermittent(rng: Generator, n: int) -> Series:
    """Draw counts, or a series that is mostly zero with bursts."""
    rate = _log_uniform(rng, 0.02, 0.5)
    if rng.random() < 0.5:
        return rng.poisson(rate * 5 * np.exp(lfilter([0.1], [1.0, -0.95], rng.normal(size=n)))).astype(float)
    return (rng.random(n) < rate) * rng.lognormal(0, rng.uniform(0.1, 1.0), n)


def _chaotic(rng: Generator, n: int) -> Series:
    """Draw a logistic map, or the Mackey–Glass delay equation (1977) in Euler steps."""
    x = np.empty(n)
    if rng.random() < 0.5:
        r, x[0] = rng.uniform(3.6, 4.0), rng.uniform(0.1, 0.9)
        for t in range(1, n):
            x[t] = r * x[t - 1] * (1 - x[t - 1])
        return lfilter([1.0], [1.0, -rng.uniform(0, 0.9)], x)
    delay = int(rng.integers(12, 30))
    x[: delay + 1] = 1.2 + 0.1 * rng.normal(size=delay + 1)
    for t in range(delay + 1, n):
        x[t] = 0.9 * x[t - 1] + 0.2 * x[t - 1 - delay] / (1.0 + x[t - 1 - delay] ** 10)
    return x


SHARES = {
    "seasonal": 0.62,
    "arma": 0.12,
    "walk": 0.08,
    "piecewise": 0.08,
    "intermittent": 0.06,
    "chaotic": 0.04,
}
FAMILIES: dict[str, Shape] = {
    "seasonal": _seasonal, "arma": _arma, "walk": _walk, "piecewise": _piecewise, "intermittent": _intermittent, "chaotic": _chaotic,
}  # fmt: skip


# Changes.


def _trend(rng: Generator, x: Series) -> Series:
    return x + rng.normal(0, 3) * np.linspace(0, 1, len(x)) ** rng.choice([1.0, 2.0, 0.5])


def _shift(rng: Generator, x: Series) -> Series:
    """Add a lasting change of level from a random point on."""
    return x + rng.normal(0, 3) * (np.arange(len(x)) >= rng.integers(len(x)))


def _scale(rng: Generator, x: Series) -> Series:
    """Apply a lasting change of amplitude from a random point on."""
    return np.where(np.arange(len(x)) >= rng.integers(len(x)), x * _log_uniform(rng, 0.3, 3.0), x)


def _spikes(rng: Generator, x: Series) -> Series:
    hit = rng.random(len(x)) < _log_uniform(rng, 0.0005, 0.01)
    return x + hit * rng.normal(0, 6, len(x))


def _positive(rng: Generator, x: Series) -> Series:
    """Make the series positive and skewed, as loads and counts are."""
    return np.exp(rng.uniform(0.3, 1.2) * np.clip(x, -4, 4))


def _stuck(rng: Generator, x: Series) -> Series:
    """Repeat the first value over one stretch."""
    start, long = int(rng.integers(len(x))), int(_log_uniform(rng, 5, 150))
    out = x.copy()
    out[start : start + long] = x[start]
    return out


def _rounded(rng: Generator, x: Series) -> Series:
    grain = _log_uniform(rng, 0.01, 0.7)
    return np.round(x / grain) * grain


def _missing(rng: Generator, x: Series) -> Series:
    """Remove single points and one longer gap."""
    gone = rng.random(len(x)) < _log_uniform(rng, 0.001, 0.05)
    start = int(rng.integers(len(x)))
    gone[start : start + int(_log_uniform(rng, 2, 60))] = True
    return np.where(gone, np.nan, x)


CHANGES: tuple[tuple[float, Callable[[Generator, Series], Series]], ...] = (
    (0.15, _positive), (0.2, _trend), (0.2, _shift), (0.1, _scale), (0.25, _spikes), (0.2, _rounded), (0.1, _stuck), (0.1, _missing),
)  # fmt: skip
