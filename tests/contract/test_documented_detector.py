"""The detector of docs/how-to/add-a-scorer.md and the forecaster of add-a-forecaster.md pass the suite."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.typing import NDArray

import detectors
from detectors import DetectorSpec, build, contract
from detectors.base import CAUSES, Points, State, Verdicts
from detectors.forecasters.base import Forecaster, ForecasterConfig
from pipeline import detect

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"


def shown(page: str, start: str, **names: Any) -> Any:
    """Return the class of the Python block of ``page`` that begins with ``start``."""
    lines = (HOW_TO / page).read_text().splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip() == start)
    end = next(i for i in range(first, len(lines)) if lines[i].strip() == "```")
    exec(compile(dedent("\n".join(lines[first:end])), page, "exec"), names)
    return names["Mine"]


@pytest.fixture
def mine(monkeypatch):
    typing = {"Iterable": Iterable, "NDArray": NDArray}
    kind = shown(
        "add-a-scorer.md",
        "class Mine:",
        np=np,
        DetectorSpec=DetectorSpec,
        State=State,
        Points=Points,
        Verdicts=Verdicts,
        CAUSES=CAUSES,
        **typing,
    )
    monkeypatch.setitem(detectors.REGISTRY, "mine", lambda spec, weights: kind(spec))


@pytest.mark.parametrize("check", contract.CHECKS, ids=lambda check: check.__name__)
@pytest.mark.parametrize("channels", [("value",), ("a", "b", "c")], ids=len)
def test_the_shown_detector(mine, check, channels):
    check(build(DetectorSpec(tier="mine", channels=channels)))


def test_the_shown_detector_finds_a_spike_and_says_in_which_channel(mine):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame(
        {"a": rng.normal(0, 1, 500), "b": rng.normal(5, 1, 500)},
        index=pd.date_range("2024-01-01", periods=500, freq="min"),
    )
    frame.iloc[400, 1] = -20.0
    for detector in ("mine", "standard"):
        verdicts = detect(frame, detector=detector)
        assert verdicts["flag"].iloc[400]
        assert verdicts["contribution:b"].iloc[400] > 0.5 > verdicts["contribution:a"].iloc[400]
        assert frame["b"].iloc[400] < verdicts["lower:b"].iloc[400]


def test_the_shown_forecaster():
    kind = shown(
        "add-a-forecaster.md",
        "class Mine(Forecaster):",
        nn=torch.nn,
        torch=torch,
        Tensor=torch.Tensor,
        Forecaster=Forecaster,
        ForecasterConfig=ForecasterConfig,
        State=tuple,
    )
    forecaster, x = kind(ForecasterConfig(hidden=4, horizon=3)), torch.randn(2, 20, 1)
    whole, _ = forecaster(x, forecaster.initial(2))
    first, state = forecaster(x[:, :12], forecaster.initial(2))
    rest, _ = forecaster(x[:, 12:], state)
    assert whole.shape[:3] == (2, 20, 3)
    assert torch.allclose(whole, torch.cat((first, rest), 1), atol=1e-6)
