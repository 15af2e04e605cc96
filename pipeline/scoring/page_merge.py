"""Pages of one series each, joined to pages of many, and made of them.

Silent series are stored one by one, and often leave and come back together. A page has some ninety small
arrays, so that ten thousand pages one after the other would take seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save as save_tensors

#: Pages that are joined at most; those of a ``standard`` series have 8 kB.
PAGES_TO_JOIN = 512
#: Beginning of the header of a safetensors file with metadata, behind the 8 bytes of its length.
HEADER_BEGINS = b'{"__metadata__":'
HEADER_ALIGNMENT = 8  # bytes
#: numpy's names of the types of safetensors, little endian. Source: the format specification of safetensors.
TYPES = {
    "BOOL": "?",
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
}


@dataclass(slots=True)
class _Group:
    """Pages of the same arrays and the same metadata."""

    arrays: str
    metadata: dict[str, str]
    pages: list[bytes] = field(default_factory=list)
    keys: list[Any] = field(default_factory=list)
    data: list[bytes] = field(default_factory=list)


def join_pages(pages: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pages with the series of all ``pages``, those of one form together.

    A page that cannot be read, or that has several series, is yielded as it is.
    """
    rest = iter(pages)
    while some := list(islice(rest, PAGES_TO_JOIN)):
        groups: dict[Any, _Group] = {}
        for page in some:
            try:
                _add(groups, page)
            except (ValueError, KeyError, UnicodeDecodeError):
                yield page
        for group in groups.values():
            yield from _joined(group)


def _add(groups: dict[Any, _Group], page: bytes) -> None:
    """Add a page to the group of its form.

    Raises ValueError or KeyError where it is damaged.
    """
    length = int.from_bytes(page[:8], "little")
    header = page[8 : 8 + length]
    if len(header) != length or not header.startswith(HEADER_BEGINS):
        raise ValueError("the page has no metadata")
    metadata, end = json.JSONDecoder().raw_decode(header.decode(), len(HEADER_BEGINS))
    keys = json.loads(metadata.pop("keys"))
    if len(keys) != 1:
        raise ValueError("the page has not one series")
    arrays, data = header.decode()[end:].rstrip(), page[8 + length :]
    form = (arrays, len(data), *sorted(metadata.items()))
    group = groups.setdefault(form, _Group(arrays, metadata))
    group.pages.append(page)
    group.keys += keys
    group.data.append(data)


def _joined(group: _Group) -> Iterator[bytes]:
    """Yield the page of a group, or its pages where they are damaged."""
    if len(group.pages) == 1:
        yield group.pages[0]
        return
    try:
        tensors = _stacked(group)
    except (ValueError, KeyError, TypeError):
        yield from group.pages
        return
    yield save_tensors(tensors, metadata=group.metadata | {"keys": json.dumps(group.keys)})


def _stacked(group: _Group) -> dict[str, NDArray[Any]]:
    """Return the arrays of all pages of a group, one row a page.

    Raises ValueError or KeyError.
    """
    count = len(group.data)
    data = np.frombuffer(b"".join(group.data), np.uint8).reshape(count, -1)
    tensors = {}
    for name, one in json.loads("{" + group.arrays.removeprefix(",")).items():
        begin, end = one["data_offsets"]
        rows, *shape = one["shape"]
        kind = np.dtype(TYPES[one["dtype"]])
        if rows != 1 or end > data.shape[1]:
            raise ValueError("the arrays do not have one row for each series")
        column = np.ascontiguousarray(data[:, begin:end])
        tensors[name] = (column.view(kind) if end > begin else np.empty(0, kind)).reshape(count, *shape)
    return tensors


def split_page(page: bytes) -> Iterator[bytes]:
    """Yield a page of each series of ``page``, in their order."""
    length = int.from_bytes(page[:8], "little")
    header = json.loads(page[8 : 8 + length])
    metadata = header.pop("__metadata__")
    keys = json.loads(metadata.pop("keys"))
    columns, arrays, end = [], {}, 0
    for name, one in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = (8 + length + offset for offset in one["data_offsets"])
        columns.append(np.frombuffer(page, np.uint8, last - first, first).reshape(len(keys), -1))
        begin, end = end, end + columns[-1].shape[1]
        arrays[name] = one | {"shape": [1, *one["shape"][1:]], "data_offsets": [begin, end]}
    rest = json.dumps(arrays)[1:]
    for key, row in zip(keys, np.concatenate(columns, axis=1), strict=True):
        own = json.dumps(metadata | {"keys": json.dumps([key])})
        text = HEADER_BEGINS + f"{own},{rest}".encode()
        text += b" " * (-len(text) % HEADER_ALIGNMENT)
        yield len(text).to_bytes(8, "little") + text + row.tobytes()
