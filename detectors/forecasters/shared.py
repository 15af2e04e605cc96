"""The one LSTM that every series shares: pretrained on synthetic series, frozen, batched over all series of a stream.

Its hidden state is the input of a readout per series; its own head mixes the simple experts of ``features`` and so forecasts from a series'
first points on. Hochreiter & Schmidhuber, "Long short-term memory", 1997; mixing by a gate: Jacobs et al., "Adaptive mixtures of local experts", 1991.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detectors import artifacts, own, weights
from detectors.forecasters import features

HIDDEN: Final = 64
EXPERTS: Final = 3  # naive, seasonal, AR
OUTPUTS: Final = EXPERTS + 2  # their weights, a correction, the logarithm of the scale

Pair = tuple[Tensor, Tensor]


class SharedLSTM(nn.Module):
    """One layer of ``HIDDEN`` cells over ``features.FEATURES`` inputs, a linear head for the steps ahead ``features.HORIZONS`` (K of them)."""

    def __init__(self, hidden: int = HIDDEN) -> None:
        super().__init__()
        self.lstm = nn.LSTM(features.FEATURES, hidden)
        self.head = nn.Linear(hidden, len(features.HORIZONS) * OUTPUTS)
        self.freedom = nn.Parameter(torch.full((len(features.HORIZONS),), 1.0))  # log of the Student-t's degrees of freedom − 2

    def forward(self, inputs: Tensor, state: Pair | None = None) -> tuple[Tensor, Tensor, Tensor, Pair]:
        """``inputs`` (T, B, F) → location (T, B, K) and log scale (T, B, K), both in units; hidden (T, B, H); state (1, B, H) twice."""
        hidden, state = self.lstm(inputs, state)
        location, log_scale = self.forecast(hidden, inputs)
        return location, log_scale, hidden, state

    def forecast(self, hidden: Tensor, inputs: Tensor) -> Pair:
        """``hidden`` (…, H) and the ``inputs`` (…, F) it came from → location (…, K) and log scale (…, K) of (x_(t+k) − x_t) / unit."""
        return mixed(self.head(hidden), inputs)


def mixed(out: Tensor, inputs: Tensor) -> Pair:
    """What the head says (…, K · OUTPUTS) of the ``inputs`` (…, F) → location and log scale, (…, K) each."""
    out = out.reshape(*out.shape[:-1], len(features.HORIZONS), OUTPUTS)  # (…, K, OUTPUTS)
    chosen = inputs[..., [features.SEASON_NEXT, features.SEASON_LATER, features.AR_NEXT, features.AR_LATER]].sinh()
    seasonal, ar = chosen[..., :2], chosen[..., 2:]  # (…, K) each; the naive forecast is 0
    weight = out[..., :EXPERTS].softmax(-1)
    location = weight[..., 1] * seasonal + weight[..., 2] * ar + out[..., EXPERTS]
    return location, out[..., EXPERTS + 1].clamp(-9.0, 6.0)


def run_batch(
    module: SharedLSTM, inputs: NDArray[np.float32], slot: NDArray[np.int32], h: NDArray[np.float32], c: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Advance all series of a batch in ONE call: ``inputs`` (N, F), ``slot`` (N,) → hidden state after each point (N, H).

    ``h`` and ``c`` (S, H) are changed in place. The points become one PackedSequence (series × their points), so that the cost a point does not
    depend on how many series a batch holds. Results differ by about 1e-7 with the composition of the batch.
    """
    order, sizes, first = pack(slot)
    with torch.inference_mode():
        packed = nn.utils.rnn.PackedSequence(torch.from_numpy(inputs[order]), torch.from_numpy(sizes))
        out, (last_h, last_c) = module.lstm(packed, (torch.from_numpy(h[first])[None], torch.from_numpy(c[first])[None]))
    h[first], c[first] = last_h[0].numpy(), last_c[0].numpy()
    hidden = np.empty((len(slot), HIDDEN), np.float32)
    hidden[order] = out.data.numpy()
    return hidden


def pack(slot: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[Any]]:
    """Points in packed order (time step first, longest series first), points per time step, and the slot of each packed series."""
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


def load(path: str | None = None, digest: str | None = None) -> SharedLSTM:
    """The frozen net of this package, or that at ``path`` (without its ending; ``digest`` is what saving it returned).

    Raises ArtifactError where the files are not whole or not for us.
    """
    module, arrays = SharedLSTM(), read(path, digest)
    module.load_state_dict({name: torch.from_numpy(arrays[name]) for name in module.state_dict()})
    return module.requires_grad_(False).eval()


def read(path: str | None = None, digest: str | None = None) -> dict[str, NDArray[Any]]:
    """The tensors of ``load``, and of the networks that some series have of their own beside it (``detectors.own``). Raises ArtifactError."""
    saved = artifacts.load(path or str(Path(weights.__file__).parent / "shared_lstm"), digest)
    version = saved.manifest.get("features", {}).get("version")
    if saved.manifest.get("architecture") != "shared_lstm" or version != features.VERSION:
        raise artifacts.ArtifactError(
            f"{path or 'the packaged model'} is a {saved.manifest.get('architecture')} for inputs of version {version}, not a shared_lstm for version "
            f"{features.VERSION}: pretrain it again (python -m detectors.pretrain)"
        )
    shapes = {name: list(value.shape) for name, value in SharedLSTM().state_dict().items()}
    artifacts.expect(saved, shapes | own.shapes(saved.tensors, features.FEATURES, HIDDEN))
    try:
        own.Own.of(saved.tensors)
    except ValueError as error:
        raise artifacts.CorruptArtifact(f"{path}.safetensors: {error}: restore it or train again") from error
    return saved.tensors
