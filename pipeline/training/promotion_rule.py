"""The evidence card: a challenger beside the champion and seasonal naive on what neither learnt from, and the
rule that decides.

The rule (``decide``): a challenger is promoted if nothing speaks against it and something speaks for it.

Against it: it forecasts worse than seasonal naive; or worse than the champion by more than ``TOLERATED``; it
raises clearly more alarms on what nobody called an anomaly; it misses a labelled anomaly that the champion
caught; it repeats an alarm that was labelled false and the champion does not; its tail probabilities are
further from the truth; it catches fewer synthetic changes; it is much slower. For it: it forecasts better by
at least ``GAIN``, on significantly more than half of the series where there are enough to tell; or it catches
labelled anomalies that the champion misses; or it no longer repeats alarms that were labelled false.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from detectors.base import DetectorSpec
from pipeline.core.errors import InputError
from pipeline.training.backtest import Backtest, BacktestConfig, Trial, chosen, seasonal_naive
from pipeline.training.dataset import TrainingData
from pipeline.training.post_promotion_check import MAX_TIME_RATIO
from pipeline.training.quarantine import ReviewLabel

GAIN: Final = 0.01  # of the champion's error
TOLERATED: Final = 0.01
SIGNIFICANT: Final = 0.05  # of the one-sided sign test over series
ENOUGH: Final = 6  # series for that test
MORE_ALARMS: Final = 1.5  # times the champion's, and more than ``SPARE`` more
SPARE: Final = 2
WORSE_TAIL: Final = 0.3  # decades further from the truth at one in a hundred
LESS_POWER: Final = 0.05  # of the share of synthetic changes

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """``promote``, and why: what speaks ``against`` (each alone is enough to refuse) and what ``in_favour``."""

    promote: bool
    against: tuple[str, ...]
    in_favour: tuple[str, ...]

    @property
    def reason(self) -> str:
        """One sentence."""
        if self.against:
            return "rejected: " + "; ".join(self.against)
        return (
            "promoted: " + "; ".join(self.in_favour)
            if self.promote
            else "rejected: nothing is better than with the champion"
        )


@dataclass(frozen=True, slots=True)
class EvidenceCard:
    """What is known of a challenger.

    naive: MASE of seasonal naive by series, ``naive_mase`` its median; times in ns; all figures of the
    held-out end.
    """

    stream: str
    since_ns: int
    until_ns: int
    series: int
    quarantined: int
    challenger: Backtest
    champion: Backtest
    naive_mase: float
    naive: dict[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON: the figures, the rule's decision and its reason.

        Series' own errors stay out: there may be thousands.
        """
        card = asdict(self)
        for part in (card["challenger"], card["champion"]):
            del part["errors"]
            # The stored cards have these keys.
            part["caught"], part["smallest"] = part.pop("detected"), part.pop("minimum_size")
        del card["naive"]
        decision = decide_promotion(self)
        found: dict[str, Any] = _plain(
            card | {"promote": decision.promote, "reason": decision.reason} | asdict(decision)
        )
        return found

    def text(self) -> str:
        """For people: a table of both, the baseline, and the decision."""
        return "\n".join(
            [
                *_head(self),
                *_table(self),
                "",
                decide_promotion(self).reason[0].upper() + decide_promotion(self).reason[1:] + ".",
            ]
        )


def make_evidence_card(
    data: TrainingData,
    spec: DetectorSpec,
    challenger: Weights | None,
    champion: Weights | None,
    config: BacktestConfig | None = None,
    review_labels: Sequence[ReviewLabel] = (),
) -> EvidenceCard:
    """Backtest both (None: the weights of the package) on the end of ``data``, which must reach beyond what
    the challenger was trained on.

    ``review_labels`` are those that ``data`` were made with. Raises InputError where no series has a held-out end
    to be judged on.
    """
    config = config or BacktestConfig()
    data = chosen(data, config)
    trial = Trial(data, spec, config, review_labels)
    if not data.allowed[trial.rows].any():
        raise InputError(
            f"stream {data.stream}: nothing outside of the quarantine is left to judge a model on; wait for more history"
        )
    fair = trial.rows[data.allowed[trial.rows]]
    naive = seasonal_naive(data, trial.until, fair)
    return EvidenceCard(
        stream=data.stream,
        since_ns=int(data.time[trial.rows].min()),
        until_ns=int(data.time[trial.rows].max()),
        series=len(data.series),
        quarantined=int((~data.allowed[trial.rows]).sum()),
        challenger=trial.run(challenger, lived=False),
        champion=trial.run(champion, lived=True),
        naive_mase=float(np.median(list(naive.values()))) if naive else math.nan,
        naive=naive,
    )


