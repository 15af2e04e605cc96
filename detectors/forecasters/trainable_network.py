"""The interface of the networks that ``detectors.training.finetune`` trains."""

from __future__ import annotations

from torch import Tensor, nn

from detectors.forecasters.calendar_inputs import CalendarInputs


class TrainableNetwork(nn.Module):
    """A recurrent network over the inputs of ``lstm_features``.

    calendar: inputs that depend on time, behind the others.
    count_columns: the last value and the unit of each row follow all inputs.
    """

    calendar: CalendarInputs | None = None
    count_columns: bool = False

    def advance(self, inputs: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Return hidden vectors (T, B, W) and the state after ``inputs`` (T, B, F)."""
        raise NotImplementedError

    def wanted(self, target: Tensor) -> Tensor:
        """Return the targets (T, B, K) that this network forecasts."""
        raise NotImplementedError

    def loss(self, hidden: Tensor, inputs: Tensor, target: Tensor) -> Tensor:
        """Return the mean score of the known targets of a chunk, a scalar."""
        raise NotImplementedError
