"""One training of one stream: data in, weights and their cost out.

A model has two parts. The *weights* of the shared LSTM are learned here by gradient. The state of each
series (scale, season, readout, calibration) is fitted in closed form by running the detector over the
series' history without the quarantine: ``pipeline.training.state_fitting``. This module uses no database
and no registry.
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
from detectors.forecasters.network_spec import NetworkSpec, Output, spec_of
from detectors.forecasters.shared_lstm import SharedLSTM, network
from detectors.forecasters.stream_network import StreamNetwork, stream_network
from detectors.training.batched_finetune import BatchedProgress
from detectors.training.finetune import FinetuneResult, finetune
from detectors.training.fit import EpochProgress, TrainingStatus
from detectors.training.sequences import FinetuneSettings, TrainingSequences
from pipeline.training.dataset import TrainingData
from pipeline.training.group_networks import SeriesGroups, train_group_networks

Weights = dict[str, NDArray[np.float32]]

USABLE = (
    TrainingStatus.FINISHED,
    TrainingStatus.CONVERGED,
    TrainingStatus.DIVERGED,
    TrainingStatus.OUT_OF_MEMORY,
)


#: Of a network that begins with random weights.
FRESH_LEARNING_RATE = 4e-3
FRESH_CHUNK_ROWS = 128


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Settings of a training of a stream.

    start: initial weights (None: the packaged ones). network: a network of the stream's own in place of the
    shared LSTM; it begins with ``start`` if that is of the same form, or else with random weights. groups:
    series, by their place in the data, for which a per-group LSTM is tried. The tuning's ``memory`` is replaced
    by that of the detector.
    """

    spec: DetectorSpec
    start: Mapping[str, NDArray[Any]] | None = None
    groups: SeriesGroups = field(default_factory=dict)
    tuning: FinetuneSettings = field(default_factory=FinetuneSettings)
    network: NetworkSpec | None = None


