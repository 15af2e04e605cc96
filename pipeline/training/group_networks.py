"""Per-group LSTMs: fine-tuned from the new shared LSTM in one batched computation.

A group is a set of series, possibly a single one. A group keeps its LSTM if it forecasts better on the end of
the training data, which no network was trained on. The backtest judges the whole version.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from detectors.forecasters import per_group_lstm
from detectors.forecasters.shared_lstm import network
from detectors.training.batched_finetune import BatchedProgress, BatchedResult, finetune_batched
from detectors.training.sequences import FinetuneSettings, TrainingSequences

# Required reduction of the shared LSTM's error one step ahead for a network to be kept.
MIN_ERROR_REDUCTION: Final = 0.05
MIN_TARGETS: Final = 100  # in the held-out end, for a certain result
MAX_NETWORKS: Final = 2_000  # of a version, 90 KB each

Arrays = dict[str, NDArray[Any]]
#: Name of a group → places of its series.
SeriesGroups = Mapping[str, Sequence[int]]


def train_group_networks(
    shared: Mapping[str, NDArray[Any]],
    sequences: TrainingSequences,
    series: Sequence[str],
    groups: SeriesGroups,
    tuning: FinetuneSettings,
    progress: Callable[[BatchedProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """Train the networks of the groups and return the better ones' tensors.

    The second value summarises all networks for the manifest. If the groups have more rows than
    ``tuning.most_rows``, those with the most rows are trained. See ``detectors.forecasters.per_group_lstm``.

    Args:
        shared: weights of the shared LSTM.
        sequences: one for each channel of each series, the channels of a series side by side.
        series: names of the series.
        groups: places in ``series`` by name of the group.
        tuning: how to fine-tune.
        progress: called after each batch of networks.
        cancelled: polled; the training ends soon after it returns True.
        checkpoint: path to resume from.
    """
    channels = (len(sequences.first) - 1) // max(1, len(series))
    chosen = _affordable(sequences, channels, groups, tuning)
    owner = np.full(len(sequences.first) - 1, -1, np.int32)
    for number, name in enumerate(chosen):
        owner[_sequences_of(groups[name], channels)] = number
    try:
        found = finetune_batched(network(shared), sequences, owner, tuning, progress, cancelled, checkpoint)
    except torch.cuda.OutOfMemoryError as error:
        return {}, {"groups": len(groups), "tried": 0, "kept": 0, "reason": str(error).splitlines()[0]}
    gain = _gain(found)
    best = np.argsort(-gain, kind="stable")[:MAX_NETWORKS]
    kept = np.sort(best[gain[best] >= MIN_ERROR_REDUCTION]).tolist()
    about = {
        "groups": len(groups), "tried": len(chosen), "kept": len(kept), "margin": MIN_ERROR_REDUCTION,
        "networks": [
            {"of": chosen[place], "series": len(groups[chosen[place]]), "error": float(found.error[place]), "shared": float(found.shared_error[place])}
            for place in kept
        ],
    }  # fmt: skip
    members = [[series[i] for i in groups[chosen[place]]] for place in kept]
    return per_group_lstm.tensors(
        members, {name: value[kept] for name, value in found.weights.items()}
    ), about


def _affordable(
    sequences: TrainingSequences, channels: int, groups: SeriesGroups, tuning: FinetuneSettings
) -> list[str]:
    """Return the groups with the most rows, as many as ``most_rows`` allows.

    A group trains on at most ``batch`` sequences.
    """
    length = np.diff(sequences.first)
    rows = {
        name: int(np.sort(length[_sequences_of(places, channels)])[-tuning.batch :].sum())
        for name, places in groups.items()
    }
    order = sorted(groups, key=lambda name: (-rows[name], name))
    total = np.cumsum([rows[name] for name in order])
    return order[: int(np.searchsorted(total, tuning.most_rows, side="right"))]


def _sequences_of(places: Sequence[int], channels: int) -> NDArray[np.int64]:
    return (np.asarray(places, np.int64)[:, None] * channels + np.arange(channels)).ravel()


def _gain(found: BatchedResult) -> NDArray[np.float64]:
    """Return the relative error reduction of each network (S,); 0 if it is uncertain."""
    sure = (found.known >= MIN_TARGETS) & (found.held_out < found.before)
    return np.where(sure, 1 - found.error / np.where(found.shared_error > 0, found.shared_error, np.inf), 0.0)
