"""A network of the stream's own, through all parts: training job, registry, promotion, daemon, kill."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detectors import Points, build
from detectors.base import FORECASTERS
from detectors.local_time import local_ns
from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from pipeline.jobs.runner import Runner
from pipeline.models import registry
from pipeline.models.champion import champion_of, detector_spec
from pipeline.models.promotion import roll_back
from storage.history.reader import HistoryReader
from storage.model_store import jobs, models
from storage.sql.database import Database
from storage.stream_state import positions
from tests.integration.test_retraining_jobs import ThreadWorkers, queue, stored, turn_until, write_config
from tests.support.forked_commands import ForkedCommand
from tests.support.trainings import BEGIN, MINUTE, config_of, henon, write_history

SERIES, LEARNT, ALL = 4, 1100, 1400
#: Hours, since a calendar is learned from weeks.
STEP = 60 * MINUTE


def with_forecaster(config: Config, forecaster: dict[str, Any], **keys: Any) -> Config:
    tree = json.loads(config.model_dump_json(by_alias=True, exclude_unset=True))
    tree["streams"]["plant"] |= {"forecaster": forecaster, **keys}
    tree["storage"]["snapshot_every"] = "200ms"
    return Config.model_validate(tree)


def values() -> np.ndarray:
    """Return Hénon's map with a shift on working days from 6 to 18 o'clock in Berlin (ALL, SERIES)."""
    rng = np.random.default_rng(3)
    wall = local_ns("Europe/Berlin", BEGIN + np.arange(ALL) * STEP) // STEP
    shift = ((wall // 24 + 3) % 7 < 5) & (wall % 24 >= 6) & (wall % 24 < 18)
    return np.stack([henon(rng, (-1.0) ** i, ALL) + 4.0 * shift for i in range(SERIES)], 1)


def append(path: Path, first: int, last: int) -> None:
    """Append the rows of all series from ``first`` to ``last`` to a CSV file."""
    with path.open("a") as file:
        if not first:
            file.write("ts,sensor,temperature\n")
        for row, line in enumerate(values()[first:last].tolist(), first):
            stamp = (BEGIN + row * STEP) // 10**9
            file.writelines(f"{stamp},press-{number},{x!r}\n" for number, x in enumerate(line))


def committed(database: Database) -> int:
    with database.read() as connection:
        return sum(one.counts.scored for one in positions.all_of(connection, "plant"))


def until(done: Any, what: str) -> None:
    end = time.monotonic() + 120
    while not done():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def run_in_thread(config: Config, database: Database, rows: int) -> None:
    """Run a daemon of this process until ``rows`` are scored and written."""
    stopping = threading.Event()
    with daemon(config, stopping) as process:
        loop = threading.Thread(target=process.run, args=(lambda: None,))
        loop.start()
        try:
            until(lambda: committed(database) >= rows, f"{committed(database)} of {rows} are scored")
        finally:
            stopping.set()
            loop.join()


def run_and_kill(file: Path, database: Database, feed: Any, rows: int) -> None:
    """Run a daemon process, and kill it once ``rows`` are scored."""
    process = ForkedCommand(["run", file], file.parent, os.environ, Path(os.devnull))
    try:
        feed()
        until(lambda: committed(database) >= rows, "the process scores")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


def reference(config: Config, weights: registry.Weights) -> dict[str, np.ndarray]:
    """Score all rows in this process: the shared LSTM up to ``LEARNT``, then the network, in two batches."""
    spec = detector_spec(config.streams["plant"])
    before, after = build(spec), build(spec, weights)
    slot = np.tile(np.arange(SERIES, dtype=np.int32), ALL)
    time_ns = np.repeat(BEGIN + np.arange(ALL, dtype=np.int64) * STEP, SERIES)
    every, missed = np.full(len(slot), STEP, np.int64), np.zeros(len(slot), np.int32)
    x, cut = values().reshape(-1, 1), LEARNT * SERIES
    state = before.initial(SERIES)
    before.register_series(state, np.arange(SERIES, dtype=np.int32), [f"press-{i}" for i in range(SERIES)])
    parts = [slice(0, cut), slice(cut, len(slot))]
    state, _ = before.step(state, Points(*(one[parts[0]] for one in (slot, time_ns, x, missed, every))))
    state = after.convert_state(before.state_version, state)
    after.on_weights_changed(state)
    _, verdicts = after.step(state, Points(*(one[parts[1]] for one in (slot, time_ns, x, missed, every))))
    return {name: getattr(verdicts, name).reshape(-1) for name in ("score", "surprise", "expected", "flag")}


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    ("tier", "kind", "state_bytes"),
    [("standard", "gru", 4 * 24 + 8 * 96 * 4 + 24), ("strong", "lstm", 2 * 4 * 24 + 8 * 96 * 4 + 24)],
)
def test_a_network_with_a_calendar_is_trained_promoted_and_scores_the_same_after_a_kill(
    tmp_path: Path, sqlite_template: Path, tier: str, kind: str, state_bytes: int
) -> None:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    url, log = f"sqlite:///{tmp_path}/forewatch.db", tmp_path / "plant.csv"
    config = with_forecaster(
        config_of(url, tmp_path, tier, epochs=12, history="90d"),
        {"kind": kind, "hidden": 24, "inputs": ["calendar", "lags"]},
        every="1h",
        timezone="Europe/Berlin",
        holidays="DE",
        source={"files": {"paths": [str(log)], "follow": True}},
        format={"csv": {"series": ["sensor"], "time": "ts", "values": ["temperature"]}},
    )
    file, database = write_config(config, tmp_path / "forewatch.yaml"), Database(url)
    append(log, 0, LEARNT)
    run_in_thread(config, database, LEARNT * SERIES)
    number = queue(config, database)
    runner = Runner(config, database, "a", ThreadWorkers())
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert (job.state, job.result["forecaster"]) == ("succeeded", kind), (job.reason, job.traceback)
    champion = champion_of(database, "plant", config.streams["plant"])
    assert champion.version == job.result["version"], job.reason
    with database.read() as connection:
        model = models.get(connection, champion.version)
    assert "forecast error" in model.evidence["backtest"]["text"]
    manifest = registry.manifest_of(model.path, model.sha256)
    assert manifest["network"]["kind"] == kind
    assert manifest["network"]["inputs"] == "calendar,lags"
    assert manifest["network"]["zone"] == "Europe/Berlin"
    assert manifest["network"]["state_bytes"] == state_bytes

    run_and_kill(file, database, lambda: append(log, LEARNT, 1250), (LEARNT + 60) * SERIES)
    append(log, 1250, ALL)
    run_in_thread(config, database, ALL * SERIES)
    table = HistoryReader(config.history_path).read("plant").to_pandas()
    table = table.sort_values(["time", "series"]).iloc[LEARNT * SERIES :]
    assert len(table) == (ALL - LEARNT) * SERIES, "none lost, none twice"
    assert table["model"].astype(str).str.endswith(f"+{champion.version}").all()
    assert "network" in {FORECASTERS[number] for number in table["guard"]}
    wanted = reference(config, registry.weights_of(model.path, model.sha256))
    for name in ("score", "surprise", "flag"):
        np.testing.assert_array_equal(table[name].to_numpy(), wanted[name], err_msg=name)
    with database.begin() as connection:
        roll_back(connection, "plant", author="ada", reason="try", now_ns=time.time_ns())
    assert champion_of(database, "plant", config.streams["plant"]).version is None
    database.close()


@pytest.mark.timeout(120)
def test_counts_are_required_of_an_output_of_counts(tmp_path: Path, sqlite_template: Path) -> None:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    url = f"sqlite:///{tmp_path}/forewatch.db"
    database = Database(url)
    config = with_forecaster(config_of(url, tmp_path), {"kind": "rnn", "output": "negative_binomial"})
    write_history(config, {f"press-{i}": henon(np.random.default_rng(i), 1.0, 300) for i in range(2)})
    number, runner = queue(config, database), Runner(config, database, "a", ThreadWorkers())
    turn_until(runner, lambda: stored(database, number).state in jobs.ENDED_STATES)
    job = stored(database, number)
    assert job.state == "rejected"
    assert "negative_binomial is for counts" in job.reason
    database.close()
