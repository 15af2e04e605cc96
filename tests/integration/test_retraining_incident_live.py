"""The heart of retraining, in a running engine: what people say of an incident decides what a promoted model
makes of the days after it.

One engine on one log and one database, with history. A level shift comes and stays; the detector flags its
beginning and gets used to it. After two days the anomaly gets a label and a new model takes over, between two
batches. Then the next day comes, as high as the two before.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

from pipeline.daemon.model_swap import ModelSwap
from pipeline.observability.metrics import Metrics
from storage.results import anomalies, labels
from tests.faults.feed import Log
from tests.integration.test_retraining_takeover import promote, release
from tests.support.engines import Bench
from tests.support.retraining import DAY, sensors

SHIFT, NOW, END = 17 * DAY, 19 * DAY, 20 * DAY
SERIES = 3
START_MS = 1_750_032_000_000


def log() -> Log:
    x, made = sensors(SERIES, END // DAY, shift_day=SHIFT / DAY), Log()
    for row in range(END):
        for one in range(SERIES):
            made.add(
                json.dumps(
                    {"s": f"s{one}", "t": START_MS + 600_000 * row, "v": round(float(x[one, row]), 4)}
                ).encode(),
                "scored",
            )
    return made


def flags_after(folder: Path, template: Path, label: str | None) -> np.ndarray:
    """Flags (SERIES, END − NOW) of the live engine on the day after the promotion."""
    changes = {
        "detector": "standard",
        "decision": "surprise",  # its quarantine keeps a level that was labelled true unusual
        "every": "10m",
        "lateness": "0s",
        "limits": {},
        "engine": {"max_batch": 5000},
    }
    bench = Bench(folder, template, [log()], **changes)
    engine = bench.engine(history=True)
    watch = ModelSwap(bench.database, Metrics(), lambda: str(folder / "history"))
    bench.fill(lambda log: NOW * SERIES)
    bench.drain(engine)
    engine.parts.snapshots.take_all(engine.parts.ownership)  # and with it, the history is on disk
    watch.apply({"plant": engine})
    watch.prepare_promotions(bench.config.streams)
    with bench.database.begin() as connection:
        (shift,) = [
            a
            for a in anomalies.query(connection, series="s0")
            if a.start_ns == (START_MS + 600_000 * SHIFT) * 10**6
        ]
        if label is not None:
            labels.put(connection, shift.id, label, "ann", "", time.time_ns())
    version = release(bench.database, folder, seed=1)
    promote(bench.database, version)
    watch.prepare_promotions(bench.config.streams)
    watch.apply({"plant": engine})
    assert engine.parts.scorer.provenance.model_version.endswith(f"+{version}")
    bench.fill()
    bench.drain(engine)
    engine.close()
    bench.open.clear()
    table = bench.history()
    bench.close()
    time_ns = table.column("time").to_numpy()
    late = time_ns >= (START_MS + 600_000 * NOW) * 10**6
    return table.column("flag").to_numpy()[late].reshape(SERIES, END - NOW)


@pytest.mark.parametrize(("label", "flagged"), [("true", True), ("false", False), (None, False)])
def test_a_promoted_model_flags_the_shift_again_where_it_was_labelled_true(
    tmp_path, sqlite_template, label, flagged
) -> None:
    flags = flags_after(tmp_path, sqlite_template, label)
    assert flags[0, 0] == flagged
    assert flags[0].any() == flagged
    assert flags[1:].mean() < 0.01
