"""The interface of a forecaster: a pure step, batched over series.

    x (B, T, F) ─► body with state ─► hidden (B, T, H) ─► head ─► raw (B, T', K, P) ─► output ─► parameters
    (B, T', K, P)

The step maps (weights, state, x) to (state, forecast). B series, T steps, F inputs (the first is the series
itself, the others are known beside it), K steps ahead, P parameters of the output. T' is T for many-to-many
and 1 for the other heads. State is a tuple of tensors with the series as first axis, passed in and out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

import torch
from torch import Tensor, nn

from detectors.forecasters.distributions import OUTPUTS, ForecastOutput

ForecasterState = tuple[Tensor, ...]
HEADS: Final = ("many_to_one", "one_to_many", "many_to_many")


class NotCausal(Exception):
    """A forecaster that uses future points was requested for causal use."""


@dataclass(frozen=True, slots=True)
class ForecasterConfig:
    """Shape and initial weights of a forecaster.

    head: many_to_one (the next step, after the last of T), one_to_many (K steps unrolled from the last
    state), many_to_many (K steps after every one of T). output: point, gaussian, student or quantile.
    """

    inputs: int = 1
    hidden: int = 32
    layers: int = 1
    horizon: int = 1
    head: str = "many_to_many"
    output: str = "student"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a config that no forecaster supports."""
        if self.head not in HEADS:
            raise ValueError(f"head {self.head!r} is unknown; there are {', '.join(HEADS)}")
        if self.output not in OUTPUTS:
            raise ValueError(f"output {self.output!r} is unknown; there are {', '.join(OUTPUTS)}")
        if self.head == "many_to_one" and self.horizon != 1:
            raise ValueError(
                f"many_to_one forecasts one step, not {self.horizon}: use one_to_many or many_to_many"
            )
        if min(self.inputs, self.hidden, self.layers, self.horizon) < 1:
            raise ValueError("inputs, hidden, layers and horizon must be at least 1")


class Forecaster(nn.Module):
    """Base of all forecasters.

    A subclass gives ``config_class``, ``initial`` and ``body`` (or its own ``forward``).
    """

    config_class: ClassVar[type[ForecasterConfig]] = ForecasterConfig
    causal: ClassVar[bool] = True
    first: ClassVar[int] = 1  # steps from t to the first point that is forecast at t

    def __init__(self, config: ForecasterConfig) -> None:
        super().__init__()
        self.config = config
        self.output: ForecastOutput = OUTPUTS[config.output]

    def make_head(self, width: int) -> None:
        """Make the head of the config, over hidden vectors of ``width``."""
        kind = UnrolledHead if self.config.head == "one_to_many" else DirectHead
        self.head: nn.Module = kind(width, self.config.horizon, self.output)

    def initial(self, batch: int) -> ForecasterState:
        """Return the state of ``batch`` series without points."""
        raise NotImplementedError

    def body(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        """Return hidden vectors (B, T, H) and the state after the last step of ``x``."""
        raise NotImplementedError

    def forward(self, x: Tensor, state: ForecasterState) -> tuple[Tensor, ForecasterState]:
        """Return parameters (B, T', K, P) and the state after the last step of ``x``."""
        hidden, state = self.body(x, state)
        anchor = x[..., 0]  # (B, T)
        if self.config.head != "many_to_many":
            hidden, anchor = hidden[:, -1:], anchor[:, -1:]
        return self.head(hidden, anchor), state

    def step(
        self, weights: Mapping[str, Tensor], state: ForecasterState, x: Tensor
    ) -> tuple[ForecasterState, Tensor]:
        """Return the state and the parameters (B, K, P) after one point of each series.

        ``x`` (B, F) are the inputs. A pure function: the weights of the module are not used. Raises
        NotCausal.
        """
        if not self.causal:
            raise NotCausal(
                f"{type(self).__name__} needs the points after t for its forecast of t: use it on "
                f"whole series, "
                "offline"
            )
        parameters, state = torch.func.functional_call(self, dict(weights), (x[:, None], state))
        return state, parameters[:, 0]

    def state_bytes(self) -> int:
        """Return the size of the state of one series."""
        return sum(part[0].numel() * part.element_size() for part in self.initial(1))


class DirectHead(nn.Module):
    """One linear map from the hidden vector to all K steps ahead."""

    def __init__(self, width: int, horizon: int, output: ForecastOutput) -> None:
        super().__init__()
        self.horizon, self.output = horizon, output
        self.linear = nn.Linear(width, horizon * output.size)

    def forward(self, hidden: Tensor, anchor: Tensor) -> Tensor:
        """Return parameters (B, T, K, P) for ``hidden`` (B, T, H) and ``anchor`` (B, T)."""
        raw = self.linear(hidden).view(*anchor.shape, self.horizon, self.output.size)
        return self.output.natural(raw, anchor[..., None].expand(raw.shape[:-1]))


class UnrolledHead(nn.Module):
    """One-to-many head.

    A GRU cell maps its own forecast of step k to that of step k + 1.
    """

    def __init__(self, width: int, horizon: int, output: ForecastOutput) -> None:
        super().__init__()
        self.horizon, self.output = horizon, output
        self.cell = nn.GRUCell(1, width)
        self.linear = nn.Linear(width, output.size)

    def forward(self, hidden: Tensor, anchor: Tensor) -> Tensor:
        """Return parameters (B, T, K, P) for ``hidden`` (B, T, H) and ``anchor`` (B, T)."""
        out = self.unroll(hidden.flatten(0, 1), anchor.flatten(), self.horizon)
        return out.view(*anchor.shape, self.horizon, self.output.size)

    def unroll(self, hidden: Tensor, anchor: Tensor, steps: int) -> Tensor:
        """Return parameters (N, steps, P) for ``hidden`` (N, H) and ``anchor`` (N)."""
        moved, out = torch.zeros_like(anchor), []  # distance of the forecast from the anchor (N)
        for _ in range(steps):
            hidden = self.cell(moved[:, None], hidden)
            out.append(self.output.natural(self.linear(hidden), anchor + moved))
            moved = self.output.location(out[-1]) - anchor
        return torch.stack(out, 1)


def require_causal(forecaster: Forecaster) -> Forecaster:
    """Return the forecaster if it can run on a live stream. Raises NotCausal."""
    if not forecaster.causal:
        raise NotCausal(
            f"forecaster {type(forecaster).__name__} looks at points after the one that it "
            f"forecasts; it cannot "
            "run on a live stream or in a causal evaluation. Use it to fill gaps in a finished "
            "series, or choose another forecaster"
        )
    return forecaster
