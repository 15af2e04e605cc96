"""Outputs: their closed forms against numerical integration, and scores that only the truth minimises."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.integrate import quad

from detectors.forecasters.distributions import OUTPUTS, Quantiles


def parameters_of(name: str) -> tuple[torch.Tensor, object]:
    """Parameters of one forecast and the same distribution by scipy."""
    if name == "gaussian":
        return torch.tensor([0.7, 1.3], dtype=torch.float64), stats.norm(0.7, 1.3)
    return torch.tensor([0.7, 1.3, 3.5], dtype=torch.float64), stats.t(3.5, 0.7, 1.3)


@pytest.mark.parametrize("name", ["gaussian", "student"])
@pytest.mark.parametrize("target", [-4.0, 0.7, 1.0, 9.0])
def test_log_score_and_crps(name: str, target: float) -> None:
    parameters, truth = parameters_of(name)
    y = torch.tensor(target, dtype=torch.float64)
    assert OUTPUTS[name].loss(parameters, y).item() == pytest.approx(-truth.logpdf(target), abs=1e-9)
    numeric = (
        quad(lambda v: truth.cdf(v) ** 2, -np.inf, target)[0]
        + quad(lambda v: truth.sf(v) ** 2, target, np.inf)[0]
    )
    assert OUTPUTS[name].crps(parameters, y).item() == pytest.approx(numeric, abs=1e-6)


@pytest.mark.parametrize("name", ["gaussian", "student"])
@pytest.mark.parametrize("level", [0.01, 0.3, 0.5, 0.99])
def test_quantiles_of_distributions(name: str, level: float) -> None:
    parameters, truth = parameters_of(name)
    assert OUTPUTS[name].quantile(parameters, level).item() == pytest.approx(truth.ppf(level), abs=1e-5)


def test_quantile_output_never_crosses_and_interpolates() -> None:
    raw = torch.randn(200, Quantiles.size, generator=torch.Generator().manual_seed(0)) * 5
    values = OUTPUTS["quantile"].natural(raw, torch.zeros(200))
    assert (values.diff(dim=-1) > 0).all()
    torch.testing.assert_close(OUTPUTS["quantile"].quantile(values, 0.5), values[:, Quantiles.size // 2])
    between = OUTPUTS["quantile"].quantile(values, 0.05)
    assert ((between > values[:, 0]) & (between < values[:, 1])).all()


@pytest.mark.parametrize("name", OUTPUTS)
def test_the_score_is_proper(name: str) -> None:
    """Fitted by its score to draws of a skew-free truth, an output finds the truth's median and, where it has
    one, its width.
    """
    output = OUTPUTS[name]
    draws = torch.from_numpy(stats.t(5, 2.0, 0.5).rvs(4000, random_state=1)).float()
    raw = torch.zeros(output.size, requires_grad=True)
    optimiser = torch.optim.Adam([raw], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        parameters = output.natural(raw, torch.tensor(0.0))
        output.loss(parameters.expand(len(draws), -1), draws).mean().backward()
        optimiser.step()
    parameters = output.natural(raw, torch.tensor(0.0)).detach()
    assert output.location(parameters).item() == pytest.approx(2.0, abs=0.06)
    if name != "point":
        width = output.quantile(parameters, 0.9) - output.quantile(parameters, 0.1)
        assert width.item() == pytest.approx(2 * 0.5 * stats.t(5).ppf(0.9), rel=0.12)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_forecast_moves_with_its_anchor(name: str) -> None:
    output = OUTPUTS[name]
    raw = torch.randn(6, output.size, generator=torch.Generator().manual_seed(2))
    low, high = output.natural(raw, torch.zeros(6)), output.natural(raw, torch.full((6,), 3.0))
    torch.testing.assert_close(output.location(high), output.location(low) + 3.0)
    torch.testing.assert_close(
        output.crps(high, torch.full((6,), 4.0)), output.crps(low, torch.ones(6)), atol=1e-5, rtol=1e-5
    )
