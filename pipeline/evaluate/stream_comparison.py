"""Networks inside the detector of a stream, on its recorded values.

Each is trained as a training job would train it, and backtested as its evidence card would be.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import DetectorSpec
from detectors.forecasters.network_spec import (
    ExtraInputs,
    Kind,
    NetworkSpec,
    default_activation,
    default_head,
    with_inputs,
)
from pipeline.core.errors import InputError
from pipeline.training.backtest import BacktestConfig, Trial, seasonal_naive
from pipeline.training.dataset import TrainingData

#: Live variant → network.
NETWORKS: Final[Mapping[str, NetworkSpec]] = {
    **{
        str(kind): NetworkSpec(str(kind), head=default_head(kind), activation=default_activation(kind))
        for kind in Kind
        if kind != Kind.BIDIRECTIONAL
    },
    "deep_lstm": NetworkSpec(Kind.LSTM, layers=2),
}
#: Steps of noise, and steps of training, of the recall task.
RECALL_STEPS: Final = 100
RECALL_UPDATES: Final = 160
#: The network that every stream has from the start.
PACKAGED: Final = "shared_lstm"


@dataclass(frozen=True, slots=True)
class StreamFigures:
    """Figures of one network in the detector of a stream, on the held-out end.

    seasonal_error: error one step ahead of the whole detector, over that of seasonal naive. detection: share
    of the synthetic changes that are detected. microseconds: CPU time a point of the whole detector.
    state_bytes: of the network, for one channel of one series.
    """

    seasonal_error: float
    detection: float
    alarms: int
    microseconds: float
    state_bytes: int


def network_named(name: str, zone: str = "", holidays: str = "") -> NetworkSpec | None:
    """Return the network of a name, None if there is none.

    Args:
        name: Name in ``NETWORKS``, with groups of further inputs behind a plus: gru+calendar+lags.
        zone: Time zone of these inputs; "": UTC.
        holidays: Country of their holidays; "": none.
    """
    kind, *groups = name.split("+")
    if kind not in NETWORKS or not set(groups) <= set(ExtraInputs):
        return None
    return with_inputs(NETWORKS[kind], groups, zone, holidays)


def recall_of(name: str, gap: int = RECALL_STEPS) -> float:
    """Return the unexplained share of a value after ``gap`` steps of noise.

    The network is trained on that. 0: the network remembers it exactly; 1: not at all; 0.25: its sign.
    """
    from detectors.forecasters import build
    from detectors.forecasters.network_spec import GATED_KINDS
    from detectors.training.recall import unexplained_share

    network = NETWORKS[name]
    options: dict[str, Any] = {"span": gap + gap // 4} if network.kind in GATED_KINDS else {}
    kind = Kind.LSTM if network.kind == Kind.ENCODER_DECODER else network.kind  # its encoder
    forecaster = build(
        str(kind), hidden=16, layers=network.layers, head="many_to_one", output="point", **options
    )
    return unexplained_share(forecaster, gap, RECALL_UPDATES)


def packaged_figures(data: TrainingData, spec: DetectorSpec) -> StreamFigures:
    """Measure the packaged LSTM, the baseline to beat."""
    from detectors.forecasters.shared_lstm_numba import HIDDEN

    return _figures(data, spec, None, 2 * 4 * HIDDEN)


def network_figures(
    data: TrainingData, spec: DetectorSpec, network: NetworkSpec, *, epochs: int
) -> StreamFigures:
    """Train a network on all but the held-out end, and measure it there.

    Args:
        data: Recorded values.
        spec: The detector of the stream.
        network: The network.
        epochs: Most passes over the data.

    Raises:
        InputError: the data cannot be trained on.
    """
    from detectors.forecasters.frozen_network import FrozenNetwork
    from detectors.training.sequences import FinetuneSettings
    from pipeline.training.trainer import TrainConfig, train_stream

    tuning = FinetuneSettings(epochs=epochs)
    trained = train_stream(data, TrainConfig(spec, tuning=tuning, network=network))
    if not trained.weights:
        raise InputError(f"{network.kind}: {trained.reason}")
    return _figures(data, spec, trained.weights, FrozenNetwork(trained.weights).state_bytes)


def _figures(
    data: TrainingData, spec: DetectorSpec, weights: Mapping[str, NDArray[Any]] | None, state_bytes: int
) -> StreamFigures:
    trial = Trial(data, spec, BacktestConfig())
    found = trial.run(weights, lived=False)
    naive = list(seasonal_naive(data, trial.until, trial.rows).values())
    return StreamFigures(
        seasonal_error=found.mase / float(np.median(naive)) if naive else float("nan"),
        detection=float(np.mean(list(found.power.values()))) if found.power else float("nan"),
        alarms=found.alarms,
        microseconds=found.microseconds,
        state_bytes=state_bytes,
    )
