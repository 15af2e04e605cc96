"""Requests of Prometheus remote write 1 and 2."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.core.timestamps import parse_epochs
from pipeline.decode.metric_samples import FoundSamples, OtherContentError, SeriesTable
from pipeline.decode.native_histograms import joined, read_histograms
from pipeline.decode.parsed_batch import shown
from pipeline.decode.protobuf_fields import fields_of, read_varint
from pipeline.decode.protobuf_kernels import scan
from pipeline.decode.sample_json import is_sample_json, read_sample_json

_V1_SERIES, _V2_SERIES, _V2_SYMBOLS = 1, 5, 4
_V1_HISTOGRAMS, _V2_HISTOGRAMS = 4, 3
_VERSION_2 = "io.prometheus.write.v2.request"


def read_remote_write(content: bytes, kind: str, table: SeriesTable) -> FoundSamples:
    """Return the samples of a request.

    Args:
        content: The request, unpacked.
        kind: The type of its content; empty for version 1.
        table: Series that are known; new ones are added.

    Raises:
        OtherContentError: The type is another one.
        ValueError: It cannot be read.
    """
    if is_sample_json(content):
        return read_sample_json(content, table)
    second = _VERSION_2 in kind.lower()
    plain = kind.split(";")[0].strip().lower()
    if plain not in ("application/x-protobuf", ""):
        raise OtherContentError(f"the type {plain!r} is not application/x-protobuf")
    data = np.frombuffer(content, np.uint8)
    field = _V2_SERIES if second else _V1_SERIES
    places, owners, bits, times = _arrays(0, 0)
    n_series, n_samples, bad = scan(data, field, places, owners, bits, times)
    if bad >= 0:
        raise ValueError(
            f"is no request of remote write: byte {bad} does not fit, it is {shown(content[bad:][:8])}"
        )
    places, owners, bits, times = _arrays(n_series, n_samples)
    scan(data, field, places, owners, bits, times)
    ids = _second_ids(content, places, table) if second else _first_ids(content, places, table)
    found = FoundSamples(ids[owners], parse_epochs(times.view(np.int64), "ms"), bits.view(np.float64))
    without = np.flatnonzero(np.bincount(owners, minlength=len(ids)) == 0)
    if not len(without):
        return found
    numbers = (field, _V2_HISTOGRAMS if second else _V1_HISTOGRAMS)
    more = read_histograms(content, numbers, without, ids, table)
    return found if more is None else joined((found, more))


def _arrays(series: int, samples: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    return (
        np.empty((series, 2), np.int64),
        np.empty(samples, np.int32),
        np.empty(samples, np.uint64),
        np.empty(samples, np.uint64),
    )


def _first_ids(content: bytes, places: NDArray[np.int64], table: SeriesTable) -> NDArray[np.int64]:
    """Return the number of each series of version 1, by the bytes of its labels."""
    blocks = [content[begin:end] for begin, end in places.tolist()]
    known = table.numbers
    try:
        return np.array([known[block] for block in blocks], np.int64)
    except KeyError:
        return np.array([table.number(block, _labels) for block in blocks], np.int64)


def _second_ids(content: bytes, places: NDArray[np.int64], table: SeriesTable) -> NDArray[np.int64]:
    """Return the number of each series of version 2, by the texts of its labels."""
    symbols = [
        content[begin:end]
        for number, _, begin, end in fields_of(content, 0, len(content))
        if number == _V2_SYMBOLS
    ]
    out = np.empty(len(places), np.int64)
    for place, (begin, end) in enumerate(places.tolist()):
        references = list(_references(content, begin, end))
        if len(references) % 2 or (references and max(references) >= len(symbols)):
            raise ValueError("is no request of remote write 2: a label refers to a text that is not there")
        texts = tuple([symbols[reference] for reference in references])
        out[place] = table.number(texts, _pairs)
    return out


def _pairs(texts: tuple[bytes, ...]) -> dict[str, str]:
    decoded = [_text(text) for text in texts]
    return dict(zip(decoded[::2], decoded[1::2], strict=True))


def _labels(block: bytes) -> dict[str, str]:
    """Return the labels in the bytes of a series of version 1."""
    labels = {}
    for number, _, begin, end in fields_of(block, 0, len(block)):
        if number == 1:
            texts = {part: block[first:last] for part, _, first, last in fields_of(block, begin, end)}
            labels[_text(texts.get(1, b""))] = _text(texts.get(2, b""))
    return labels


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise ValueError(f"a label is not UTF-8: {shown(raw)}") from None


def _references(data: bytes, at: int, end: int) -> Iterator[int]:
    """Yield the references of the labels of a series, packed or not."""
    for number, kind, begin, after in fields_of(data, at, end):
        place = begin
        while number == 1 and kind in (0, 2) and place < after:
            reference, place = read_varint(data, place, after)
            yield reference
