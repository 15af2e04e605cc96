"""The next-event network in scoring, without torch.

It is batched over keys and keeps its state per key.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.forecasters.shared_lstm_numba import run_layer
from detectors.jit import kernel
from detectors.sequences.vocabulary import BOUNDARY, UNKNOWN

TOP_EVENTS: Final = 3  # most probable events that are kept for the explanation
_CHUNK_CELLS: Final = 1 << 22  # probabilities computed at once


class FrozenEmbeddingLSTM:
    """Embedding, LSTM layers and softmax with fixed weights.

    State per key: ``h`` and ``c`` (S, layers, H) float32.
    """

    def __init__(
        self, tensors: Mapping[str, NDArray[Any]], temperature: float, unknown_probability: float
    ) -> None:
        """Stack the weights of each layer.

        Args:
            tensors: Weights with the names of ``EmbeddingLSTM.state_dict``.
            temperature: Divisor of the logits.
            unknown_probability: Probability that an event has a code which is not in the vocabulary.
        """
        self._embedding = _float32(tensors["embedding.weight"])
        self._head = _float32(tensors["head.weight"]).T / np.float32(temperature)
        self._head_bias = _float32(tensors["head.bias"]) / np.float32(temperature)
        self._unknown_probability = np.float32(unknown_probability)
        self._layers: list[tuple[Floats, Floats]] = []
        while (name := f"l{len(self._layers)}") and f"lstm.weight_hh_{name}" in tensors:
            both = [_float32(tensors[f"lstm.weight_{kind}_{name}"]) for kind in ("ih", "hh")]
            bias = _float32(tensors[f"lstm.bias_ih_{name}"]) + _float32(tensors[f"lstm.bias_hh_{name}"])
            self._layers.append((np.ascontiguousarray(np.concatenate(both, axis=1).T), bias))
        self.hidden = len(self._layers[0][1]) // 4
        self._fresh_h, self._fresh_c = self._after_boundary()

    def initial(self, n: int) -> State:
        """Return the state of ``n`` keys at the beginning of a session."""
        return {"h": np.repeat(self._fresh_h, n, 0), "c": np.repeat(self._fresh_c, n, 0)}

    def step(self, state: State, slot: Ints, token: Ints) -> Floats:
        """Advance keys and return the hidden state before each event (N, H).

        ``slot`` and ``token`` (N,) are in the order of time within each key. The state of a key is that of a
        new session after a boundary token.
        """
        if not len(slot):
            return np.empty((0, self.hidden), np.float32)
        by_slot = np.argsort(slot, kind="stable")
        slots, tokens = slot[by_slot], token[by_slot]
        first_of_slot = np.r_[True, slots[1:] != slots[:-1]]
        first = first_of_slot | np.r_[False, tokens[:-1] == BOUNDARY]
        segment = (np.cumsum(first) - 1).astype(np.int32)
        starts = np.flatnonzero(first)
        continued = first_of_slot[starts]
        h, c = (np.repeat(fresh, len(starts), 0) for fresh in (self._fresh_h, self._fresh_c))
        h[continued], c[continued] = (state[name][slots[starts[continued]]] for name in ("h", "c"))
        before = np.empty((len(slots), self.hidden), np.float32)
        before[starts] = h[:, -1]
        events = np.flatnonzero(tokens != BOUNDARY)
        after = self._run(h, c, segment[events], tokens[events]) if len(events) else before[:0]
        followed = events + 1 < len(slots)
        inside = np.zeros(len(slots), np.bool_)
        inside[events[followed] + 1] = ~first[events[followed] + 1]
        before[inside] = after[followed][~first[events[followed] + 1]]
        last = np.flatnonzero(np.r_[slots[1:] != slots[:-1], True])
        ended = tokens[last] == BOUNDARY
        for name, value, fresh in (("h", h, self._fresh_h), ("c", c, self._fresh_c)):
            state[name][slots[last]] = np.where(ended[:, None, None], fresh, value[segment[last]])
        out = np.empty_like(before)
        out[by_slot] = before
        return out

    def score(self, before: Floats, token: Ints) -> tuple[Floats, Floats, NDArray[np.int32], Floats]:
        """Return the probabilities of events, given the hidden state before each.

        ``before`` (N, H), ``token`` (N,) → probability (N,), p-value (N,): the probability of an event that
        is at most as probable, the most probable tokens (N, TOP_EVENTS) and their probabilities.
        """
        n, width = len(token), len(self._head_bias)
        probability, p_value = np.empty(n, np.float32), np.empty(n, np.float32)
        top, top_probability = np.zeros((n, TOP_EVENTS), np.int32), np.zeros((n, TOP_EVENTS), np.float32)
        rows = max(1, _CHUNK_CELLS // width)
        for at in range(0, n, rows):
            part = slice(at, at + rows)
            logits = before[part] @ self._head + self._head_bias
            logits -= logits.max(axis=1, keepdims=True)
            np.exp(logits, out=logits)
            logits[:, UNKNOWN] = 0.0
            logits *= (1.0 - self._unknown_probability) / logits.sum(axis=1, keepdims=True)
            logits[:, UNKNOWN] = self._unknown_probability
            _rank(logits, token[part], probability[part], p_value[part], top[part], top_probability[part])
        return probability, p_value, top, top_probability

    def _run(self, h: Floats, c: Floats, slot: Ints, token: Ints) -> Floats:
        values = self._embedding[token]
        for layer, gates in enumerate(self._layers):
            values = run_layer(gates, values, slot, h[:, layer], c[:, layer])
        return values

    def _after_boundary(self) -> tuple[Floats, Floats]:
        h, c = (np.zeros((1, len(self._layers), self.hidden), np.float32) for _ in range(2))
        self._run(h, c, np.zeros(1, np.int32), np.full(1, BOUNDARY, np.int32))
        return h, c


def _float32(tensor: NDArray[Any]) -> Floats:
    return np.ascontiguousarray(tensor, np.float32)


@kernel
def _rank(given, token, probability, p_value, top, top_probability):  # type: ignore[no-untyped-def]  # noqa: ANN001
    """Fill the outputs of ``FrozenEmbeddingLSTM.score`` from ``given`` (N, V)."""
    for row in range(len(token)):
        own = given[row, token[row]]
        mass = np.float32(0)
        for j in range(given.shape[1]):
            p = given[row, j]
            if p <= own:
                mass += p
            if p > top_probability[row, -1]:
                place = top.shape[1] - 1
                while place > 0 and p > top_probability[row, place - 1]:
                    top[row, place] = top[row, place - 1]
                    top_probability[row, place] = top_probability[row, place - 1]
                    place -= 1
                top[row, place] = j
                top_probability[row, place] = p
        probability[row] = own
        p_value[row] = mass
