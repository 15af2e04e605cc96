"""The recall task: the first input of a sequence, asked for after steps of noise.

It measures the memory of a forecaster after training, as opposed to ``gradients.reach`` before or after it.
(Adding and copying tasks: Hochreiter & Schmidhuber 1997.)
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from detectors.forecasters.base import Forecaster
from detectors.training.gradients import Stepper

SEQUENCES_PER_STEP: Final = 16
TEST_SEQUENCES: Final = 400
LEARNING_RATE: Final = 2e-2
NOISE: Final = 0.05
#: Unexplained share of the variance from which on nothing is remembered: the sign alone leaves 0.25.
MAX_REMEMBERED: Final = 0.2


def unexplained_share(forecaster: Forecaster, gap: int, updates: int) -> float:
    """Train ``forecaster`` on the task; return the unexplained share of variance.

    Args:
        forecaster: With the head many_to_one and the output point; it is trained in place.
        gap: Steps between the input and the question.
        updates: Steps of the training.
    """
    stepper = Stepper(forecaster, LEARNING_RATE, 1.0, updates)
    generator = torch.Generator().manual_seed(1)

    def batch(n: int) -> tuple[Tensor, Tensor]:
        x = NOISE * torch.randn(n, gap + 1, 1, generator=generator)
        x[:, 0, 0] = 4.0 * torch.rand(n, generator=generator) - 2.0
        return x, x[:, 0, 0].clone()

    for _ in range(updates):
        x, y = batch(SEQUENCES_PER_STEP)
        stepper.step((forecaster(x, forecaster.initial(len(x)))[0][:, 0, 0, 0] - y).pow(2).mean())
    x, y = batch(TEST_SEQUENCES)
    with torch.no_grad():
        said = forecaster(x, forecaster.initial(len(x)))[0][:, 0, 0, 0]
    return float((said - y).pow(2).mean() / y.pow(2).mean())
