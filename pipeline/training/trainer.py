"""One training of one stream: its data in, the weights of a challenger out, with what they cost. It knows no
database and no registry.

A model is two things. The *weights* of the shared LSTM are learnt here by gradient. What each series knows of
itself (scale, rhythm, readout, calibration) is learnt in closed form by running the detector over the series'
history, without what is in quarantine: ``pipeline.training.state_fitting``.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.base import DetectorSpec
from detectors.composite.presets import PRESETS
from detectors.composite.tiers import TIERS
from detectors.forecasters.shared_lstm import network
from detectors.training.batched_finetune import BatchedProgress
from detectors.training.finetune import FinetuneSettings, TrainingSequences, finetune
from detectors.training.fit import EpochProgress, TrainingStatus
from pipeline.training.dataset import TrainingData
from pipeline.training.per_group_lstm import SeriesGroups, train_group_networks

Weights = dict[str, NDArray[np.float32]]

USABLE = (
    TrainingStatus.FINISHED,
    TrainingStatus.CONVERGED,
    TrainingStatus.DIVERGED,
    TrainingStatus.OUT_OF_MEMORY,
)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train; ``start`` are the weights to begin with (None: those of the package).

    ``groups``: series, by their place in the data, for which a network of their own is tried, too. The
    tuning's ``memory`` is that of the detector.
    """

    spec: DetectorSpec
    start: Mapping[str, NDArray[Any]] | None = None
    groups: SeriesGroups = field(default_factory=dict)
    tuning: FinetuneSettings = field(default_factory=FinetuneSettings)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a training took.

    gpu_seconds: wall time with a GPU in use; peak_bytes: of this process, or of the GPU where there was one.
    """

    wall_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_bytes: int
    points: int


@dataclass(frozen=True, slots=True)
class Trained:
    """What a training came to. ``usable``: there are weights to put to the test; otherwise ``reason`` says
    why not, and the champion stays.

    weights: those of the shared LSTM by name ({} for a detector that has none), and of networks that groups
    have of their own; metrics: for the manifest, plain JSON.
    """

    status: TrainingStatus
    reason: str
    weights: Weights
    metrics: dict[str, Any]
    cost: Cost
    excluded_rows: int = field(default=0)

    @property
    def usable(self) -> bool:
        return self.status in USABLE


def train_stream(
    data: TrainingData,
    config: TrainConfig,
    progress: Callable[[EpochProgress | BatchedProgress], None] | None = None,
    checkpoint_dir: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Trained:
    """Fine-tune the shared LSTM of the stream's detector on ``data``, then what some groups may have of their
    own; on the CPU the same data, config and thread count give the same weights.

    The last ``data.HELD_BACK`` of each series is not looked at: the backtest judges on it. Of the rest the
    end decides when to stop. ``checkpoint_dir`` (any fsspec path) lets a killed training go on after its last
    whole epoch. Raises ValueError for a detector that does not exist, ArtifactError where the checkpoint
    cannot be written; what the data or the memory are like, ``status`` says.
    """
    meter = _Meter(config.tuning.device)
    tier = TIERS.get(config.spec.tier)
    excluded_rows = int((~data.allowed).sum())
    if tier is None or not tier.lags:
        reason = f"detector {config.spec.tier} has no weights: what its series know of themselves is learnt from their history"
        return Trained(TrainingStatus.FINISHED, reason, {}, {}, meter.cost(len(data)), excluded_rows)
    lanes = TrainingSequences(*_lanes(data.head(), config.spec.preset))
    tuning = replace(config.tuning, memory=tier.input_memory_rows)
    checkpoint = f"{checkpoint_dir.rstrip('/')}/{data.stream}" if checkpoint_dir else None
    tuned = finetune(network(config.start), lanes, tuning, progress, cancelled, checkpoint)
    metrics = {
        "losses": tuned.losses,
        "held_out": tuned.held_out,
        "held_out_before": None if np.isnan(tuned.before) else tuned.before,
        "gradient": tuned.gradient,
        "batch": tuned.batch,
        "lanes": list(tuned.lanes),
        "rows": tuned.rows,
        "tuning": asdict(tuning),
    }
    weights = tuned.weights
    if config.groups and weights and tuned.status is not TrainingStatus.CANCELLED:
        where = f"{checkpoint}-own" if checkpoint else None
        more, metrics["own"] = train_group_networks(
            weights, lanes, data.series, config.groups, tuning, progress, cancelled, where
        )
        weights = weights | more
    status = TrainingStatus.CANCELLED if cancelled() else tuned.status
    return Trained(status, tuned.reason, weights, metrics, meter.cost(tuned.rows), excluded_rows)


def _lanes(
    data: TrainingData, preset: str
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int32]]:
    """Every channel of every series is a lane, in working units; what is in quarantine is missing."""
    values = PRESETS[preset]().forward(data.clean)
    channels = values.shape[1]
    if channels == 1:
        return data.first, values[:, 0], data.missed
    length = np.repeat(np.diff(data.first), channels)
    parts = [values[a:b].T.reshape(-1) for a, b in zip(data.first[:-1], data.first[1:], strict=True)]
    missed = [
        np.tile(data.missed[a:b], channels) for a, b in zip(data.first[:-1], data.first[1:], strict=True)
    ]
    first = np.r_[0, np.cumsum(length)].astype(np.int64)
    return first, np.concatenate([np.empty(0), *parts]), np.concatenate([np.empty(0, np.int32), *missed])


class _Meter:
    """Time and memory of a training."""

    def __init__(self, device: str) -> None:
        self._device = device
        self._wall, self._cpu = time.monotonic(), time.process_time()
        if device.startswith("cuda"):
            import torch

            torch.cuda.reset_peak_memory_stats(device)

    def cost(self, points: int) -> Cost:
        wall, cpu = time.monotonic() - self._wall, time.process_time() - self._cpu
        if self._device.startswith("cuda"):
            import torch

            return Cost(wall, cpu, wall, int(torch.cuda.max_memory_allocated(self._device)), points)
        return Cost(wall, cpu, 0.0, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, points)
