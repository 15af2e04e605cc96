"""The evidence card: real backtests of real detectors, the rule at each of its edges, and a card that people
and programs can read.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detectors import build
from detectors.base import DetectorSpec
from detectors.forecasters.shared_lstm import network
from detectors.training.sequences import FinetuneSettings
from pipeline.core.errors import InputError
from pipeline.training.backtest import Backtest, BacktestConfig, Trial, alarms, choose_series, seasonal_naive
from pipeline.training.dataset import TrainingData
from pipeline.training.promotion_rule import EvidenceCard, decide_promotion, make_evidence_card
from pipeline.training.quarantine import ExclusionReason, ReviewLabel
from pipeline.training.state_fitting import fit_state
from pipeline.training.trainer import TrainConfig, train_stream
from tests.support.retraining import DAY, STEP, lived, sensors

SPEC = DetectorSpec(channels=("v",))
LIGHT = DetectorSpec(tier="light", channels=("v",))


@pytest.fixture(scope="module")
def quiet(tmp_path_factory) -> TrainingData:
    return lived(tmp_path_factory.mktemp("quiet"), build(SPEC), sensors(8, 20))


@pytest.fixture(scope="module")
def card(quiet: TrainingData) -> EvidenceCard:
    trained = train_stream(quiet, TrainConfig(SPEC, tuning=FinetuneSettings(epochs=6)))
    return make_evidence_card(quiet, SPEC, trained.weights, None)


def test_a_fine_tuned_challenger_is_better_on_what_it_never_saw(card: EvidenceCard) -> None:
    decision = decide_promotion(card)
    assert decision.promote, decision.reason
    assert "forecast error" in decision.reason
    assert card.challenger.mase < card.champion.mase < card.naive_mase
    assert card.since_ns == 16 * DAY * STEP
    assert card.challenger.version != card.champion.version


def test_broken_weights_are_rejected_with_the_reason(quiet: TrainingData) -> None:
    noise = np.random.default_rng(0)
    broken = {
        name: noise.normal(0, 3, value.shape).astype(np.float32)
        for name, value in network(None).state_dict().items()
    }
    decision = decide_promotion(make_evidence_card(quiet, SPEC, broken, None))
    assert not decision.promote
    assert "forecast error" in decision.reason


def test_the_same_weights_are_not_better(quiet: TrainingData) -> None:
    decision = decide_promotion(make_evidence_card(quiet, SPEC, None, None))
    assert not decision.promote
    assert decision.reason.endswith("nothing is better than with the champion") or decision.against


def test_the_card_reads_back_from_json_and_has_the_decision_in_words(card: EvidenceCard) -> None:
    read = json.loads(json.dumps(card.as_dict(), allow_nan=False))
    assert read["promote"] is True
    assert read["challenger"]["mase"] == pytest.approx(card.challenger.mase)
    assert "errors" not in read["champion"]
    text = card.text()
    assert "Evidence for stream plant" in text
    assert text.splitlines()[-1].startswith("Better than the champion: its forecast error")
    assert "synthetic shift: detected" in text


def test_synthetic_changes_are_caught_the_surer_the_larger(card: EvidenceCard) -> None:
    assert card.champion.power.keys() == {"spike", "dip", "shift", "drift", "flat"}
    assert 0.3 < card.champion.power["spike"] <= 1.0
    minimum_size = card.champion.minimum_size["spike"]
    assert minimum_size is not None
    assert 0.5 <= minimum_size <= 8


def test_a_shift_labelled_true_is_detected_and_one_that_the_champion_adapted_to_favours_the_challenger(
    tmp_path: Path,
) -> None:
    x = sensors(6, 20, shift_day=15.5)  # the held-out end begins on day 16, in the middle of it
    start = 15 * DAY + DAY // 2
    label = ReviewLabel("s0", start * STEP, (start + 20) * STEP, ExclusionReason.ANOMALY, "ann")
    data = lived(tmp_path, build(LIGHT), x, [label])
    card = make_evidence_card(data, LIGHT, None, None, review_labels=[label])
    assert len(card.challenger.detected) == len(card.champion.detected) == 1
    assert card.challenger.detected[0].startswith("s0 1970-01-16")
    assert card.quarantined >= 4 * DAY


def test_an_alarm_labelled_false_that_the_champion_repeats_is_counted(tmp_path: Path) -> None:
    x = sensors(6, 20)
    x[0, 17 * DAY] += 40.0
    label = ReviewLabel("s0", 17 * DAY * STEP, 17 * DAY * STEP, ExclusionReason.NORMAL, "bob")
    data = lived(tmp_path, build(LIGHT), x, [label])
    card = make_evidence_card(data, LIGHT, None, None, review_labels=[label])
    assert card.champion.repeated == card.challenger.repeated == ["s0 1970-01-18T00:00:00Z"]
    assert card.champion.alarms >= 1


def test_nothing_outside_of_the_quarantine_is_an_error_that_says_so(tmp_path: Path) -> None:
    review_labels = [ReviewLabel(None, 0, 1 << 60, ExclusionReason.EXCLUDED, "ann")]
    data = lived(tmp_path, build(LIGHT), sensors(2, 5), review_labels)
    with pytest.raises(InputError, match="outside of the quarantine"):
        make_evidence_card(data, LIGHT, None, None, review_labels=review_labels)


def test_a_backtest_is_the_detector_on_the_points_as_they_came(quiet: TrainingData) -> None:
    """Its figures are those of one plain run over everything: the cut in the middle and the portions change
    nothing.
    """
    trial = Trial(quiet, LIGHT, BacktestConfig(power_series=0))
    found = trial.run(None, lived=True)
    detector = build(LIGHT)
    _, verdicts = detector.step(detector.initial(8), quiet.points(clean=False))
    rows = trial.rows[quiet.allowed[trial.rows]]
    inside = (quiet.values >= verdicts.lower) & (quiet.values <= verdicts.upper)
    assert found.covered == pytest.approx(inside[rows].mean())
    assert found.tails["1"] == pytest.approx((verdicts.surprise[trial.rows] >= 1).mean(), abs=2e-3)
    error = np.abs(quiet.values - verdicts.expected)[:, 0]
    own = rows[quiet.owner[rows] == 3]
    step = np.abs(np.diff(quiet.clean[quiet.first[3] : quiet.first[3] + trial.until[3], 0]))
    assert found.errors["s3"] == pytest.approx(error[own].mean() / np.nanmean(step), rel=1e-4)


def test_probabilities_are_the_calibrated_ones_under_usual_ranges(tmp_path: Path) -> None:
    """The surprise only ranks rows there."""
    spec = replace(LIGHT, decision="usual_range")
    data = lived(tmp_path, build(spec), sensors(8, 20))
    trial = Trial(data, spec, BacktestConfig(power_series=0))
    found = trial.run(None, lived=True)
    detector = build(spec)
    _, verdicts = detector.step(detector.initial(8), data.points(clean=False))
    for decade in (1, 2, 3):
        rare = (verdicts.rarity[trial.rows] >= decade - 1e-4).mean()
        assert found.tails[str(decade)] == pytest.approx(rare, abs=2e-3)
    assert found.tails["1"] == pytest.approx(0.1, rel=0.3)


def test_a_probability_that_no_series_can_state_is_not_compared(tmp_path: Path) -> None:
    spec = replace(LIGHT, decision="usual_range")
    data = lived(tmp_path, build(spec), sensors(8, 6))  # 864 rows of each series
    card = make_evidence_card(data, spec, None, None, BacktestConfig(power_series=0))
    assert np.isnan(card.challenger.tails["3"])
    assert card.as_dict()["champion"]["tails"]["3"] is None
    assert "p ≤ 10^-3" in card.text()
    assert "too few points" in card.text()
    assert not decide_promotion(card).promote


def test_learning_without_the_quarantine_is_another_state_than_having_lived_through_it(
    tmp_path: Path,
) -> None:
    review_labels = [ReviewLabel("s0", 8 * DAY * STEP, 9 * DAY * STEP, ExclusionReason.EXCLUDED, "ann")]
    data = lived(tmp_path, build(LIGHT), sensors(2, 10), review_labels)
    detector = build(LIGHT)
    clean, all_of_it = fit_state(detector, data), fit_state(detector, data, clean=False)
    assert not np.array_equal(clean["scale.moments"][0], all_of_it["scale.moments"][0])
    np.testing.assert_array_equal(clean["scale.moments"][1], all_of_it["scale.moments"][1])


def test_seasonal_naive_takes_the_season_that_fits_the_past(quiet: TrainingData) -> None:
    trial = Trial(quiet, LIGHT, BacktestConfig())
    found = seasonal_naive(quiet, trial.until, trial.rows)
    x = quiet.values[: 20 * DAY, 0]
    day, row = (np.abs(x[16 * DAY :] - x[16 * DAY - lag : len(x) - lag]).mean() for lag in (DAY, 1))
    step = np.abs(np.diff(x[: 16 * DAY])).mean()
    assert found["s0"] == pytest.approx(min(day, row) / step, rel=0.05)


def test_alarms_are_stretches(quiet: TrainingData) -> None:
    flags = np.zeros(len(quiet), bool)
    flags[[10, 11, 14, 30, 20 * DAY - 1, 20 * DAY]] = True
    assert alarms(quiet, flags, np.arange(len(quiet))) == 4  # the last two are of different series
    assert alarms(quiet, flags, np.arange(20)) == 1


def test_a_sample_of_many_series_keeps_those_with_labels(tmp_path: Path) -> None:
    label = ReviewLabel("s5", 4 * DAY * STEP, 4 * DAY * STEP, ExclusionReason.ANOMALY, "ann")
    data = lived(tmp_path, build(LIGHT), sensors(7, 5), [label])
    assert "s5" in choose_series(data, BacktestConfig(most_series=2)).series
    assert len(choose_series(data, BacktestConfig(most_series=2)).series) == 2


# ------------------------------------------------------------------------------------------------ the rule


@pytest.mark.parametrize(
    ("new", "old", "promoted"),
    [(0.0, 0.0, False), (0.0, 0.5, True), (0.5, 0.0, False), (float("nan"), 0.0, False)],
)
def test_a_held_out_error_of_zero(new: float, old: float, promoted: bool) -> None:
    """A flat held-out end that both forecast exactly divided by zero."""
    card = EvidenceCard(
        "plant", 3, 100, 0, 1, plain(mase=new, errors={"a": new}), plain(mase=old, errors={"a": old}), 0.9
    )
    decision = decide_promotion(card)
    assert decision.promote is promoted
    assert "inf%" not in decision.reason + "".join(decision.against)


def plain(**changes) -> Backtest:
    usual = Backtest(
        "a", 1000, 0.8, {f"s{i}": 0.8 for i in range(10)}, 0.99, {"1": 0.1, "2": 0.01, "3": 0.001}, 2, ["x"], [], ["y"], {"spike": 0.8}, {"spike": 2.0}, 5.0
    )  # fmt: skip
    return replace(usual, **changes)


BETTER = {"mase": 0.7, "errors": {f"s{i}": 0.7 for i in range(10)}}


@pytest.mark.parametrize(
    ("changes", "promoted", "words"),
    [
        (BETTER, True, "12.5% smaller, on 10 of 10 series"),
        ({}, False, "nothing is better"),
        (
            {"mase": 0.7, "errors": {f"s{i}": 0.7 if i < 6 else 0.81 for i in range(10)}},
            False,
            "nothing is better",
        ),
        ({"detected": ["x", "z"]}, True, "detects 1 labelled anomalies"),
        ({"repeated": []}, True, "no longer repeats 1 alarms"),
        ({"repeated": [], "mase": 0.85}, False, "error is 6.2% larger"),
        (BETTER | {"detected": [], "missed": ["x"]}, False, "misses 1 labelled"),
        (BETTER | {"repeated": ["y", "w"]}, False, "repeats 1 alarms"),
        (BETTER | {"alarms": 5}, False, "raised 5 alarms, the champion 2"),
        (BETTER | {"alarms": 4}, True, "smaller"),
        (BETTER | {"power": {"spike": 0.7}}, False, "detects 70% of the synthetic changes"),
        (BETTER | {"tails": {"1": 0.1, "2": 0.03, "3": 0.01}}, False, "one in a hundred is 3.00%"),
        (BETTER | {"microseconds": 11.0}, False, "11.0 µs"),
        ({"mase": 0.95, "errors": {}}, False, "seasonal naive forecasts as well"),
        ({"mase": float("nan")}, False, "forecasts nothing"),
    ],
)
def test_the_rule(changes: dict, promoted: bool, words: str) -> None:
    decision = decide_promotion(EvidenceCard("plant", 0, 1, 10, 0, plain(**changes), plain(), 0.9))
    assert decision.promote is promoted, decision.reason
    assert words in decision.reason
