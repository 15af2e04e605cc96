"""The guarded gradient step of all trainings, and the monitoring of gradients.

Gradients are clipped by their global norm (Pascanu, Mikolov & Bengio, "On the difficulty of training
recurrent neural networks", 2013). Two things are monitored: the norm of every step (exploding), and how far
back a forecast depends on its inputs (vanishing).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors.forecasters.base import Forecaster


class Diverged(Exception):
    """The loss or the gradient is not finite; the weights stay as before the step."""


@dataclass(slots=True)
class GradientMonitor:
    """The gradient norms of a training, before clipping.

    ``exploding`` counts norms beyond ``factor`` times the running geometric mean, ``clipped`` those beyond
    the clip.
    """

    clip: float
    factor: float = 20.0
    norms: list[float] = field(default_factory=list)
    clipped: int = 0
    exploding: int = 0
    usual: float = math.nan

    def record(self, norm: float) -> None:
        """Count a gradient norm."""
        self.norms.append(norm)
        self.clipped += norm > self.clip
        self.exploding += len(self.norms) > 20 and norm > self.factor * self.usual
        log = math.log(max(norm, 1e-30))
        self.usual = math.exp(log if math.isnan(self.usual) else 0.95 * math.log(self.usual) + 0.05 * log)

    def summary(self) -> dict[str, float]:
        """Return the statistics for a manifest or a log line."""
        norms = np.array(self.norms or [math.nan])
        return {
            "steps": len(self.norms),
            "median_norm": float(np.median(norms)),
            "largest_norm": float(norms.max()),
            "clipped": self.clipped / max(1, len(self.norms)),
            "exploding": self.exploding,
        }


class Stepper:
    """Adam with clipping, a cosine schedule and a gradient monitor."""

    def __init__(self, module: nn.Module, learning_rate: float, clip: float, steps: int) -> None:
        """Prepare ``steps`` updates of ``module``."""
        self.module, self.monitor = module, GradientMonitor(clip)
        self.optimiser = torch.optim.Adam(module.parameters(), learning_rate)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, lambda done: cosine(done, steps))

    def step(self, loss: Tensor) -> float:
        """Make one update along the gradient of ``loss`` (a scalar); return its value.

        Raises Diverged before any weight changes.
        """
        self.optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), self.monitor.clip))
        value = float(loss.detach())
        if not (math.isfinite(norm) and math.isfinite(value)):
            raise Diverged(
                f"loss {value}, gradient norm {norm} at step {len(self.monitor.norms)}: lower the "
                f"learning rate or look at the data"
            )
        self.monitor.record(norm)
        self.optimiser.step()
        self.schedule.step()
        return value

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Return weights and moments by name, for a checkpoint."""
        out = {
            f"module.{name}": value.detach().cpu().numpy().copy()
            for name, value in self.module.state_dict().items()
        }
        for number, values in self.optimiser.state_dict()["state"].items():
            out |= {f"adam.{number}.{name}": value.cpu().numpy().copy() for name, value in values.items()}
        out["done"] = np.array(self.schedule.last_epoch)
        return out

    def restore(self, tensors: dict[str, NDArray[Any]]) -> None:
        """Restore the state that ``tensors`` returned."""
        self.module.load_state_dict(
            {
                name.removeprefix("module."): torch.from_numpy(tensors[name])
                for name in tensors
                if name.startswith("module.")
            }
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in tensors.items():
            if key.startswith("adam."):
                _, number, name = key.split(".")
                moments.setdefault(int(number), {})[name] = torch.from_numpy(value)
        state = self.optimiser.state_dict()
        self.optimiser.load_state_dict({**state, "state": moments})
        self.schedule.last_epoch = int(tensors["done"])
        for group, base in zip(self.optimiser.param_groups, self.schedule.base_lrs, strict=True):
            group["lr"] = base * self.schedule.lr_lambdas[0](self.schedule.last_epoch)


@dataclass(slots=True)
class Reach:
    """Dependence of the forecast after the last of T steps on each input.

    norms: gradient norms (T,), newest first. The newest does not count, since forecasts are relative to it.
    steps: the largest lag whose
    gradient is at least 1 % of the largest. vanishing: the oldest is below a millionth of the largest;
    exploding: the oldest is above a thousand times that of lag 1.
    """

    norms: list[float]
    steps: int
    vanishing: bool
    exploding: bool


def reach(forecaster: Forecaster, x: Tensor) -> Reach:
    """Measure the reach on ``x`` (B, T, F) from the initial state.

    A bidirectional forecaster is measured at its last step, too.
    """
    x = x.detach().clone().requires_grad_()
    state = tuple(part.to(x.device) for part in forecaster.initial(len(x)))
    location = forecaster.output.location(forecaster(x, state)[0])  # (B, T', K)
    if not location.requires_grad:  # not made of differentiable steps
        return Reach([], 0, vanishing=False, exploding=False)
    (gradient,) = torch.autograd.grad(location[:, -1].sum(), x)
    norms = gradient.norm(dim=(0, 2)).flip(0).cpu().numpy()
    top = max(float(norms[1:].max()), 1e-30)
    steps = int(np.flatnonzero(norms[1:] >= 0.01 * top).max(initial=-1)) + 1
    return Reach(norms.tolist(), steps, bool(norms[-1] < 1e-6 * top), bool(norms[-1] > 1e3 * norms[1] > 0))


def cosine(done: int, steps: int) -> float:
    """Return the factor of the learning rate after ``done`` of ``steps`` updates.

    It rises over the first 2 %, then falls to 2 % along a cosine (Loshchilov & Hutter 2017).
    """
    warm = max(1, steps // 50)
    if done < warm:
        return (done + 1) / warm
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (done - warm) / max(1, steps - warm))))
