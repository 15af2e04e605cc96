"""Forecast distributions, each with its proper score (Gneiting & Raftery 2007).

They are a point, a Gaussian, a Student-t or quantiles. A network ends in raw numbers (…, P), which
``natural`` turns into parameters (…, P). All scores are negatively oriented (smaller is better), in units of
the target or in nats.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final, Protocol

import numpy as np
import torch
from scipy.special import beta, stdtr, stdtrit
from torch import Tensor

MIN_SCALE: Final = 1e-4  # in units of the (normalised) target


class ForecastOutput(Protocol):
    """One kind of forecast, with P parameters.

    Training minimises ``loss``, a proper score with a gradient.
    """

    size: int

    def natural(self, raw: Tensor, anchor: Tensor) -> Tensor:
        """Return parameters (…, P) from ``raw`` (…, P).

        The location is relative to the value ``anchor`` (…).
        """
        ...

    def location(self, parameters: Tensor) -> Tensor:
        """Return the median (…)."""
        ...

    def loss(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Return the score (…) of ``parameters`` (…, P) for ``target`` (…)."""
        ...

    def crps(self, parameters: Tensor, target: Tensor) -> Tensor:
        """Return the continuous ranked probability score (…), in units of the target.

        For a point forecast it is the absolute error.
        """
        ...

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        """Return the value (…) that the target stays below with probability ``level``.

        A point forecast returns its value for every level.
        """
        ...


class Point:
    """Point forecast.

    Parameters: the value. Score: absolute error.
    """

    size: int = 1

    def natural(self, raw: Tensor, anchor: Tensor) -> Tensor:
        return raw + anchor[..., None]

    def location(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def loss(self, parameters: Tensor, target: Tensor) -> Tensor:
        return (parameters[..., 0] - target).abs()

    def crps(self, parameters: Tensor, target: Tensor) -> Tensor:
        return self.loss(parameters, target)

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        return parameters[..., 0]


class Gaussian:
    """Normal distribution.

    Parameters: mean, standard deviation. Score: log score; CRPS in closed form (Gneiting et al. 2005).
    """

    size: int = 2

    def natural(self, raw: Tensor, anchor: Tensor) -> Tensor:
        return torch.stack((raw[..., 0] + anchor, _positive(raw[..., 1])), -1)

    def location(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def loss(self, parameters: Tensor, target: Tensor) -> Tensor:
        mean, sd = parameters.unbind(-1)
        return 0.5 * ((target - mean) / sd) ** 2 + sd.log() + 0.5 * math.log(2 * math.pi)

    def crps(self, parameters: Tensor, target: Tensor) -> Tensor:
        mean, sd = parameters.unbind(-1)
        z = (target - mean) / sd
        density = torch.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        return sd * (z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi))

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        return parameters[..., 0] + parameters[..., 1] * math.sqrt(2) * torch.erfinv(
            torch.tensor(2 * level - 1)
        )


class StudentT:
    """Student-t distribution.

    Parameters: location, scale, degrees of freedom (> 2). Score: log score; CRPS in closed form (Jordan,
    Krüger & Lerch 2019).
    """

    size: int = 3

    def natural(self, raw: Tensor, anchor: Tensor) -> Tensor:
        return torch.stack(
            (raw[..., 0] + anchor, _positive(raw[..., 1]), 2.0 + _positive(raw[..., 2] + 2.0)), -1
        )

    def location(self, parameters: Tensor) -> Tensor:
        return parameters[..., 0]

    def loss(self, parameters: Tensor, target: Tensor) -> Tensor:
        location, scale, freedom = parameters.unbind(-1)
        z = (target - location) / scale
        constant = (
            torch.lgamma((freedom + 1) / 2) - torch.lgamma(freedom / 2) - 0.5 * torch.log(math.pi * freedom)
        )
        return scale.log() - constant + (freedom + 1) / 2 * torch.log1p(z**2 / freedom)

    def crps(self, parameters: Tensor, target: Tensor) -> Tensor:
        location, scale, v = (part.double().numpy() for part in parameters.detach().unbind(-1))
        z = (target.double().numpy() - location) / scale
        density = (1 + z**2 / v) ** (-(v + 1) / 2) / (np.sqrt(v) * beta(0.5, v / 2))
        spread = 2 * np.sqrt(v) / (v - 1) * beta(0.5, v - 0.5) / beta(0.5, v / 2) ** 2
        score = z * (2 * stdtr(v, z) - 1) + 2 * density * (v + z**2) / (v - 1) - spread
        return torch.as_tensor(scale * score, dtype=target.dtype)

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        location, scale, freedom = parameters.detach().unbind(-1)
        return location + scale * torch.as_tensor(stdtrit(freedom.double().numpy(), level), dtype=scale.dtype)


class Quantiles:
    """Quantiles that never cross.

    Parameters: the quantiles at ``LEVELS``. Score: pinball loss (Koenker & Bassett 1978); twice its mean is
    about the CRPS.
    """

    LEVELS: ClassVar[tuple[float, ...]] = (0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.99)
    size: int = len(LEVELS)

    def natural(self, raw: Tensor, anchor: Tensor) -> Tensor:
        middle = self.size // 2
        above = _positive(raw[..., middle + 1 :]).cumsum(-1)
        below = _positive(raw[..., :middle]).flip(-1).cumsum(-1).flip(-1)
        centre = raw[..., middle : middle + 1] + anchor[..., None]
        return torch.cat((centre - below, centre, centre + above), -1)

    def location(self, parameters: Tensor) -> Tensor:
        return parameters[..., self.size // 2]

    def loss(self, parameters: Tensor, target: Tensor) -> Tensor:
        error = target[..., None] - parameters
        level = torch.tensor(self.LEVELS, dtype=parameters.dtype, device=parameters.device)
        return torch.maximum(level * error, (level - 1) * error).mean(-1)

    def crps(self, parameters: Tensor, target: Tensor) -> Tensor:
        return 2 * self.loss(parameters, target)

    def quantile(self, parameters: Tensor, level: float) -> Tensor:
        """Interpolate between the levels; beyond them the outermost quantile holds."""
        values = parameters.detach().numpy()
        flat = [np.interp(level, self.LEVELS, row) for row in values.reshape(-1, self.size)]
        return torch.tensor(np.array(flat).reshape(values.shape[:-1]), dtype=parameters.dtype)


def _positive(raw: Tensor) -> Tensor:
    return torch.nn.functional.softplus(raw) + MIN_SCALE


OUTPUTS: Final[dict[str, ForecastOutput]] = {
    "point": Point(),
    "gaussian": Gaussian(),
    "student": StudentT(),
    "quantile": Quantiles(),
}
