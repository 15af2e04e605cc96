"""Kernels that read requests of Prometheus remote write.

Messages and their fields (others are passed over, as Protobuf demands)::

    1  WriteRequest {timeseries = 1}           TimeSeries {labels = 1, samples = 2, histograms = 4}
    2  Request {symbols = 4, timeseries = 5}   TimeSeries {labels_refs = 1, samples = 2, histograms = 3}
    Sample {value = 1 (double), timestamp = 2 (int64, ms)}
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detectors.jit import inlined_kernel, kernel

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Position after a failure.
_FAILED = -1
_LABELS, _SAMPLES = 1, 2


@inlined_kernel
def _varint(data: NDArray[np.uint8], at: int, end: int) -> tuple[np.uint64, int]:
    """Return an integer of variable length and the position after it."""
    number, shift = np.uint64(0), np.uint64(0)
    for _ in range(10):
        if at >= end:
            return number, _FAILED
        byte = np.uint64(data[at])
        at += 1
        number |= (byte & np.uint64(0x7F)) << shift
        if byte < np.uint64(0x80):
            return number, at
        shift += np.uint64(7)
    return number, _FAILED


@inlined_kernel
def _field(data: NDArray[np.uint8], at: int, end: int) -> tuple[int, int, int, int]:
    """Return number, kind, begin and end of the field at a position.

    Of a field of bytes they are those of its content. The end is ``_FAILED`` if it does not fit.
    """
    tag, at = _varint(data, at, end)
    if at < 0 or tag > np.uint64(0xFFFFFFFF):
        return 0, 0, 0, _FAILED
    number, kind = int(tag >> np.uint64(3)), int(tag & np.uint64(7))
    begin = at
    if kind == _VARINT:
        _, at = _varint(data, at, end)
    elif kind == _FIXED64:
        at += 8
    elif kind == _FIXED32:
        at += 4
    elif kind == _BYTES:
        length, begin = _varint(data, at, end)
        if begin < 0 or length > np.uint64(end - begin):
            return 0, 0, 0, _FAILED
        at = begin + np.int64(length)
    else:
        return 0, 0, 0, _FAILED
    if at < 0 or at > end or number == 0:
        return 0, 0, 0, _FAILED
    return number, kind, begin, at


@inlined_kernel
def _sample(data: NDArray[np.uint8], at: int, end: int) -> tuple[np.uint64, np.uint64, int]:
    """Return the bits of the value and of the time of a sample, and where it fails."""
    value, time = np.uint64(0), np.uint64(0)
    while at < end:
        number, kind, begin, after = _field(data, at, end)
        if after < 0 or (number == 1 and kind != _FIXED64) or (number == 2 and kind != _VARINT):
            return value, time, at
        if number == 1:
            value = np.uint64(0)
            for byte in range(8):
                value |= np.uint64(data[begin + byte]) << np.uint64(8 * byte)
        elif number == 2:
            time, _ = _varint(data, begin, after)
        at = after
    return value, time, _FAILED


@kernel
def _series(
    data: NDArray[np.uint8],
    at: int,
    end: int,
    n_samples: int,
    bits: NDArray[np.uint64],
    times: NDArray[np.uint64],
) -> tuple[int, int, int, int]:
    """Read a series: begin and end of its labels, number of samples, where it fails.

    Labels that do not stand together at the beginning are looked for in the whole series.
    """
    first, last, together = at, at, True
    while at < end:
        number, kind, begin, after = _field(data, at, end)
        if after < 0 or (number == _SAMPLES and kind != _BYTES):
            return first, last, n_samples, at
        if number == _LABELS:
            together = together and at == last
            last = after
        elif number == _SAMPLES:
            value, time, failed = _sample(data, begin, after)
            if failed >= 0:
                return first, last, n_samples, failed
            if n_samples < len(bits):
                bits[n_samples] = value
                times[n_samples] = time
            n_samples += 1
        at = after
    return first, last if together else end, n_samples, _FAILED


@kernel
def scan(
    data: NDArray[np.uint8],
    series_field: int,
    labels: NDArray[np.int64],
    owners: NDArray[np.int32],
    bits: NDArray[np.uint64],
    times: NDArray[np.uint64],
) -> tuple[int, int, int]:
    """Find the series and the samples of a request.

    Args:
        data: The request, (bytes,).
        series_field: Number of the field of series, 1 or 5.
        labels: Gets begin and end of the labels of each series, (series, 2).
        owners: Gets the series of each sample, (samples,).
        bits: Gets the bits of each value, (samples,).
        times: Gets each time in ms, (samples,).

    Returns:
        The numbers of series and samples, and where the request cannot be read (−1: it can). What
        does not fit into the arrays is only counted.
    """
    n_series, n_samples, at, total = 0, 0, 0, len(data)
    while at < total:
        number, kind, begin, after = _field(data, at, total)
        if after < 0 or (number == series_field and kind != _BYTES):
            return n_series, n_samples, at
        if number == series_field:
            first, last, n_after, failed = _series(data, begin, after, n_samples, bits, times)
            if failed >= 0:
                return n_series, n_samples, failed
            if n_series < len(labels):
                labels[n_series, 0] = first
                labels[n_series, 1] = last
            for sample in range(n_samples, min(n_after, len(owners))):
                owners[sample] = n_series
            n_series += 1
            n_samples = n_after
        at = after
    return n_series, n_samples, _FAILED
