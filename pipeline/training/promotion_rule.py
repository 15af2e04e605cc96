"""The evidence card of a challenger, and the promotion rule.

The card compares challenger, champion and the seasonal naive forecast on data that no training used. The rule
(``decide_promotion``) promotes a challenger if no objection holds and at least one gain does.

Objections: it forecasts worse than seasonal naive, or worse than the champion by more than
``MAX_ERROR_INCREASE``; it raises clearly more alarms outside of labelled anomalies; it misses a labelled
anomaly that the champion detected; it repeats an alarm labelled false and the champion does not; its tail
probabilities are further from the nominal ones; it detects fewer synthetic changes; it is much slower.

Gains: its forecast error is smaller by at least ``MIN_ERROR_REDUCTION``, on significantly more than half of
the series where there are enough for a test; it detects labelled anomalies that the champion misses; it no
longer repeats alarms labelled false.
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
from pipeline.training.backtest import Backtest, BacktestConfig, Trial, choose_series, seasonal_naive
from pipeline.training.dataset import TrainingData
from pipeline.training.post_promotion_check import MAX_TIME_RATIO
from pipeline.training.quarantine import ReviewLabel

MIN_ERROR_REDUCTION: Final = 0.01  # of the champion's error
MAX_ERROR_INCREASE: Final = 0.01
SIGNIFICANCE: Final = 0.05  # of the one-sided sign test over series
MIN_SERIES_FOR_TEST: Final = 6  # series for that test
MAX_ALARM_RATIO: Final = 1.5  # times the champion's, and more than ``SPARE`` more
MAX_EXTRA_ALARMS: Final = 2
MAX_TAIL_DECADES: Final = 0.3  # decades further from the truth at one in a hundred
MAX_POWER_LOSS: Final = 0.05  # of the share of synthetic changes

Weights = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class PromotionDecision:
    """The decision of the rule.

    ``against``: objections, each of which alone rejects; ``in_favour``: gains.
    """

    promote: bool
    against: tuple[str, ...]
    in_favour: tuple[str, ...]

    @property
    def reason(self) -> str:
        """The decision in one sentence."""
        if self.against:
            return "rejected: " + "; ".join(self.against)
        return (
            "better than the champion: " + "; ".join(self.in_favour)
            if self.promote
            else "rejected: nothing is better than with the champion"
        )


@dataclass(frozen=True, slots=True)
class EvidenceCard:
    """The evidence about a challenger, all of the held-out end.

    naive: MASE of seasonal naive by series, ``naive_mase`` its median; times in ns.
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
        """Return the figures, the decision and its reason as plain JSON.

        The errors by series are left out: there may be thousands.
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
        """Return a table of both versions, the baseline and the decision, for people."""
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
    """Backtest challenger and champion on the end of ``data``.

    The data must reach beyond the challenger's training. Raises InputError if no series has a held-out end.

    Args:
        data: the data, made with ``review_labels``.
        spec: specification of the detector.
        challenger: weights of the challenger; None for the packaged ones.
        champion: weights of the champion; None for the packaged ones.
        config: how much to backtest.
        review_labels: reviews of the stream.
    """
    config = config or BacktestConfig()
    data = choose_series(data, config)
    trial = Trial(data, spec, config, review_labels)
    if not data.allowed[trial.rows].any():
        raise InputError(
            f"stream {data.stream}: nothing outside of the quarantine is left to judge a model "
            f"on; wait for more history"
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
    """Apply the rule of this module to a card."""
    new, old = card.challenger, card.champion
    against = [text for wrong, text in _objections(card) if wrong]
    in_favour = []
    wins = [
        new.errors[name] < old.errors[name]
        for name in new.errors.keys() & old.errors.keys()
        if new.errors[name] != old.errors[name]
    ]
    sure = (
        len(wins) < MIN_SERIES_FOR_TEST
        or binomtest(sum(wins), len(wins), alternative="greater").pvalue < SIGNIFICANCE
    )
    # A champion without any error cannot be improved on.
    if old.mase > 0 and new.mase <= (1 - MIN_ERROR_REDUCTION) * old.mase and sure:
        in_favour.append(
            f"its forecast error is {1 - new.mase / old.mase:.1%} smaller, on {sum(wins)} of "
            f"{len(wins)} series"
        )
    if more := sorted(set(new.detected) - set(old.detected)):
        in_favour.append(
            f"it detects {len(more)} labelled anomalies that the champion misses ({', '.join(more[:3])})"
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
            new.mase > (1 + MAX_ERROR_INCREASE) * old.mase,
            f"its forecast error is {new.mase / old.mase - 1:.1%} larger"
            if old.mase
            else f"its forecast error is {new.mase:.3g}, the champion has none",
        ),
        (
            new.alarms > max(MAX_ALARM_RATIO * old.alarms, old.alarms + MAX_EXTRA_ALARMS),
            f"it would have raised {new.alarms} alarms, the champion {old.alarms}",
        ),
        (
            bool(missed),
            f"it misses {len(missed)} labelled anomalies that the champion detected "
            f"({', '.join(missed[:3])})",
        ),
        (
            bool(repeated),
            f"it repeats {len(repeated)} alarms that were labelled false ({', '.join(repeated[:3])})",
        ),
        (
            _tail_error(new) > _tail_error(old) + MAX_TAIL_DECADES,
            f"one in a hundred is {new.tails['2']:.2%} with it, {old.tails['2']:.2%} with the champion",
        ),
        (
            mean_power[0] < mean_power[1] - MAX_POWER_LOSS,
            f"it detects {mean_power[0]:.0%} of the synthetic changes, the champion {mean_power[1]:.0%}",
        ),
        (
            new.microseconds > MAX_TIME_RATIO * old.microseconds,
            f"it takes {new.microseconds:.1f} µs a point, the champion {old.microseconds:.1f}",
        ),
    ]


def _tail_error(one: Backtest) -> float:
    """Return the excess of points beyond one in a hundred, in decades.

    A deficit counts as 0, and so does a share that is not known.
    """
    share = one.tails["2"]
    return max(0.0, math.log10(max(share, 1e-6) / 0.01)) if math.isfinite(share) else 0.0


def _head(card: EvidenceCard) -> list[str]:
    since, until = (np.datetime64(ns, "ns").astype("datetime64[m]") for ns in (card.since_ns, card.until_ns))
    return [
        f"Evidence for stream {card.stream}: {card.challenger.version} (challenger) "
        f"against {card.champion.version} (champion)",
        f"{card.series} series, held out {since} to {until} UTC, {card.challenger.points} "
        f"points, {card.quarantined} more in quarantine",
        "",
    ]


def _table(card: EvidenceCard) -> list[str]:
    new, old = card.challenger, card.champion
    rows = [
        ("", "challenger", "champion", "wanted"),
        ("forecast error (MASE)", f"{new.mase:.3f}", f"{old.mase:.3f}", f"< {card.naive_mase:.3f} (seasonal naive)"),
        ("inside the band", f"{new.covered:.2%}", f"{old.covered:.2%}", "most"),
        *(
            (f"p ≤ 10^-{level}", _share(new.tails[level]), _share(old.tails[level]), f"{10.0 ** -int(level):.1%}")
            for level in new.tails
        ),
        ("alarms", str(new.alarms), str(old.alarms), "few"),
        ("labelled true: detected", _detected_of_labelled(new), _detected_of_labelled(old), "all"),
        ("labelled false: repeated", str(len(new.repeated)), str(len(old.repeated)), "0"),
        *(
            (f"synthetic {kind}: detected", _detected_share(new, kind), _detected_share(old, kind), "more")
            for kind in new.power
        ),
        ("µs a point", f"{new.microseconds:.1f}", f"{old.microseconds:.1f}", "few"),
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _share(share: float) -> str:
    return f"{share:.3%}" if math.isfinite(share) else "too few points"


def _detected_of_labelled(one: Backtest) -> str:
    return f"{len(one.detected)} of {len(one.detected) + len(one.missed)}"


def _detected_share(one: Backtest, kind: str) -> str:
    minimum_size = one.minimum_size.get(kind)
    size = (
        ""
        if kind == "flat"
        else f", from {minimum_size:g} deviations"
        if minimum_size is not None
        else ", at no size reliably"
    )
    return f"{one.power.get(kind, 0.0):.0%}{size}"


def _plain(value: Any) -> Any:
    """Replace NaN by None and tuples by lists, because JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value
