"""Retraining after a level shift of two days.

Labelled as an anomaly, the shift is still detected after the training. Labelled as normal, it is not.

Everything is real: the detector watched the stream, its history lies on disk, the data are read from there,
the LSTM is fine-tuned, the detector with the new weights learns the series anew and goes on with the live
points of the third day, which are as high as those of the two days before.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detectors import build
from detectors.base import DetectorSpec
from detectors.training.sequences import FinetuneSettings
from pipeline.training.dataset import from_history, take_points
from pipeline.training.quarantine import ExclusionReason, ReviewLabel
from pipeline.training.state_fitting import fit_state
from pipeline.training.trainer import TrainConfig, train_stream
from tests.support.retraining import DAY, STEP, points_of, sensors, write_history

SHIFT, NOW, END = 17 * DAY, 19 * DAY, 21 * DAY
SERIES = 4


@pytest.fixture(scope="module", params=["standard", "light"])
def watched(request, tmp_path_factory) -> tuple[DetectorSpec, str, np.ndarray, ReviewLabel]:
    """Spec, path of the history until NOW, all values, and the anomaly that the live detector found, as a
    ruling to be given a reason.
    """
    spec = DetectorSpec(tier=request.param, channels=("v",))
    detector = build(spec)
    x = sensors(SERIES, END // DAY, shift_day=SHIFT / DAY)
    points = points_of(x[:, :NOW])
    _, verdicts = detector.step(detector.initial(SERIES), points)
    hits = np.flatnonzero(verdicts.flag[:NOW])
    hits = hits[hits >= SHIFT]
    assert hits[0] == SHIFT, "the live detector did not see the shift"
    path = write_history(
        tmp_path_factory.mktemp("history"), points, verdicts, [f"s{i}" for i in range(SERIES)]
    )
    return (
        spec,
        path,
        x,
        ReviewLabel("s0", int(hits[0]) * STEP, int(hits[-1]) * STEP, ExclusionReason.ANOMALY, "ann"),
    )


def flagged_after(
    watched: tuple[DetectorSpec, str, np.ndarray, ReviewLabel], reason: ExclusionReason
) -> np.ndarray:
    """(S, rows) flags of the retrained model on the days after NOW."""
    spec, path, x, found = watched
    data = from_history(
        path, "plant", spec.channels, [ReviewLabel(found.series, found.start_ns, found.end_ns, reason, "ann")]
    )
    trained = train_stream(data, TrainConfig(spec, tuning=FinetuneSettings(epochs=1)))
    assert trained.usable
    model = build(spec, trained.weights or None)
    rest = points_of(x[:, NOW:], NOW)
    _, verdicts = model.step(fit_state(model, data), take_points(rest, slice(None)))
    return verdicts.flag.reshape(SERIES, -1)


def test_labelled_true_the_shift_is_still_flagged(watched) -> None:
    flags = flagged_after(watched, ExclusionReason.ANOMALY)
    assert flags[0, 0]
    assert flags[1:].mean() < 0.01


def test_labelled_false_the_model_adapts(watched) -> None:
    assert flagged_after(watched, ExclusionReason.NORMAL).mean() < 0.005


def test_the_quarantine_says_which_points_why_and_by_whom(watched, tmp_path: Path) -> None:
    spec, path, _, found = watched
    data = from_history(path, "plant", spec.channels, [found])
    (shift,) = [one for one in data.excluded if one.reason is ExclusionReason.ANOMALY]
    assert (shift.series, shift.by, shift.start_ns) == ("s0", "ann", found.start_ns)
    assert shift.points == NOW - SHIFT
    assert shift.end_ns == (NOW - 1) * STEP
