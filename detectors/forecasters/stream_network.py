"""The network of a stream in training, over the causal inputs of ``lstm_features``.

    inputs (T, B, F) ─► body with state ─► hidden (T, B, W) ─► head ─► corrections ─► parameters (T, B, K, P)

All series of a stream share it. The inputs are dimensionless, so it forecasts in units of each series,
relative to the last value. The forecast of the adaptive AR expert is added to the location, so that the
network learns what that one misses. Live, ``detectors.forecasters.frozen_network`` runs it without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.forecasters import build, lstm_features
from detectors.forecasters.calendar_inputs import GATE_RATE, GATES, LAG_QUARTERS, MAX_GATE, CalendarInputs
from detectors.forecasters.frozen_network import MEDIAN
from detectors.forecasters.network_spec import (
    GATED_KINDS,
    SPEC_TENSOR,
    WEIGHT_PREFIX,
    Head,
    Kind,
    NetworkSpec,
    Output,
    spec_of,
)
from detectors.forecasters.trainable_network import TrainableNetwork

#: Output → its name among ``distributions.OUTPUTS``. Counts have the raw parameters of a Gaussian: a location
#: and a positive number.
_OUTPUT_NAMES: Final = {
    Output.STUDENT_T: "student",
    Output.NEGATIVE_BINOMIAL: "gaussian",
}
#: Columns behind the inputs, for counts only: the last value, and the unit.
COUNT_COLUMNS: Final = 2
MAX_COUNT_UNITS: Final = 1e6
MIN_MEAN_COUNT: Final = 1e-6
#: Bias of the gates of lags before training: weights of 5 %.
FIRST_GATE: Final = -3.0


class StreamNetwork(TrainableNetwork):
    """A network of the family with the head and the output of its spec."""

    def __init__(self, spec: NetworkSpec, seed: int = 0) -> None:
        """Make a network with random weights."""
        super().__init__()
        self.spec = spec
        self.count_columns = spec.output == Output.NEGATIVE_BINOMIAL
        self.calendar: CalendarInputs = CalendarInputs(spec)
        self.inputs = lstm_features.FEATURES + self.calendar.width
        options: dict[str, Any] = {"span": spec.span} if spec.kind in GATED_KINDS else {}
        if spec.kind == Kind.FEEDFORWARD:
            options = {"window": spec.window, "nonlinearity": str(spec.activation)}
        elif spec.kind == Kind.RNN:
            options = {"nonlinearity": str(spec.activation)}
        elif spec.kind == Kind.ATTENTION:
            options["memory"] = spec.memory
        head = Head.MANY_TO_ONE if spec.head == Head.ONE_TO_ONE else spec.head
        self.forecaster = build(
            str(spec.kind),
            inputs=self.inputs,
            hidden=spec.hidden,
            layers=spec.layers,
            horizon=spec.steps,
            head=str(head),
            output=_OUTPUT_NAMES.get(Output(spec.output), str(spec.output)),
            seed=seed,
            **options,
        )
        if self.calendar.lags:
            self.gates = nn.Linear(self.calendar.gate_width, GATES)
            nn.init.zeros_(self.gates.weight)
            nn.init.constant_(self.gates.bias, FIRST_GATE / GATE_RATE)
        self.steps = [ahead - 1 for ahead in lstm_features.HORIZONS if ahead <= spec.steps]

    def advance(
        self, inputs: Tensor, state: tuple[Tensor, ...] | None = None
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return hidden vectors (T, B, W) and the state after ``inputs`` (T, B, F)."""
        x = inputs[..., : self.inputs].transpose(0, 1)
        if state is None:
            state = tuple(part.to(x.device) for part in self.forecaster.initial(x.shape[0]))
        hidden, state = self.forecaster.body(x, state)
        return hidden.transpose(0, 1), state

    def parameters_of(self, hidden: Tensor, inputs: Tensor) -> Tensor:
        """Return the parameters (T, B, K, P) at the horizons of the detector.

        They are in units from the last value. ``hidden`` (T, B, W) is the result of ``advance`` for ``inputs``
        (T, B, F).
        """
        found = self.forecaster.head(hidden, hidden.new_zeros(hidden.shape[:-1]))[..., self.steps, :]
        expert = [lstm_features.AR_NEXT, lstm_features.AR_LATER][: len(self.steps)]
        anchor = inputs[..., expert].sinh()[..., None]
        if self.spec.output == Output.QUANTILE:
            return self._blend(found + anchor, hidden, inputs, slice(None))
        return self._blend(torch.cat((found[..., :1] + anchor, found[..., 1:]), -1), hidden, inputs, slice(1))

    def _blend(self, found: Tensor, hidden: Tensor, inputs: Tensor, moved: slice) -> Tensor:
        """Return ``found`` (T, B, K, P) with the next step nearer to earlier values.

        ``moved`` are the parameters that are locations.
        """
        if not self.calendar.lags:
            return found
        first = self.calendar.lag_columns
        lags, known = (inputs[..., first + part : first + 2 * len(LAG_QUARTERS) : 2] for part in (0, 1))
        here = found[..., 0, MEDIAN if self.spec.output == Output.QUANTILE else 0]
        extra = inputs[..., lstm_features.FEATURES : self.inputs]
        gates = GATE_RATE * self.gates(torch.cat((hidden, extra, lags.abs()), -1))
        weight = gates.clamp(max=MAX_GATE).exp() * nn.functional.pad(known, (0, 1), value=1.0)
        values = nn.functional.pad(lags.sinh(), (0, 1))  # the last value is 0
        way = (weight * (values - here[..., None])).sum(-1) / (1 + weight.sum(-1))
        blended = found.clone()
        blended[..., 0, moved] = found[..., 0, moved] + way[..., None]
        return blended

    def wanted(self, target: Tensor) -> Tensor:
        """Return the targets (T, B, K) of the horizons that the head forecasts."""
        return target[..., : len(self.steps)]

    def loss(self, hidden: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean score of the known targets, a scalar.

        Args:
            hidden: Result of ``advance`` (T, B, W).
            inputs: Inputs (T, B, F), for counts with their last value and unit.
            target: Result of ``wanted`` (T, B, K).
        """
        known = ~target.isnan()
        parameters, goal = self.parameters_of(hidden, inputs), target.nan_to_num()
        if self.spec.output == Output.NEGATIVE_BINOMIAL:
            last, unit = inputs[..., -2, None], inputs[..., -1, None]
            mean = count_mean(parameters[..., 0], last, unit)
            score = negative_binomial_loss(mean, parameters[..., 1], (last + unit * goal).clamp(min=0.0))
        else:
            score = self.forecaster.output.loss(parameters, goal)
        return torch.where(known, score, 0.0).sum() / known.sum()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return spec and weights as a version of the registry stores them."""
        weights = {
            f"{WEIGHT_PREFIX}{name.removeprefix('forecaster.')}": value.detach().cpu().numpy().copy()
            for name, value in self.state_dict().items()
        }
        return {SPEC_TENSOR: self.spec.tensor(), **weights}


def stream_network(
    spec: NetworkSpec, weights: Mapping[str, NDArray[Any]] | None = None, seed: int = 0
) -> StreamNetwork:
    """Return a network of ``spec``, with ``weights`` if they are of the same spec.

    Otherwise its weights are random. Set torch to one thread as a side effect.
    """
    torch.set_num_threads(1)
    module = StreamNetwork(spec, seed)
    if weights is not None and spec_of(weights) == spec:
        module.load_state_dict(
            {
                name: torch.from_numpy(
                    np.array(weights[f"{WEIGHT_PREFIX}{name.removeprefix('forecaster.')}"])
                )
                for name in module.state_dict()
            }
        )
    return module


def count_mean(location: Tensor, last: Tensor, unit: Tensor) -> Tensor:
    """Return the positive mean count of a location in units from the last count."""
    ratio = (last / unit).clamp(0.0, MAX_COUNT_UNITS)
    return unit * nn.functional.softplus(ratio + location) + MIN_MEAN_COUNT


def negative_binomial_loss(mean: Tensor, dispersion: Tensor, count: Tensor) -> Tensor:
    """Return the log score of counts whose variance is mean + dispersion · mean².

    Source: Salinas et al., "DeepAR: Probabilistic forecasting with autoregressive recurrent networks", 2020.
    """
    shape = 1.0 / dispersion
    return (
        torch.lgamma(shape)
        + torch.lgamma(count + 1.0)
        - torch.lgamma(count + shape)
        + shape * torch.log1p(dispersion * mean)
        - count * (torch.log(dispersion * mean) - torch.log1p(dispersion * mean))
    )