@dataclass(frozen=True, slots=True)
class Cost:
    """Time and memory of a training.

    gpu_seconds: wall time with a GPU in use; peak_bytes: of this process, or of the GPU if one was used.
    """

    wall_seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_bytes: int
    points: int


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of a training.

    weights: of the shared LSTM by name ({} for a detector without weights) and of per-group LSTMs; metrics:
    plain JSON for the manifest; ``reason`` explains the status.
    """

    status: TrainingStatus
    reason: str
    weights: Weights
    metrics: dict[str, Any]
    cost: Cost
    excluded_rows: int = field(default=0)

    @property
    def usable(self) -> bool:
        """Return whether there are weights to backtest; otherwise the champion stays."""
        return self.status in USABLE


def train_stream(
    data: TrainingData,
    config: TrainConfig,
    progress: Callable[[EpochProgress | BatchedProgress], None] | None = None,
    checkpoint_dir: str | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Trained:
    """Fine-tune the shared LSTM on ``data``, then the per-group LSTMs of the config.

    On the CPU the same data, config and thread count give the same weights. The last ``HELD_BACK`` of each
    series is left to the backtest; the end of the rest decides when to stop. Raises ValueError for an unknown
    detector, ArtifactError if a checkpoint cannot be written. Unsuitable data and lack of memory are a
    ``status``.

    Args:
        data: the training data.
        config: how to train.
        progress: called after each epoch or batch of networks.
        checkpoint_dir: any fsspec path; a killed training resumes there after its last whole epoch.
        cancelled: polled; the training ends soon after it returns True.
    """
    meter = _Meter(config.tuning.device)
    tier = TIERS.get(config.spec.tier)
    excluded_rows = int((~data.allowed).sum())
    if tier is None or not tier.lags:
        reason = f"detector {config.spec.tier} has no weights: the state of its series is learnt from their history"
        return Trained(TrainingStatus.FINISHED, reason, {}, {}, meter.cost(len(data)), excluded_rows)
    sequences = _as_sequences(data.head(), config.spec.preset)
    tuning = replace(config.tuning, memory=tier.input_memory_rows)
    checkpoint = f"{checkpoint_dir.rstrip('/')}/{data.stream}" if checkpoint_dir else None
    if config.network is not None and (unfit := unsuitable(config.network, sequences)) is not None:
        return Trained(TrainingStatus.UNTRAINABLE, unfit, {}, {}, meter.cost(len(data)), excluded_rows)
    module, tuning = _module(config, tuning)
    tuned = finetune(module, sequences, tuning, progress, cancelled, checkpoint)
    metrics = _metrics(tuned, tuning)
    weights = tuned.weights
    if isinstance(module, StreamNetwork) and weights:
        weights = module.tensors()  # the best ones; finetune put them back
    if config.groups and weights and tuned.status is not TrainingStatus.CANCELLED:
        where = f"{checkpoint}-own" if checkpoint else None
        more, metrics["own"] = train_group_networks(
            weights, sequences, data.series, config.groups, tuning, progress, cancelled, where
        )
        weights = weights | more
    status = TrainingStatus.CANCELLED if cancelled() else tuned.status
    return Trained(status, tuned.reason, weights, metrics, meter.cost(tuned.rows), excluded_rows)


def _metrics(tuned: FinetuneResult, tuning: FinetuneSettings) -> dict[str, Any]:
    """Return the figures of a training for the manifest."""
    return {
        "losses": tuned.losses,
        "held_out": tuned.held_out,
        "held_out_before": None if np.isnan(tuned.before) else tuned.before,
        "gradient": tuned.gradient,
        "batch": tuned.batch,
        "lanes": list(tuned.sequences),
        "rows": tuned.rows,
        "tuning": asdict(tuning),
    }


def _module(
    config: TrainConfig, tuning: FinetuneSettings
) -> tuple[SharedLSTM | StreamNetwork, FinetuneSettings]:
    """Return the network with its initial weights, and how to train it."""
    if config.network is None:
        return network(config.start), tuning
    module = stream_network(config.network, config.start, tuning.seed)
    if config.start is not None and spec_of(config.start) == config.network:
        return module, tuning
    return module, replace(tuning, learning_rate=FRESH_LEARNING_RATE, chunk=FRESH_CHUNK_ROWS)


def unsuitable(spec: NetworkSpec, sequences: TrainingSequences) -> str | None:
    """Return the reason why the values do not suit the output, None if they do."""
    if spec.output != Output.NEGATIVE_BINOMIAL:
        return None
    known = sequences.x[np.isfinite(sequences.x)]
    wrong = known[(known < 0) | (known != np.round(known))]
    if not len(wrong):
        return None
    return (
        f"output negative_binomial is for counts, and {len(wrong)} of {len(known)} values are negative or "
        f"no whole numbers, such as {wrong[0]:g}: choose output student_t"
    )


def _as_sequences(data: TrainingData, preset: str) -> TrainingSequences:
    """Make a sequence of every channel of every series, in working units.

    Rows in quarantine are missing.
    """
    values = PRESETS[preset]().forward(data.clean)
    channels = values.shape[1]
    if channels == 1:
        return TrainingSequences(data.first, values[:, 0], data.missed, data.time, data.every)
    length = np.repeat(np.diff(data.first), channels)
    parts = [values[a:b].T.reshape(-1) for a, b in zip(data.first[:-1], data.first[1:], strict=True)]
    rows = [np.tile(np.arange(a, b), channels) for a, b in zip(data.first[:-1], data.first[1:], strict=True)]
    row = np.concatenate([np.empty(0, np.int64), *rows])
    first = np.r_[0, np.cumsum(length)].astype(np.int64)
    x = np.concatenate([np.empty(0), *parts])
    return TrainingSequences(first, x, data.missed[row], data.time[row], data.every[row])


class _Meter:
    """Clock and memory counter of a training."""

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
