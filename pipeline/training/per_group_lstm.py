"""Networks of their own for groups of series, or for single ones, where they win: trained from the new shared
LSTM on, all in one batched computation.

Whether one wins is seen on the held-out end of the training data, which none learnt from. What the whole
version is worth, the backtest says.
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
from detectors.training.finetune import FinetuneSettings, TrainingSequences

# of the shared LSTM's error one step ahead: so much smaller must that of a network be to be kept
MARGIN: Final = 0.05
ENOUGH: Final = 100  # targets in the held-out end that say so
MOST: Final = 2_000  # networks of a version: 90 KB each

Arrays = dict[str, NDArray[Any]]
#: What a group is called → its series.
SeriesGroups = Mapping[str, Sequence[int]]


def train_group_networks(
    shared: Mapping[str, NDArray[Any]],
    lanes: TrainingSequences,
    series: Sequence[str],
    groups: SeriesGroups,
    tuning: FinetuneSettings,
    progress: Callable[[BatchedProgress], None] | None = None,
    cancelled: Callable[[], bool] = lambda: False,
    checkpoint: str | None = None,
) -> tuple[Arrays, dict[str, Any]]:
    """Tensors of those networks that win (see ``detectors.forecasters.per_group_lstm``), and what is to be
    said of all for the manifest.

    ``groups`` hold places in ``series``, whose lanes lie side by side in ``lanes``. Of more rows than
    ``tuning.most_rows`` the groups with the most have their turn.
    """
    channels = (len(lanes.first) - 1) // max(1, len(series))
    chosen = _affordable(lanes, channels, groups, tuning)
    owner = np.full(len(lanes.first) - 1, -1, np.int32)
    for number, name in enumerate(chosen):
        owner[_lanes_of(groups[name], channels)] = number
    try:
        many = finetune_batched(network(shared), lanes, owner, tuning, progress, cancelled, checkpoint)
    except torch.cuda.OutOfMemoryError as error:
        return {}, {"groups": len(groups), "tried": 0, "kept": 0, "reason": str(error).splitlines()[0]}
    gain = _gain(many)
    best = [place for place in np.argsort(-gain, kind="stable")[:MOST].tolist() if gain[place] >= MARGIN]
    kept = sorted(best)
    about = {
        "groups": len(groups), "tried": len(chosen), "kept": len(kept), "margin": MARGIN,
        "networks": [
            {"of": chosen[place], "series": len(groups[chosen[place]]), "error": float(many.error[place]), "shared": float(many.shared_error[place])}
            for place in kept
        ],
    }  # fmt: skip
    members = [[series[i] for i in groups[chosen[place]]] for place in kept]
    return per_group_lstm.tensors(members, {name: value[kept] for name, value in many.weights.items()}), about


def _affordable(
    lanes: TrainingSequences, channels: int, groups: SeriesGroups, tuning: FinetuneSettings
) -> list[str]:
    """Groups with the most rows first, as many as ``most_rows`` allows; one has at most ``batch`` lanes to
    learn from.
    """
    length = np.diff(lanes.first)
    rows = {
        name: int(np.sort(length[_lanes_of(places, channels)])[-tuning.batch :].sum())
        for name, places in groups.items()
    }
    order = sorted(groups, key=lambda name: (-rows[name], name))
    total = np.cumsum([rows[name] for name in order])
    return order[: int(np.searchsorted(total, tuning.most_rows, side="right"))]


def _lanes_of(places: Sequence[int], channels: int) -> NDArray[np.int64]:
    return (np.asarray(places, np.int64)[:, None] * channels + np.arange(channels)).ravel()


def _gain(many: BatchedResult) -> NDArray[np.float64]:
    """By how much of the shared LSTM's error each network's (S,) is smaller; 0 where nothing can be said."""
    sure = (many.known >= ENOUGH) & (many.held_out < many.before)
    return np.where(sure, 1 - many.error / np.where(many.shared_error > 0, many.shared_error, np.inf), 0.0)
