"""Series state: struct of arrays, one slot per series, and its page codec.

A stream has one ``SeriesTable``. It maps (partition, series key) to a slot and holds named *layers* of state
(the windows', the detector's, the intervals'), each a dict of arrays whose first axis is the slot. Pages are
safetensors: a versioned, checked format that cannot execute anything when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.types import Partition
from pipeline.decode import Key

LayerState = dict[str, NDArray[Any]]

BLOCK = 1024  # slots that are added at once at the least
PAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StateLayer:
    """One owner's part of the state. ``initial(n)`` makes rows of which nothing is known (all alike);
    ``version`` names their meaning.

    ``weights`` names the model that some of it belongs to: rows that another one left go through ``adopt``,
    which changes them in place. ``introduce`` is told which series a row is of, when it begins or comes back,
    and after ``adopt``.
    """

    version: str
    initial: Callable[[int], LayerState]
    weights: str = ""
    adopt: Callable[[LayerState], None] = lambda state: None
    introduce: Callable[[LayerState, NDArray[np.int32], Sequence[Key]], None] = lambda state, slots, keys: (
        None
    )


class SeriesTable:
    """Slots and state of all series of one stream in this process."""

    def __init__(self, layers: dict[str, StateLayer]) -> None:
        self.layers = layers
        self.state: dict[str, LayerState] = {
            name: {k: np.array(v, order="C") for k, v in layer.initial(0).items()}
            for name, layer in layers.items()
        }
        # One row per layer to begin new slots with: cheaper than asking a layer each time, and proof that all
        # rows begin alike.
        self._template = {
            name: {k: np.array(v[0]) for k, v in layer.initial(1).items()} for name, layer in layers.items()
        }
        self._index: dict[Partition, dict[Key, int]] = {}
        self._keys: list[Key | None] = []
        self._partition: list[Partition | None] = []
        self._free: list[int] = []
        self._capacity = 0
        #: Changes whenever a slot gets another series.
        self.generation = 0

    def __len__(self) -> int:
        return len(self._keys) - len(self._free)

    @property
    def row_bytes(self) -> int:
        """Bytes of state that one series takes in memory, its key apart."""
        return sum(a.nbytes for layer in self._template.values() for a in layer.values())

    def key(self, slot: int) -> Key:
        key = self._keys[slot]
        assert key is not None, f"slot {slot} is free"
        return key

    def partition(self, slot: int) -> Partition:
        partition = self._partition[slot]
        assert partition is not None, f"slot {slot} is free"
        return partition

    @property
    def by_slot(self) -> Sequence[Key | None]:
        """The key of every slot, None where it is free."""
        return self._keys

    def partitions(self) -> list[Partition]:
        """Those that have series here."""
        return [partition for partition, index in self._index.items() if index]

    def slots(self, partition: Partition) -> NDArray[np.int32]:
        index = self._index.get(partition, {})
        return np.fromiter(index.values(), np.int32, len(index))

    def find(self, partition: Partition, keys: Sequence[Key]) -> tuple[NDArray[np.int32], list[Key]]:
        """Slots of ``keys`` (N,), making new ones for those not seen before, which are returned too."""
        index = self._index.setdefault(partition, {})
        found = list(map(index.get, keys))
        new = (
            []
            if None not in found
            else list(dict.fromkeys(k for k, s in zip(keys, found, strict=True) if s is None))
        )
        if new:
            self._add(partition, index, new)
            found = list(map(index.get, keys))
        return np.array(found, np.int32), new

    def _add(self, partition: Partition, index: dict[Key, int], keys: list[Key]) -> None:
        self.generation += 1
        missing = len(keys) - len(self._free)
        if missing > 0:
            first = len(self._keys)
            self._keys.extend([None] * missing)
            self._partition.extend([None] * missing)
            self._free.extend(range(first + missing - 1, first - 1, -1))
            self._reserve(first + missing)
        for key in keys:
            slot = self._free.pop()
            index[key], self._keys[slot], self._partition[slot] = slot, key, partition
        slots = np.array([index[key] for key in keys], np.int32)
        for name in self.layers:
            self._introduce(name, slots)

    def _introduce(self, layer: str, slots: NDArray[np.int32]) -> None:
        self.layers[layer].introduce(self.state[layer], slots, [self.key(slot) for slot in slots.tolist()])

    def _reserve(self, slots: int) -> None:
        if slots <= self._capacity:
            return
        # Grown by a quarter and in place (realloc): a copy of a million series' state would double the memory
        # for a moment.
        capacity = max(slots, self._capacity + max(BLOCK, self._capacity // 4))
        for name, arrays in self.state.items():
            for key, array in arrays.items():
                array.resize((capacity, *array.shape[1:]), refcheck=False)
                array[self._capacity :] = self._template[name][key]
        self._capacity = capacity

    def reset(self, slots: NDArray[np.int32], layer: str) -> None:
        """Forget what ``layer`` knows of these series."""
        self._blank(slots, layer)
        self._introduce(layer, slots)

    def _blank(self, slots: NDArray[np.int32], layer: str) -> None:
        for key, array in self.state[layer].items():
            array[slots] = self._template[layer][key]

    def replace_layer(self, name: str, layer: StateLayer) -> None:
        """Another model goes on with the state of all series.

        Raises ValueError where its state is another one.
        """
        if layer.version != self.layers[name].version:
            raise ValueError(
                f"the state of {name} is of version {self.layers[name].version}, the new one needs {layer.version}"
            )
        self.layers[name] = layer
        layer.adopt(self.state[name])
        self._introduce(
            name, np.array([slot for slot, key in enumerate(self._keys) if key is not None], np.int32)
        )

    def drop(self, partition: Partition) -> None:
        """Forget a whole partition: it is no longer ours, or its state in memory can no longer be trusted."""
        self.release(partition, list(self._index.get(partition, {})))
        self._index.pop(partition, None)

    def release(self, partition: Partition, keys: Iterable[Key]) -> None:
        """Free the slots of some series."""
        index = self._index.get(partition, {})
        slots = [index.pop(key) for key in keys]
        if not slots:
            return
        self.generation += 1
        freed = np.array(slots, np.int32)
        for layer in self.layers:
            self._blank(freed, layer)
        for slot in slots:
            self._keys[slot] = self._partition[slot] = None
        self._free.extend(slots)

    # ------------------------------------------------------------------------------------------------ page codec

    def pages(self, slots: NDArray[np.int32]) -> Iterator[bytes]:
        """The state of these slots as pages of about ``PAGE_BYTES``; ``load_page`` reads one back."""
        rows = max(1, PAGE_BYTES // max(1, self.row_bytes))
        for start in range(0, len(slots), rows):
            yield self._page(slots[start : start + rows])

    def _page(self, slots: NDArray[np.int32]) -> bytes:
        tensors = {
            f"{name}/{key}": np.ascontiguousarray(array[slots])
            for name, arrays in self.state.items()
            for key, array in arrays.items()
        }
        meta = {"keys": json.dumps([self._keys[s] for s in slots])}
        for name, layer in self.layers.items():
            meta |= {f"version:{name}": layer.version, f"weights:{name}": layer.weights}
        return save_tensors(tensors, metadata=meta)

    def load_page(self, partition: Partition, page: bytes) -> list[str]:
        """Take the series of a page in.

        A layer whose version has changed begins anew; the names of those are returned.
        """
        meta = metadata(page)
        keys: list[Key] = json.loads(meta["keys"])
        slots, _ = self.find(partition, keys)
        tensors = load_tensors(page)
        changed = [
            name for name, layer in self.layers.items() if meta.get(f"version:{name}") != layer.version
        ]
        for name, arrays in self.state.items():
            if name in changed:
                self.reset(slots, name)
                continue
            rows = {key: tensors[f"{name}/{key}"] for key in arrays}
            if meta.get(f"weights:{name}", self.layers[name].weights) != self.layers[name].weights:
                rows = {key: np.array(value) for key, value in rows.items()}
                self.layers[name].adopt(rows)
            for key, array in arrays.items():
                array[slots] = rows[key]
            self._introduce(name, slots)
        return changed


def metadata(page: bytes) -> dict[str, str]:
    """The header of a safetensors file: 8 bytes of length (little endian), then JSON (format specification of
    safetensors).
    """
    length = int.from_bytes(page[:8], "little")
    return dict(json.loads(page[8 : 8 + length])["__metadata__"])
