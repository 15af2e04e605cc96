"""Files of historical records with late, duplicate and broken rows."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config.schema import Config

START_S = 1_750_000_000
LIMIT, SPIKE = 100.0, 500.0

Row = tuple[str | None, int, float | None]


def past_rows(series: int, seconds: int, seed: int = 1, first: int = 0) -> list[Row]:
    """Return rows (series, time in s, value) by time, with spikes, late rows, duplicates and missing labels.

    Args:
        series: Number of series.
        seconds: Rows of each series, one a second.
        seed: Seed of values and places.
        first: Number of the first series.
    """
    rng = random.Random(seed)
    spikes = {(one, rng.randrange(20, seconds - 20)) for one in range(series)}
    rows: list[Row] = []
    held: list[tuple[int, Row]] = []  # rows that come late, with the second in which they come
    for second in range(seconds):
        for one in range(series):
            name, now = f"s-{first + one:04}", START_S + second
            high = any((one, second - back) in spikes for back in range(3))
            point = (name, now, SPIKE if high else round(20 + rng.gauss(0, 0.5), 3))
            turn = (7 * one + second) % 90
            if turn == 40 and second + 9 < seconds:
                held.append((second + 7, (name, now, SPIKE if one % 3 == 0 else point[2])))
                continue
            rows.append(point)
            if turn == 60:
                rows.append(point)  # a duplicate
            elif turn == 75:
                rows.append((None, now, 1.0))
        rows += [row for due, row in held if due == second]
    return rows


def write_csv(path: Path, rows: list[Row], broken_every: int = 0) -> Path:
    """Write rows as CSV; every so many rows a line has a column too many, or a value that is no number."""
    lines = ["s,t,v"]
    for number, (name, now, value) in enumerate(rows):
        text = f"{name or ''},{now},{value}"
        if broken_every and number % broken_every == broken_every - 1:
            text = f"{text},more" if number % 2 else f"{name or ''},{now},twenty"
        lines.append(text)
    path.write_text("\n".join(lines) + "\n")
    return path


def write_parquet(path: Path, rows: list[Row], rows_in_group: int = 500) -> Path:
    """Write rows as Parquet with small row groups."""
    names, times, values = (list(column) for column in zip(*rows, strict=True))
    seconds = pa.array(times, pa.int64()).cast(pa.timestamp("s")).cast(pa.timestamp("us", tz="UTC"))
    table = pa.table({"s": pa.array(names, pa.string()), "t": seconds, "v": pa.array(values, pa.float64())})
    pq.write_table(table, path, row_group_size=rows_in_group)
    return path


def past_config(database: str, **changes: Any) -> Config:
    """Return the config of a stream ``plant`` whose records such files hold."""
    stream: dict[str, Any] = {
        "source": {"memory": {}},
        "format": {"csv": {"series": "s", "time": "t", "values": ["v"]}},
        "detector": "light",
        "limits": {"v": {"max": LIMIT}},
        "every": "1s",
        "dead_letters": {"ratio": 0.9, "run": 500},
    }
    tree = {"database": database, "http": None, "storage": {"snapshot_every": "300ms"}}
    return Config.model_validate(
        tree | {"engine": {"max_batch": 500}, "streams": {"plant": stream | changes}}
    )
