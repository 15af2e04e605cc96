"""The network of a stream in scoring, without torch.

Its weights are frozen, and it is batched over all series of a stream: a layer runs over the whole batch
before the next one begins. Products go through ``row_product``, so that the numbers of a series do not depend
on the other series of a batch, nor on how its points are cut into batches.

Training uses torch: ``detectors.forecasters.stream_network``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from detectors import artifacts
from detectors.base import State
from detectors.channel_batch import Floats, Ints
from detectors.forecasters import lstm_features
from detectors.forecasters.calendar_inputs import GATES, LAG_PREFIX, CalendarInputs, blend_lags, gate_inputs
from detectors.forecasters.lstm_features import FeatureRows
from detectors.forecasters.network_kernels import (
    ACTIVATION_NUMBERS,
    activate,
    add_experts,
    advance_attention,
    advance_gru,
    advance_rnn,
    count_locations,
    fill_windows,
    gru_cell,
)
from detectors.forecasters.network_spec import (
    SPEC_TENSOR,
    WEIGHT_PREFIX,
    ExtraInputs,
    Head,
    Kind,
    NetworkSpec,
    Output,
    spec_of,
)
from detectors.forecasters.shared_lstm_numba import pack, run_layer
from detectors.row_product import row_product

#: Name of such networks in the manifests of versions.
ARCHITECTURE: Final = "stream_network"
#: Rows of a feed-forward network whose windows are in memory at once.
WINDOW_CHUNK_ROWS: Final = 4096
#: Number of the median among the parameters of a quantile forecast.
MEDIAN: Final = 3
MAX_LOCATION_UNITS: Final = 50.0
_OUTPUT_SIZES: Final = {
    Output.POINT: 1,
    Output.GAUSSIAN: 2,
    Output.STUDENT_T: 3,
    Output.QUANTILE: 7,
    Output.NEGATIVE_BINOMIAL: 2,
}
_GATES: Final = {Kind.LSTM: 4, Kind.ENCODER_DECODER: 4, Kind.GRU: 3, Kind.ATTENTION: 3}


def weight_shapes(spec: NetworkSpec) -> dict[str, list[int]]:
    """Return the shape of each weight by its name without ``WEIGHT_PREFIX``."""
    size, features = spec.hidden, lstm_features.FEATURES + CalendarInputs(spec).width
    shapes: dict[str, list[int]] = {}
    for layer in range(spec.layers):
        inputs = size if layer else features
        if spec.kind == Kind.FEEDFORWARD:
            inputs = size if layer else features * spec.window
            shapes |= {f"net.{2 * layer}.weight": [size, inputs], f"net.{2 * layer}.bias": [size]}
        elif spec.kind == Kind.RNN:
            shapes |= {f"inward.{layer}.weight": [size, inputs], f"inward.{layer}.bias": [size]}
            shapes |= {f"again.{layer}.weight": [size, size]}
        else:
            gates = _GATES[Kind(spec.kind)] * size
            shapes |= {f"cell.weight_ih_l{layer}": [gates, inputs], f"cell.weight_hh_l{layer}": [gates, size]}
            shapes |= {f"cell.bias_{part}_l{layer}": [gates] for part in ("ih", "hh")}
    if spec.kind == Kind.ATTENTION:
        shapes |= {f"{name}.weight": [size, size] for name in ("ask", "key")}
        shapes |= {f"{name}.bias": [size] for name in ("ask", "key")} | {"place": [spec.memory]}
    if ExtraInputs.LAGS in spec.extra_inputs:
        width = CalendarInputs(spec).gate_width
        shapes |= {"gates.weight": [GATES, width], "gates.bias": [GATES]}
    heads = ("head", "mirror") if spec.kind == Kind.ENCODER_DECODER else ("head",)
    for head in heads:
        shapes |= _head_shapes(spec, head)
    return shapes


def _head_shapes(spec: NetworkSpec, head: str) -> dict[str, list[int]]:
    """Return the shapes of a head by name."""
    outputs, width = _OUTPUT_SIZES[Output(spec.output)], spec.width
    if spec.head != Head.ONE_TO_MANY:
        outputs *= spec.steps
    shapes = {f"{head}.linear.weight": [outputs, width], f"{head}.linear.bias": [outputs]}
    if spec.head == Head.ONE_TO_MANY:
        shapes |= {f"{head}.cell.weight_ih": [3 * width, 1], f"{head}.cell.weight_hh": [3 * width, width]}
        shapes |= {f"{head}.cell.bias_{part}": [3 * width] for part in ("ih", "hh")}
    return shapes


def read(path: str, digest: str | None = None) -> dict[str, NDArray[Any]]:
    """Return spec and weights of the network at ``path``, which has no file suffix.

    ``digest`` is the result of saving. Raises ArtifactError if the files are incomplete, of another
    architecture or of inputs of another version.
    """
    saved = artifacts.load(path, digest)
    version = saved.manifest.get("features", {}).get("version")
    if saved.manifest.get("architecture") != ARCHITECTURE or version != lstm_features.VERSION:
        raise artifacts.ArtifactError(
            f"{path} is a {saved.manifest.get('architecture')} for inputs of version {version}, not a "
            f"{ARCHITECTURE} for version {lstm_features.VERSION}: train it again (forewatch train)"
        )
    try:
        spec = spec_of(saved.tensors)
    except (ValueError, TypeError) as error:
        raise artifacts.CorruptArtifact(f"{path}.safetensors: {error}: restore it or train again") from error
    if spec is None:
        raise artifacts.CorruptArtifact(f"{path}.safetensors has no {SPEC_TENSOR}: restore it or train again")
    shapes = {f"{WEIGHT_PREFIX}{name}": shape for name, shape in weight_shapes(spec).items()}
    artifacts.expect(saved, {SPEC_TENSOR: list(saved.tensors[SPEC_TENSOR].shape)} | shapes)
    return saved.tensors


class FrozenNetwork:
    """A network with fixed weights.

    State per channel slot: that of ``calendar``, and by kind: the last inputs (feedforward), h (rnn, gru), h
    and c (lstm, encoder_decoder), or h and the last states (attention).
    """

    def __init__(self, tensors: Mapping[str, NDArray[Any]]) -> None:
        """Take spec and weights from the tensors of a version."""
        spec = spec_of(tensors)
        assert spec is not None  # the caller looked
        self.spec, self.calendar = spec, CalendarInputs(spec)
        self.features = lstm_features.FEATURES + self.calendar.width
        names = sorted(weight_shapes(spec))
        self.tensors: dict[str, NDArray[Any]] = {SPEC_TENSOR: np.asarray(tensors[SPEC_TENSOR], np.uint8)}
        self.tensors |= {
            f"{WEIGHT_PREFIX}{name}": np.ascontiguousarray(tensors[f"{WEIGHT_PREFIX}{name}"], np.float32)
            for name in names
        }
        self._weights = {name: self.tensors[f"{WEIGHT_PREFIX}{name}"] for name in names}
        self._transposed = {
            name: np.ascontiguousarray(value.T) for name, value in self._weights.items() if value.ndim == 2
        }
        self._lstm_gates = (
            [self._stacked(layer) for layer in range(spec.layers)] if "c" in self.initial(0) else []
        )
        self._activation = ACTIVATION_NUMBERS[spec.activation]
        self._locations = self._location_rows()
        self.horizons = tuple(ahead for ahead in lstm_features.HORIZONS if ahead <= spec.steps)

    def initial(self, slots: int) -> State:
        """Return the state of ``slots`` channel slots without points."""
        spec, state = self.spec, self.calendar.initial(slots)
        if spec.kind == Kind.FEEDFORWARD:
            return state | {"inputs": np.zeros((slots, spec.window - 1, self.features), np.float32)}
        state["h"] = np.zeros((slots, spec.layers, spec.hidden), np.float32)
        if spec.kind in (Kind.LSTM, Kind.ENCODER_DECODER):
            state["c"] = np.zeros((slots, spec.layers, spec.hidden), np.float32)
        if spec.kind == Kind.ATTENTION:
            state["past"] = np.zeros((slots, spec.memory, spec.hidden), np.float32)
            state["count"] = np.zeros(slots, np.int64)
        return state

    @property
    def state_bytes(self) -> int:
        """Bytes of the state of one channel of one series."""
        return sum(array.nbytes for array in self.initial(1).values())

    def forget(self, state: State) -> None:
        """Reset, in place, what depends on the weights."""
        for name, array in state.items():
            if name != "inputs" and not name.startswith(LAG_PREFIX):
                array[...] = 0

    def run(self, inputs: Floats, slot: Ints, state: State) -> Floats:
        """Advance all series; return the hidden vector after each point (N, W).

        Args:
            inputs: Inputs of the points (N, F), those of ``calendar`` at the end.
            slot: Channel slot of each point (N,).
            state: Arrays of ``initial``, changed in place.
        """
        if self.spec.kind == Kind.FEEDFORWARD:
            return self._feed_forward(inputs, slot, state["inputs"])
        packed = pack(slot)
        for layer in range(self.spec.layers):
            inputs = self._layer(layer, inputs, slot, packed, state)
        if self.spec.kind == Kind.ATTENTION:
            return self._attend(inputs, slot, state)
        return inputs

    def locations(self, hidden: Floats, inputs: Floats, rows: FeatureRows) -> Floats:
        """Return the forecast at each horizon (N, K), in units from the last value.

        Args:
            hidden: Result of ``run`` (N, W).
            inputs: Inputs of the points, as ``run`` got them.
            rows: Last values and units of the points.
        """
        weights, bias = self._locations
        if self.spec.head == Head.ONE_TO_MANY:
            found = self._unroll(hidden, weights, bias)
        else:
            found = row_product(hidden, weights) + bias  # (N, K)
        expert = [lstm_features.AR_NEXT, lstm_features.AR_LATER][: len(self.horizons)]
        add_experts(found, inputs, np.array(expert))
        limit = MAX_LOCATION_UNITS
        if self.calendar.lags:
            seen = gate_inputs(hidden, inputs, self.calendar.lag_columns)
            gates = row_product(seen, self._transposed["gates.weight"]) + self._weights["gates.bias"]
            blend_lags(found, gates, inputs, self.calendar.lag_columns)
            limit = lstm_features.MAX_ABS_UNITS
        if self.spec.output == Output.NEGATIVE_BINOMIAL:
            count_locations(found, rows.last, rows.unit)
        return np.clip(found, -limit, limit).astype(np.float32)

    def _layer(self, layer: int, inputs: Floats, slot: Ints, packed: Any, state: State) -> Floats:
        """Run one recurrent layer over all points; return its output (N, H)."""
        if self.spec.kind in (Kind.LSTM, Kind.ENCODER_DECODER):
            gates = self._lstm_gates[layer]
            return run_layer(gates, inputs, slot, state["h"][:, layer], state["c"][:, layer])
        order, sizes, first = packed
        h = state["h"][first, layer]
        out = np.empty((len(slot), self.spec.hidden), np.float32)
        if self.spec.kind == Kind.RNN:
            drive = row_product(inputs, self._transposed[f"inward.{layer}.weight"])
            drive += self._weights[f"inward.{layer}.bias"]
            again = self._transposed[f"again.{layer}.weight"]
            advance_rnn(drive, (order, sizes), (again, self._activation), h, out)
        else:
            drive = row_product(inputs, self._transposed[f"cell.weight_ih_l{layer}"])
            drive += self._weights[f"cell.bias_ih_l{layer}"]
            again, bias = (
                self._transposed[f"cell.weight_hh_l{layer}"],
                self._weights[f"cell.bias_hh_l{layer}"],
            )
            advance_gru(drive, (order, sizes), (again, bias), h, out)
        state["h"][first, layer] = h
        return out

    def _stacked(self, layer: int) -> tuple[Floats, Floats]:
        """Return weights (F + H, 4H), inputs first, and bias (4H,) of an LSTM layer."""
        names = (f"cell.weight_ih_l{layer}", f"cell.weight_hh_l{layer}")
        both = np.concatenate([self._transposed[name] for name in names])
        return both, self._weights[f"cell.bias_ih_l{layer}"] + self._weights[f"cell.bias_hh_l{layer}"]

    def _feed_forward(self, inputs: Floats, slot: Ints, seen: Floats) -> Floats:
        """Run the layers over the window of each point (N, H).

        ``seen`` (S, W − 1, F) moves on.
        """
        out = np.empty((len(slot), self.spec.hidden), np.float32)
        width = self.spec.window * self.features
        for start in range(0, len(slot), WINDOW_CHUNK_ROWS):
            part = slice(start, min(start + WINDOW_CHUNK_ROWS, len(slot)))
            x = np.empty((part.stop - start, width), np.float32)
            fill_windows(inputs[part], slot[part], seen, x)
            for layer in range(self.spec.layers):
                x = row_product(x, self._transposed[f"net.{2 * layer}.weight"])
                x += self._weights[f"net.{2 * layer}.bias"]
                activate(x, self._activation)
            out[part] = x
        return out

    def _attend(self, hidden: Floats, slot: Ints, state: State) -> Floats:
        """Return the hidden vectors beside what they attend to (N, 2 H)."""
        asked = row_product(hidden, self._transposed["ask.weight"]) + self._weights["ask.bias"]
        # A query times a key is (Wᵀ q) · h + q · b; the second part is the same for all states of a softmax.
        query = row_product(asked, self._weights["key.weight"])
        query *= np.float32(1 / np.sqrt(self.spec.hidden))
        out = np.empty((len(slot), 2 * self.spec.hidden), np.float32)
        memory = state["past"], state["count"]
        advance_attention((hidden, query), slot, self._weights["place"], memory, out)
        return out

    def _unroll(self, hidden: Floats, weights: Floats, bias: Floats) -> Floats:
        """Return the locations (N, K) of a head that unrolls its forecasts."""
        moved, found = np.zeros(len(hidden), np.float32), []
        into, again = self._weights["head.cell.weight_ih"][:, 0], self._transposed["head.cell.weight_hh"]
        biases = self._weights["head.cell.bias_ih"], self._weights["head.cell.bias_hh"]
        hidden = hidden.copy()
        for step in range(1, self.spec.steps + 1):
            gru_cell(moved, (into, biases[0]), (row_product(hidden, again), biases[1]), hidden)
            moved = moved + (row_product(hidden, weights) + bias)[:, 0]
            if step in self.horizons:
                found.append(moved)
        return np.stack(found, 1)

    def _location_rows(self) -> tuple[Floats, Floats]:
        """Return weights (W, K) and bias (K,) of the locations."""
        weight, bias = self._weights["head.linear.weight"], self._weights["head.linear.bias"]
        size = _OUTPUT_SIZES[Output(self.spec.output)]
        at = MEDIAN if self.spec.output == Output.QUANTILE else 0
        steps = (
            [0]
            if self.spec.head == Head.ONE_TO_MANY
            else [k - 1 for k in lstm_features.HORIZONS if k <= self.spec.steps]
        )
        rows = [step * size + at for step in steps]
        return np.ascontiguousarray(weight[rows].T), bias[rows]
