"""Cost of a record before the detector: decoding, admission and aggregation.

    python -m benchmarks.decode_windows

One thread, batches of 20,000; processor time of the best of several rounds, in µs a record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.config.schema import Stream
from pipeline.core.types import Partition
from pipeline.decode import Columns, SeriesKeys, make_decoder
from pipeline.sources.base import Records, TableRecords
from pipeline.windows.event_time import EventTimeProcessor

N, ROWS = 20_000, 1_000_000
START = 1_700_000_000
LOG = Partition("bench", 0)
RNG = np.random.default_rng(0)


def stream(form: dict[str, Any], **settings: Any) -> Stream:
    return Stream.model_validate({"source": {"memory": {}}, "format": form, **settings})


def best(work: Callable[[], object], points: int, rounds: int = 15) -> float:
    """Processor time of the best round, µs a point."""
    times = []
    for _ in range(rounds):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return min(times) / points * 1e6


def decoding() -> dict[str, float]:
    names, values = (
        [f"sensor-{i:05d}" for i in RNG.integers(0, 10_000, N)],
        RNG.normal(20, 3, N).round(3).tolist(),
    )
    ms = [START * 1000 + i for i in range(N)]
    rows = list(zip(names, ms, values, strict=True))
    flat = {"series": "s", "time": "t", "values": "v"}
    formats: dict[str, tuple[dict[str, Any], list[bytes]]] = {
        "JSON, 1 label, 1 value": (
            {"json": flat},
            [json.dumps({"s": s, "t": t, "v": v}).encode() for s, t, v in rows],
        ),
        "JSON, 2 labels, 2 values": (
            {"json": {"series": ["site", "s"], "time": "t", "values": ["v", "w"]}},
            [json.dumps({"site": "b2", "s": s, "t": t, "v": v, "w": v}).encode() for s, t, v in rows],
        ),
        "JSON, nested": (
            {"json": {"series": ["m.site", "m.s"], "time": "t", "values": "v"}},
            [json.dumps({"m": {"site": "b2", "s": s}, "t": t, "v": v}).encode() for s, t, v in rows],
        ),
        "JSON, ISO 8601": (
            {"json": flat},
            [json.dumps({"s": s, "t": "2024-01-05T10:00:00.25Z", "v": v}).encode() for s, _, v in rows],
        ),
        "CSV": ({"csv": {**flat, "header": ["s", "t", "v"]}}, [f"{s},{t},{v}".encode() for s, t, v in rows]),
    }
    offsets, none = np.arange(N), np.full(N, -1)
    out = {}
    for name, (form, raw) in formats.items():
        decoder, records = (
            make_decoder("bench", stream(form)),
            Records(LOG, 0, N, offsets, none, raw, [None] * N),
        )
        out[f"decode {name} ({len(raw[0])} bytes)"] = best(lambda d=decoder, r=records: d.decode(r), N)  # type: ignore[misc]
    text = pa.array(RNG.choice(np.array(names), ROWS))
    cells = {"t": np.arange(ROWS) * 10**9 + START * 10**9, "v": RNG.normal(size=ROWS)}
    decoder = make_decoder("bench", stream({"csv": flat}))
    for name, series in (("text", text), ("dictionary", text.dictionary_encode())):
        table = TableRecords(
            LOG, 0, ROWS, np.arange(ROWS), np.full(ROWS, -1), pa.table({"s": series, **cells})
        )
        out[f"decode a table, series as {name}"] = best(lambda r=table: decoder.decode(r), ROWS, 5)  # type: ignore[misc]
    return out


def points(series: np.ndarray, seconds: np.ndarray, first: int) -> Columns:
    ns = (START + seconds) * 10**9
    return Columns(
        LOG,
        first + np.arange(len(series)),
        None,
        SeriesKeys([str(s) for s in series]),
        ns,
        ns,
        RNG.normal(size=(len(series), 1)),
    )


def admitting(series: int, **settings: Any) -> float:
    """Push and admit; every series advances by a second a round."""
    windows = EventTimeProcessor(stream({"json": {"series": "s", "time": "t", "values": "v"}}, **settings))
    state, waiting, times = windows.initial(series), windows.empty(LOG), []
    for turn in range(20):
        at = turn * N + np.arange(N)
        slots = (at % series if series <= N else RNG.permutation(series)[:N]).astype(np.int32)
        batch = points(slots, at // min(series, N), turn * N)
        start = time.thread_time()
        waiting, ready = windows.push(waiting, batch)
        pushed = time.thread_time()
        # the engine's look-up, not measured here
        slots = np.array([int(k) for k in ready.keys.flat()], np.int32)
        resumed = time.thread_time()
        windows.admit(state, slots, ready)
        times.append(pushed - start + time.thread_time() - resumed)
    return min(times[5:]) / N * 1e6


def aggregating(series: int, values: dict[str, Any]) -> float:
    """20,000 records a second in intervals of 10 s."""
    windows = EventTimeProcessor(
        stream(
            {"json": {"series": "s", "time": "t", "values": "v"}},
            aggregate={"every": "10s", "values": values},
        )
    )
    waiting, times = windows.empty(LOG), []
    for turn in range(40):
        batch = points(RNG.integers(0, series, N), np.full(N, turn), turn * N)
        batch.extra = {"distinct d": RNG.integers(1, 5000, N).astype(np.uint64)}
        start = time.thread_time()
        waiting, _ = windows.push(waiting, batch)
        times.append(time.thread_time() - start)
    return sum(times[10:]) / len(times[10:]) / N * 1e6


def main() -> None:
    """Run the benchmark of the command line."""
    figures = decoding()
    figures |= {f"admit, {n:,} series": admitting(n) for n in (10, 10_000, 1_000_000)}
    figures["admit, 10,000 series, lateness 5s"] = admitting(10_000, lateness="5s")
    figures["admit, 10,000 series, counters"] = admitting(10_000, counters=["v"])
    figures["admit, 10,000 series, gaps held"] = admitting(10_000, gap={"policy": "hold"})
    figures["aggregate, 100 series, sum and count"] = aggregating(100, {"v": "sum", "n": "count"})
    figures["aggregate, 10,000 series, sum and count"] = aggregating(10_000, {"v": "sum", "n": "count"})
    figures["aggregate, 10,000 series, distinct"] = aggregating(10_000, {"n": {"nunique": "d"}})
    for name, figure in figures.items():
        print(f"{name:<52} {figure:7.3f} µs")
    print(json.dumps({"benchmark": "decode_windows", "us_per_record": figures}))


if __name__ == "__main__":
    main()