def decide_promotion(card: EvidenceCard) -> PromotionDecision:
    """The rule at the head of this module."""
    new, old = card.challenger, card.champion
    against = [text for wrong, text in _objections(card) if wrong]
    in_favour = []
    wins = [
        new.errors[name] < old.errors[name]
        for name in new.errors.keys() & old.errors.keys()
        if new.errors[name] != old.errors[name]
    ]
    sure = len(wins) < ENOUGH or binomtest(sum(wins), len(wins), alternative="greater").pvalue < SIGNIFICANT
    if new.mase <= (1 - GAIN) * old.mase and sure:
        in_favour.append(
            f"its forecast error is {1 - new.mase / old.mase:.1%} smaller, on {sum(wins)} of {len(wins)} series"
        )
    if more := sorted(set(new.detected) - set(old.detected)):
        in_favour.append(
            f"it catches {len(more)} labelled anomalies that the champion misses ({', '.join(more[:3])})"
        )
    if fewer := sorted(set(old.repeated) - set(new.repeated)):
        in_favour.append(
            f"it no longer repeats {len(fewer)} alarms that were labelled false ({', '.join(fewer[:3])})"
        )
    return PromotionDecision(bool(in_favour) and not against, tuple(against), tuple(in_favour))


def _objections(card: EvidenceCard) -> list[tuple[bool, str]]:
    new, old, naive = card.challenger, card.champion, card.naive_mase
    missed = sorted(set(old.detected) & set(new.missed))
    repeated = sorted(set(new.repeated) - set(old.repeated))
    power = {kind: (new.power[kind], old.power[kind]) for kind in new.power if kind in old.power}
    mean_power = [float(np.mean([pair[i] for pair in power.values()])) if power else 0.0 for i in range(2)]
    return [
        (not math.isfinite(new.mase), "it forecasts nothing"),
        (new.mase >= naive, f"seasonal naive forecasts as well ({naive:.3f} against its {new.mase:.3f})"),
        (
            new.mase > (1 + TOLERATED) * old.mase,
            f"its forecast error is {new.mase / old.mase - 1 if old.mase else math.inf:.1%} larger",
        ),
        (
            new.alarms > max(MORE_ALARMS * old.alarms, old.alarms + SPARE),
            f"it would have raised {new.alarms} alarms, the champion {old.alarms}",
        ),
        (
            bool(missed),
            f"it misses {len(missed)} labelled anomalies that the champion caught ({', '.join(missed[:3])})",
        ),
        (
            bool(repeated),
            f"it repeats {len(repeated)} alarms that were labelled false ({', '.join(repeated[:3])})",
        ),
        (
            _off(new) > _off(old) + WORSE_TAIL,
            f"one in a hundred is {new.tails['2']:.2%} with it, {old.tails['2']:.2%} with the champion",
        ),
        (
            mean_power[0] < mean_power[1] - LESS_POWER,
            f"it catches {mean_power[0]:.0%} of the synthetic changes, the champion {mean_power[1]:.0%}",
        ),
        (
            new.microseconds > MAX_TIME_RATIO * old.microseconds,
            f"it takes {new.microseconds:.1f} µs a point, the champion {old.microseconds:.1f}",
        ),
    ]


def _off(one: Backtest) -> float:
    """Decades between the share of points beyond "one in a hundred" and a hundredth; fewer than that is no
    fault.
    """
    return max(0.0, math.log10(max(one.tails["2"], 1e-6) / 0.01))


def _head(card: EvidenceCard) -> list[str]:
    since, until = (np.datetime64(ns, "ns").astype("datetime64[m]") for ns in (card.since_ns, card.until_ns))
    return [
        f"Evidence for stream {card.stream}: {card.challenger.version} (challenger) against {card.champion.version} (champion)",
        f"{card.series} series, held out {since} to {until} UTC, {card.challenger.points} points, {card.quarantined} more in quarantine",
        "",
    ]


def _table(card: EvidenceCard) -> list[str]:
    new, old = card.challenger, card.champion
    rows = [
        ("", "challenger", "champion", "wanted"),
        ("forecast error (MASE)", f"{new.mase:.3f}", f"{old.mase:.3f}", f"< {card.naive_mase:.3f} (seasonal naive)"),
        ("inside the band", f"{new.covered:.2%}", f"{old.covered:.2%}", "most"),
        *((f"p ≤ 10^-{level}", f"{new.tails[level]:.3%}", f"{old.tails[level]:.3%}", f"{10.0 ** -int(level):.1%}") for level in new.tails),
        ("alarms", str(new.alarms), str(old.alarms), "few"),
        ("labelled true: caught", _of(new), _of(old), "all"),
        ("labelled false: repeated", str(len(new.repeated)), str(len(old.repeated)), "0"),
        *(
            (f"synthetic {kind}: caught", _caught(new, kind), _caught(old, kind), "more")
            for kind in new.power
        ),
        ("µs a point", f"{new.microseconds:.1f}", f"{old.microseconds:.1f}", "few"),
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _of(one: Backtest) -> str:
    return f"{len(one.detected)} of {len(one.detected) + len(one.missed)}"


def _caught(one: Backtest, kind: str) -> str:
    minimum_size = one.minimum_size.get(kind)
    size = (
        ""
        if kind == "flat"
        else f", from {minimum_size:g} spreads"
        if minimum_size is not None
        else ", none surely"
    )
    return f"{one.power.get(kind, 0.0):.0%}{size}"


def _plain(value: Any) -> Any:
    """JSON has no NaN and no tuples."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
