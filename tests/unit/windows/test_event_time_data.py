"""Decoding and windows together, on recorded series."""

from __future__ import annotations

import numpy as np
import pyarrow.csv as pacsv
import pytest

from pipeline.decode import make_decoder
from pipeline.windows.event_time import SCORED, EventTimeProcessor
from tests.support.decoding import PARTITION, stream, table


def admitted(rows, form, **settings):
    config = stream({"csv": form}, **settings)
    decoded = make_decoder("s", config).decode(table(rows))
    assert not decoded.dead
    windows = EventTimeProcessor(config)
    _, ready = windows.push(windows.empty(PARTITION), decoded.columns)
    slots = ready.keys.spread(np.arange(len(ready.keys.names), dtype=np.int32))
    return windows.admit(windows.initial(len(ready.keys.names)), slots, ready)


def test_stocks_miss_no_session(shared_data):
    files = sorted((shared_data / "stocks").glob("*.csv"))[:2]
    assert files
    for file in files:
        rows = pacsv.read_csv(file)
        names = {name.lower(): name for name in rows.column_names}
        if "name" not in names:
            rows = rows.append_column("name", [[file.stem] * len(rows)])
            names["name"] = "name"
        form = {"series": names["name"], "time": names["date"], "values": names["close"]}
        out = admitted(rows, form, calendar="XNYS")
        assert (out.outcome == SCORED).all()
        assert out.points.missed.sum() == 0
        assert out.points.every[-1] == pytest.approx(86_400_000_000_000)
        assert admitted(rows, form).points.missed.sum() > 400  # without the calendar every weekend is a gap


def test_a_recorded_machine(shared_data):
    file = next((shared_data / "nab").rglob("machine_temperature_system_failure.csv*"))
    rows = pacsv.read_csv(file)
    rows = rows.append_column("machine", [["m"] * len(rows)])
    out = admitted(rows, {"series": "machine", "time": "timestamp", "values": "value"})
    assert out.points.every[-1] == 300_000_000_000
    assert len(out.outcome) == len(rows)
    assert (out.outcome == SCORED).mean() > 0.99
