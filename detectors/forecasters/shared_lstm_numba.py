"""The shared LSTM in scoring, without torch.

Its weights are frozen, and it is batched over all series of a stream. The import of torch alone takes longer
than the rest of a start, and 400 MB.

One layer: gates = W x_t + U h_(t−1) + b, split into i, f, g, o; c_t = σ(f) c_(t−1) + σ(i) tanh(g); h_t = σ(o)
tanh(c_t) (Hochreiter & Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers et al.
2000). Training uses torch: ``detectors.forecasters.shared_lstm``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors import artifacts, weights
from detectors.channel_batch import Floats, Ints
from detectors.forecasters import lstm_features, per_group_lstm
from detectors.forecasters.hidden_state import is_rounded, pack_states, round_states, unpack_states
from detectors.jit import kernel, sigmoid, tanh
from detectors.row_product import multiply_rows

HIDDEN: Final = 64
EXPERTS: Final = 3  # naive, seasonal, AR
OUTPUTS: Final = EXPERTS + 2  # their weights, a correction, the logarithm of the scale
HEADS: Final = len(lstm_features.HORIZONS) * OUTPUTS

#: Every tensor of the net, in torch's order, with its shape.
SHAPES: Final = {
    "freedom": [len(lstm_features.HORIZONS)],
    "lstm.weight_ih_l0": [4 * HIDDEN, lstm_features.FEATURES],
    "lstm.weight_hh_l0": [4 * HIDDEN, HIDDEN],
    "lstm.bias_ih_l0": [4 * HIDDEN],
    "lstm.bias_hh_l0": [4 * HIDDEN],
    "head.weight": [HEADS, HIDDEN],
    "head.bias": [HEADS],
}

BLOCK_SERIES: Final = 64  # series that advance together, so that their states stay in the cache


def read(path: str | None = None, digest: str | None = None) -> dict[str, NDArray[Any]]:
    """Return the weights of the packaged network, or of that at ``path``.

    They include the per-group LSTMs, if there are any (``detectors.forecasters.per_group_lstm``). ``path``
    has no file suffix; ``digest`` is the result of saving. Raises ArtifactError if the files are incomplete
    or of another architecture.
    """
    saved = artifacts.load(path or str(Path(weights.__file__).parent / "shared_lstm"), digest)
    version = saved.manifest.get("features", {}).get("version")
    if saved.manifest.get("architecture") != "shared_lstm" or version != lstm_features.VERSION:
        raise artifacts.ArtifactError(
            f"{path or 'the packaged model'} is a {saved.manifest.get('architecture')} for inputs of version "
            f"{version}, not a shared_lstm for version {lstm_features.VERSION}: pretrain it "
            f"again (python -m detectors.training.pretrain)"
        )
    artifacts.expect(saved, SHAPES | per_group_lstm.shapes(saved.tensors, lstm_features.FEATURES, HIDDEN))
    try:
        per_group_lstm.networks(saved.tensors)
    except ValueError as error:
        raise artifacts.CorruptArtifact(f"{path}.safetensors: {error}: restore it or train again") from error
    return saved.tensors


class FrozenLSTM:
    """The shared LSTM with fixed weights; ``tensors`` have the names of ``SHAPES``."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Convert the tensors to float32 and stack input and recurrent weights."""
        self.tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in SHAPES}
        both = [self.tensors["lstm.weight_ih_l0"], self.tensors["lstm.weight_hh_l0"]]
        self._weights = np.ascontiguousarray(np.concatenate(both, axis=1).T)  # (F + H, 4H)
        self._bias = self.tensors["lstm.bias_ih_l0"] + self.tensors["lstm.bias_hh_l0"]

    def run(self, inputs: Floats, slot: Ints, h: NDArray[Any], c: NDArray[Any]) -> Floats:
        """Advance all series of a batch; return the hidden state after each point (N, H).

        Each time step is one product over all series that have one, so that the cost of a point does not
        depend on the number of series in a batch. Results do not depend on the composition of the batch.

        Args:
            inputs: Inputs of the points (N, F).
            slot: Series of the points (N,).
            h: Hidden states (S, H), changed in place; int16 as in ``hidden_state``, or float32.
            c: Cell states (S, H), changed in place.
        """
        return run_layer((self._weights, self._bias), inputs, slot, h, c)


