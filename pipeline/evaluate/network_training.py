"""A network for an evaluation, trained on the rows that are not measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.composite.presets import PRESETS
from detectors.composite.tiers import TIERS
from detectors.forecasters.network_spec import Kind, NetworkSpec, conflicts
from pipeline.config.diagnostics import closest
from pipeline.core.errors import InputError
from pipeline.core.extras import require_training
from pipeline.evaluate.layouts import Labelled
from pipeline.evaluate.stream_comparison import NETWORKS, network_named
from pipeline.observability.progress_bar import progress

EPOCHS: Final = 20
#: Rows of a series that are trained on at most, the newest before the measured ones.
MAX_ROWS: Final = 20_000


def other_forecaster(word: str) -> str:
    """Return the remedy for a name that is no live network."""
    if word == Kind.BIDIRECTIONAL:
        (conflict,) = conflicts(NetworkSpec(word))
        return f"{conflict.reason}; {conflict.remedy}"
    return closest(word, NETWORKS)


def train_on(
    series: Sequence[Labelled], forecaster: str, tier: str, preset: str
) -> Mapping[str, NDArray[Any]] | None:
    """Return the weights of one network for all series; None without a ``forecaster``.

    Labels are not used.

    Args:
        series: Those to be scored; their first ``warm_up`` rows are trained on.
        forecaster: Name as in ``network_named``, or "".
        tier: Detector in which it will run.
        preset: Kind of the numbers.

    Raises:
        InputError: nothing can be trained on.
    """
    if not forecaster:
        return None
    require_training()
    from detectors.forecasters.stream_network import stream_network
    from detectors.training.finetune import finetune
    from detectors.training.sequences import FinetuneSettings, stacked
    from pipeline.training.trainer import FRESH_CHUNK_ROWS, FRESH_LEARNING_RATE

    parts: list[NDArray[np.float64]] = []
    times: list[NDArray[np.int64]] = []
    for one in series:
        learned = slice(max(0, one.warm_up - MAX_ROWS), one.warm_up)
        rows = PRESETS[preset]().forward(one.values[learned])
        parts += [np.ascontiguousarray(column) for column in rows.T]
        times += [one.time[learned]] * rows.shape[1]
    tuning = FinetuneSettings(
        epochs=EPOCHS,
        learning_rate=FRESH_LEARNING_RATE,
        chunk=FRESH_CHUNK_ROWS,
        memory=TIERS[tier].input_memory_rows,
    )
    network = network_named(forecaster)
    assert network is not None  # ``check_names`` looked
    module = stream_network(network, None)
    with progress(f"training {forecaster}", "epochs", EPOCHS) as bar:
        result = finetune(module, stacked(parts, times), tuning, progress=lambda _: bar.advance(1))
    if not result.weights:
        raise InputError(f"--forecaster {forecaster}: the rows before the measured ones: {result.reason}")
    return module.tensors()
