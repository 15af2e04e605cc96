"""Series state: struct of arrays, one slot per series, and its page codec.

A stream has one ``SeriesTable``. It maps (partition, series key) to a slot and holds named *layers* of state
(event time, detector), each a dict of arrays whose first axis is the slot. Pages are
safetensors: a versioned, checked format that cannot execute anything when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from pipeline.core.errors import DamagedState
from pipeline.core.types import Partition
from pipeline.decode import Key

LayerState = dict[str, NDArray[Any]]

MIN_SLOTS_TO_ADD = 1024
PAGE_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class StateLayer:
    """Part of the state that one component owns.

    ``initial(n)`` makes n equal rows for new series. ``version`` identifies their meaning.

    ``convert(version, rows)`` returns the rows of a page of another version in this form, or None where that
    is not possible: then they are reset. ``starts_usual_ranges(version)`` says whether the converted rows
    have no usual ranges yet.

    ``weights`` identifies the model that some of the state depends on. Rows of other weights go through
    ``on_weights_changed``, which changes them in place. ``register_series`` is called with the keys of rows
    when their series are added, restored or reset, after ``on_weights_changed``.
    """

    version: str
    initial: Callable[[int], LayerState]
    weights: str = ""
    on_weights_changed: Callable[[LayerState], None] = lambda state: None
    register_series: Callable[[LayerState, NDArray[np.int32], Sequence[Key]], None] = (
        lambda state, slots, keys: None
    )
    convert: Callable[[str, LayerState], LayerState | None] = lambda version, rows: None
    starts_usual_ranges: Callable[[str], bool] = lambda version: False


@dataclass(frozen=True, slots=True)
class LoadedPage:
    """Layers of a page whose stored form had another version.

    ``without_ranges`` are those of the converted ones whose usual ranges start empty.
    """

    reset: tuple[str, ...] = ()
    converted: tuple[str, ...] = ()
    without_ranges: tuple[str, ...] = ()


class SeriesTable:
    """Slots and state of all series of one stream in this process."""

    def __init__(self, layers: dict[str, StateLayer]) -> None:
        self.layers = layers
        self.state: dict[str, LayerState] = {
            name: {k: np.array(v, order="C") for k, v in layer.initial(0).items()}
            for name, layer in layers.items()
        }
        # One initial row per layer, for new slots: cheaper than a call each time.
        self._template = {
            name: {k: np.array(v[0]) for k, v in layer.initial(1).items()} for name, layer in layers.items()
        }
        self._index: dict[Partition, dict[Key, int]] = {}
        self._keys: list[Key | None] = []
        self._partition: list[Partition | None] = []
        self._free: list[int] = []
        self._capacity = 0
        #: Changes whenever a slot is assigned to another series.
        self.generation = 0

    def __len__(self) -> int:
        return len(self._keys) - len(self._free)

    @property
    def row_bytes(self) -> int:
        """Bytes of state per series in memory, without its key."""
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
        """Key of every slot, None where it is free."""
        return self._keys

    def partitions(self) -> list[Partition]:
        """Return the partitions that have series."""
        return [partition for partition, index in self._index.items() if index]

    def slots(self, partition: Partition) -> NDArray[np.int32]:
        index = self._index.get(partition, {})
        return np.fromiter(index.values(), np.int32, len(index))

    def keys_of(self, partition: Partition) -> Collection[Key]:
        """Return the keys of the series of a partition."""
        return self._index.get(partition, {}).keys()

    def slot_of(self, partition: Partition, key: Key) -> int | None:
        """Return the slot of a series, None if it is not in memory."""
        return self._index.get(partition, {}).get(key)

    def slots_elsewhere(self, partition: Partition, key: Key) -> list[int]:
        """Return the slots of the series in the other partitions."""
        return [index[key] for other, index in self._index.items() if other != partition and key in index]

    def last_slots(self, slots: NDArray[np.int32]) -> NDArray[np.int32]:
        """Return those of the slots whose series do not go on in another partition.

        Only series of files that follow each other do.
        """
        windows = self.state["windows"]

        def reached(slot: int) -> tuple[int, int]:
            return int(windows["last_time"][slot]), int(windows["seq"][slot])

        last = [
            all(
                reached(other) <= reached(slot)
                for other in self.slots_elsewhere(self.partition(slot), self.key(slot))
            )
            for slot in slots.tolist()
        ]
        return slots[np.array(last, np.bool_)]

    def copy_state(self, source: int, target: int) -> None:
        """Give the series in ``target`` the state of the one in ``source``, which has the same key."""
        for name, arrays in self.state.items():
            for array in arrays.values():
                array[target] = array[source]
            self._register_series(name, np.array([target], np.int32))

    def find(self, partition: Partition, keys: Sequence[Key]) -> tuple[NDArray[np.int32], list[Key]]:
        """Return the slots of ``keys`` (N,), and the keys that are new; new ones get a slot."""
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
            self._register_series(name, slots)

    def _register_series(self, layer: str, slots: NDArray[np.int32]) -> None:
        self.layers[layer].register_series(
            self.state[layer], slots, [self.key(slot) for slot in slots.tolist()]
        )

    def _reserve(self, slots: int) -> None:
        if slots <= self._capacity:
            return
        # Grow by a quarter and in place (realloc): a copy of the state would double the memory.
        capacity = max(slots, self._capacity + max(MIN_SLOTS_TO_ADD, self._capacity // 4))
        for name, arrays in self.state.items():
            for key, array in arrays.items():
                array.resize((capacity, *array.shape[1:]), refcheck=False)
                array[self._capacity :] = self._template[name][key]
        self._capacity = capacity

    def reset(self, slots: NDArray[np.int32], layer: str) -> None:
        """Reset the state of ``layer`` for these series."""
        self._blank(slots, layer)
        self._register_series(layer, slots)

    def _blank(self, slots: NDArray[np.int32], layer: str) -> None:
        for key, array in self.state[layer].items():
            array[slots] = self._template[layer][key]

    def replace_layer(self, name: str, layer: StateLayer) -> None:
        """Replace a layer, keeping the state of all series.

        State of another version is converted. Raises ValueError where that is not possible.
        """
        if (former := self.layers[name].version) != layer.version:
            rows = layer.convert(former, self.state[name])
            if rows is None:
                raise ValueError(
                    f"the state of layer {name} has version {former}, the new layer needs {layer.version}"
                )
            self.state[name] = {key: np.array(value, order="C") for key, value in rows.items()}
            self._template[name] = {key: np.array(value[0]) for key, value in layer.initial(1).items()}
        self.layers[name] = layer
        layer.on_weights_changed(self.state[name])
        self._register_series(
            name, np.array([slot for slot, key in enumerate(self._keys) if key is not None], np.int32)
        )

    def drop(self, partition: Partition) -> None:
        """Drop a partition that another process may own, or whose state may be wrong."""
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
        """Yield the state of these slots as pages of about ``PAGE_BYTES``, for ``load_page``."""
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

    def load_page(self, partition: Partition, page: bytes) -> LoadedPage:
        """Load the series of a page, and return the layers that were reset or converted.

        A layer is converted if its version has changed, and reset where that is not possible. One that the
        page lacks starts empty. Raises DamagedState, before any state is changed.
        """
        keys, layers, other_forms = self._decode_page(page)
        slots, _ = self.find(partition, keys)
        for name, rows in layers.items():
            if rows is None:
                self.reset(slots, name)
                continue
            for key, array in self.state[name].items():
                array[slots] = rows[key]
            self._register_series(name, slots)
        return other_forms

    def _decode_page(self, page: bytes) -> tuple[list[Key], dict[str, LayerState | None], LoadedPage]:
        """Return the keys of a page, the rows of each layer, and the layers of another version.

        Rows are None where they cannot be converted.
        """
        try:
            meta, tensors = metadata(page), load_tensors(page)
            keys: list[Key] = json.loads(meta["keys"])
            layers = {name: self._rows_of(name, layer, meta, tensors) for name, layer in self.layers.items()}
            for rows in layers.values():
                if any(len(array) != len(keys) for array in (rows or {}).values()):
                    raise ValueError("the arrays do not have one row for each series")
        except Exception as error:  # the errors of safetensors and of a model's own code are of any type
            raise DamagedState(f"a page of series cannot be read: {error}") from error
        return keys, layers, self._other_forms(meta, layers)

    def _other_forms(self, meta: dict[str, str], layers: dict[str, LayerState | None]) -> LoadedPage:
        stored = {name: meta.get(f"version:{name}", "") for name in layers}
        converted = [
            name
            for name, rows in layers.items()
            if rows is not None and stored[name] != self.layers[name].version
        ]
        return LoadedPage(
            tuple(name for name, rows in layers.items() if rows is None and stored[name]),
            tuple(converted),
            tuple(name for name in converted if self.layers[name].starts_usual_ranges(stored[name])),
        )

    def _rows_of(
        self, name: str, layer: StateLayer, meta: dict[str, str], tensors: LayerState
    ) -> LayerState | None:
        rows: LayerState | None
        if meta.get(f"version:{name}") != layer.version:
            stored = {
                key.removeprefix(f"{name}/"): array
                for key, array in tensors.items()
                if key.startswith(f"{name}/")
            }
            rows = layer.convert(meta.get(f"version:{name}", ""), stored)
            if rows is None:
                return None
        else:
            rows = {key: tensors[f"{name}/{key}"] for key in self.state[name]}
        for key, array in self.state[name].items():
            if rows[key].shape[1:] != array.shape[1:]:
                raise ValueError(f"{name}/{key} has the shape {rows[key].shape}")
        if meta.get(f"weights:{name}", layer.weights) != layer.weights:
            rows = {key: np.array(value) for key, value in rows.items()}
            layer.on_weights_changed(rows)
        return rows


def metadata(page: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file.

    Source: the format specification of safetensors, 8 bytes of length (little endian), then JSON.
    """
    length = int.from_bytes(page[:8], "little")
    return dict(json.loads(page[8 : 8 + length])["__metadata__"])


def series_keys(page: bytes) -> list[Key]:
    """Return the keys of the series of a page."""
    keys: list[Key] = json.loads(metadata(page)["keys"])
    return keys