def run_layer(
    gates: tuple[Floats, Floats], inputs: Floats, slot: Ints, h: NDArray[Any], c: NDArray[Any]
) -> Floats:
    """Advance series by one layer; return the hidden state after each point (N, H).

    Args:
        gates: Weights (F + H, 4H), inputs first, and bias (4H,).
        inputs: (N, F) of the points.
        slot: (N,) of the points.
        h: Hidden states (S, H), changed in place; int16 as in ``hidden_state``, or float32.
        c: Cell states (S, H), changed in place.
    """
    order, sizes, first = pack(slot)
    last_h, last_c = unpack_states(h[first], c[first])  # (B, H)
    hidden = np.empty((len(slot), h.shape[1]), np.float32)
    rounded = is_rounded(h)
    _recur(inputs, order, sizes, gates, (last_h, last_c, rounded), hidden)
    h[first], c[first] = pack_states(last_h, last_c) if rounded else (last_h, last_c)
    return hidden


def pack(slot: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Return packed order, points per time step, and slot of each series.

    The order is by time step, then by length of the series, the longest first.
    """
    by_slot = np.argsort(slot, kind="stable")
    ordered = slot[by_slot]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    counts = np.diff(np.r_[starts, len(slot)])
    longest = np.argsort(-counts, kind="stable")
    rank = np.empty(len(starts), np.int64)
    rank[longest] = np.arange(len(starts))
    when = np.arange(len(slot)) - np.repeat(starts, counts)
    order = np.lexsort((np.repeat(rank, counts), when))
    return by_slot[order], np.bincount(when), ordered[starts[longest]]


@kernel
def _gates(seen, c, raw, bias, row, out, rounded):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Compute the next cell and hidden state of row ``row``.

    ``raw`` (B, 4H) are the sums of the gates.
    ``c`` (H,) changes in place. The hidden state is written to ``out`` (H,), and behind the inputs of the
    row in ``seen``. Both are rounded to the steps of ``hidden_state`` if ``rounded``.
    """
    width = len(out)
    for k in range(width):
        i = sigmoid(raw[row, k] + bias[k])
        f = sigmoid(raw[row, width + k] + bias[width + k])
        g = tanh(raw[row, 2 * width + k] + bias[2 * width + k])
        c[k] = f * c[k] + i * g
        out[k] = sigmoid(raw[row, 3 * width + k] + bias[3 * width + k]) * tanh(c[k])
    if rounded:
        round_states(out, c)
    seen[row, -width:] = out


@kernel
def _recur(inputs, order, sizes, gates, state, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Advance the series of a batch and write the hidden states to ``out`` (N, H).

    ``order`` and ``sizes`` are those of ``pack``; ``gates`` are weights and bias; ``state`` has h and c (B, H)
    of the series, the longest first, and whether they are rounded.

    The series take their steps ``BLOCK_SERIES`` at a time, so that weights and states stay in the cache.
    """
    (weights, bias), (h, c, rounded) = gates, state
    features, width = inputs.shape[1], h.shape[1]
    seen, raw = (
        np.empty((BLOCK_SERIES, features + width), np.float32),
        np.empty((BLOCK_SERIES, 4 * width), np.float32),
    )
    for first in range(0, len(h), BLOCK_SERIES):
        start, held = 0, min(len(h) - first, BLOCK_SERIES)
        seen[:held, features:] = h[first : first + held]
        for t in range(len(sizes)):
            series = min(sizes[t] - first, BLOCK_SERIES)
            if series <= 0:
                break
            for s in range(series):
                seen[s, :features] = inputs[order[start + first + s]]
            multiply_rows(seen[:series], weights, raw[:series])
            for s in range(series):
                _gates(seen, c[first + s], raw, bias, s, out[order[start + first + s]], rounded)
            start += sizes[t]
        h[first : first + held] = seen[:held, features:]
