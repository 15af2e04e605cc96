"""The shared LSTM as scoring runs it: frozen, batched over all series of a stream, and without torch, whose
import alone takes longer than all the rest of a start and 400 MB.

One layer: gates = W x_t + U h_(t−1) + b, split into i, f, g, o; c_t = σ(f) c_(t−1) + σ(i) tanh(g); h_t = σ(o)
tanh(c_t) (Hochreiter & Schmidhuber, "Long short-term memory", 1997, with the forget gate of Gers et al.
2000). Training is torch's business: ``detectors.forecasters.shared_lstm``.
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
from detectors.jit import kernel, sigmoid, tanh

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

BLOCK = 64  # series that step together


def read(path: str | None = None, digest: str | None = None) -> dict[str, NDArray[Any]]:
    """The weights of this package's net, or of that at ``path`` (without its ending; ``digest`` is what
    saving it returned), and of the networks that some series have of their own beside it
    (``detectors.forecasters.per_group_lstm``).

    Raises ArtifactError where the files are not whole or not for us.
    """
    saved = artifacts.load(path or str(Path(weights.__file__).parent / "shared_lstm"), digest)
    version = saved.manifest.get("features", {}).get("version")
    if saved.manifest.get("architecture") != "shared_lstm" or version != lstm_features.VERSION:
        raise artifacts.ArtifactError(
            f"{path or 'the packaged model'} is a {saved.manifest.get('architecture')} for inputs of version {version}, not a shared_lstm for version "
            f"{lstm_features.VERSION}: pretrain it again (python -m detectors.training.pretrain)"
        )
    artifacts.expect(saved, SHAPES | per_group_lstm.shapes(saved.tensors, lstm_features.FEATURES, HIDDEN))
    try:
        per_group_lstm.networks(saved.tensors)
    except ValueError as error:
        raise artifacts.CorruptArtifact(f"{path}.safetensors: {error}: restore it or train again") from error
    return saved.tensors


class FrozenLSTM:
    """``tensors`` by the names of ``SHAPES``."""

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        self.tensors = {name: np.ascontiguousarray(tensors[name], np.float32) for name in SHAPES}
        both = [self.tensors["lstm.weight_ih_l0"], self.tensors["lstm.weight_hh_l0"]]
        self._weights = np.ascontiguousarray(np.concatenate(both, axis=1).T)  # (F + H, 4H)
        self._bias = self.tensors["lstm.bias_ih_l0"] + self.tensors["lstm.bias_hh_l0"]

    def run(self, inputs: Floats, slot: Ints, h: Floats, c: Floats) -> Floats:
        """Advance all series of a batch: ``inputs`` (N, F), ``slot`` (N,) → hidden state after each point (N,
        H).

        ``h`` and ``c`` (S, H) are changed in place. Each time step is one product over all series that have
        one, so that the cost a point does not depend on how many series a batch holds. Results differ by
        about 1e-7 with the composition of the batch.
        """
        order, sizes, first = pack(slot)
        last_h, last_c = h[first], c[first]  # (B, H)
        hidden = np.empty((len(slot), HIDDEN), np.float32)
        _recur(inputs, order, sizes, self._weights, self._bias, last_h, last_c, hidden)
        h[first], c[first] = last_h, last_c
        return hidden


def pack(slot: Ints) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Points in packed order (time step first, longest series first), points per time step, and the slot of
    each packed series.
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
def _gates(seen, c, raw, bias, row, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """From the gates' sums ``raw`` (B, 4H) the next c (H,) of row ``row`` in place, and its next h into
    ``out`` (H,) and behind its inputs in ``seen``.
    """
    width = len(out)
    for k in range(width):
        i = sigmoid(raw[row, k] + bias[k])
        f = sigmoid(raw[row, width + k] + bias[width + k])
        g = tanh(raw[row, 2 * width + k] + bias[2 * width + k])
        c[k] = f * c[k] + i * g
        out[k] = sigmoid(raw[row, 3 * width + k] + bias[3 * width + k]) * tanh(c[k])
    seen[row, -width:] = out


@kernel
def _recur(inputs, order, sizes, weights, bias, h, c, out):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Points in packed ``order`` and ``sizes``; ``h``, ``c`` (B, H) the state of each series, the longest
    first; hidden states into ``out`` (N, H).

    The series take their steps ``BLOCK`` at a time: what is in the cache stays there for all of them.
    """
    features, width = inputs.shape[1], h.shape[1]
    seen, raw = np.empty((BLOCK, features + width), np.float32), np.empty((BLOCK, 4 * width), np.float32)
    for first in range(0, len(h), BLOCK):
        start, held = 0, min(len(h) - first, BLOCK)
        seen[:held, features:] = h[first : first + held]
        for t in range(len(sizes)):
            series = min(sizes[t] - first, BLOCK)
            if series <= 0:
                break
            for s in range(series):
                seen[s, :features] = inputs[order[start + first + s]]
            np.dot(seen[:series], weights, raw[:series])
            for s in range(series):
                _gates(seen, c[first + s], raw, bias, s, out[order[start + first + s]])
            start += sizes[t]
        h[first : first + held] = seen[:held, features:]
