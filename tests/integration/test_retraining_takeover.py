"""Promotion and rollback under a running engine: no point lost or twice, each verdict by one model, and the
series go on as if nothing had happened.
"""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from detectors import build
from detectors.base import DetectorSpec, Points
from detectors.forecasters import lstm_features, shared_lstm
from detectors.forecasters.per_group_lstm import tensors
from pipeline.core.types import FaultKind
from pipeline.daemon.model_swap import ModelSwap
from pipeline.models import registry
from pipeline.models.champion import champion_of
from pipeline.observability.metrics import Metrics
from storage.history.reader import HistoryReader
from storage.model_store import models
from storage.model_store.models import ModelVersion
from storage.results import faults
from tests.faults.feed import make_log
from tests.support.engines import Bench

MINUTE = 60_000_000_000


def other_weights(seed=1, size=0.02):
    """The packaged net, moved a little: what a fine-tuning might come to."""
    generator = torch.Generator().manual_seed(seed)
    weights = shared_lstm.load().state_dict()
    return {
        name: (value + size * torch.randn(value.shape, generator=generator)).numpy()
        for name, value in weights.items()
    }


def release(database, folder, seed=1, stream="plant", more=()):
    """A version in the registry and its row; its name. ``more``: tensors beside those of the shared LSTM."""
    manifest = {
        "architecture": "shared_lstm",
        "features": {"version": lstm_features.VERSION},
        "stream": stream,
    }
    path, sha256 = registry.publish(
        str(folder / "models"), stream, other_weights(seed) | dict(more), manifest
    )
    version = sha256[: registry.VERSION_DIGITS]
    with database.begin() as connection:
        models.add(connection, ModelVersion(version, stream, path, sha256, "candidate", None, "test", 1, 1))
    return version


def promote(database, version, action="promote", stream="plant"):
    with database.begin() as connection:
        now = models.current_champion(connection, stream)
        models.record_promotion(
            connection, now, action, version, author="ada", reason="try", now_ns=time.time_ns()
        )


@pytest.fixture
def bench(tmp_path: Path, sqlite_template: Path):
    made = Bench(tmp_path, sqlite_template, [make_log(n, 400) for n in range(2)], detector="standard")
    yield made
    made.close()


def test_a_promotion_and_a_rollback_under_load(bench, tmp_path):
    bench.fill()
    engine = bench.engine(history=True)
    engine.parts.max_batch = 37
    watch, engines = ModelSwap(bench.database, Metrics()), {"plant": engine}
    first = engine.parts.scorer.provenance.model_version
    version = release(bench.database, tmp_path)

    def turn(times):
        for _ in range(times):
            engine.turn(0.0)
            watch.apply(engines)

    turn(6)
    promote(bench.database, version)
    looking = threading.Thread(
        target=watch.prepare_promotions, args=(bench.config.streams,)
    )  # while the loop turns
    looking.start()
    while looking.is_alive():
        turn(1)
        time.sleep(0.2)
    turn(1)
    second = engine.parts.scorer.provenance.model_version
    assert second.endswith(f"+{version}")
    assert second != first
    turn(4)
    promote(bench.database, None, "rollback")
    watch.prepare_promotions(bench.config.streams)
    bench.drain(engine)
    watch.apply(engines)
    assert engine.parts.scorer.provenance.model_version == first
    bench.check()
    engine.close()
    bench.open.clear()
    history = bench.history().to_pandas()
    assert not history.duplicated(["series", "time"]).any(), "no point twice"
    assert set(history["model"].astype(str)) == {first, second}
    assert (history["microseconds"] > 0).all(), "what the guard compares"
    for _, one in history.sort_values("offset").groupby("series", observed=True):
        model = one["model"].astype(str)
        assert (model != model.shift()).sum() <= 3, "the models decide one after the other, not in turns"


def test_a_crash_after_a_promotion_goes_on_with_the_promoted_one(bench, tmp_path):
    bench.fill(lambda log: len(log.values) // 2)
    engine = bench.engine()
    bench.drain(engine)
    engine.parts.snapshots.take_all(engine.parts.ownership)  # by the old model
    version = release(bench.database, tmp_path)
    promote(bench.database, version)
    bench.fill()
    heir = bench.engine()
    assert heir.parts.scorer.provenance.model_version.endswith(f"+{version}")
    bench.drain(heir)
    bench.check()


def networks_of(scorer):
    """Return the network of each series, by its name."""
    own = scorer.series.state["detector"]["hidden.own"]
    return {name: own[slot].tolist() for slot, name in enumerate(scorer.names()) if name is not None}


def test_series_get_and_lose_networks_of_their_own(bench, tmp_path):
    """By a promotion under way, from a snapshot of it, when a series begins, and not any more after the
    rollback.
    """
    bench.fill(lambda log: len(log.values) // 3)
    engine = bench.engine()
    bench.drain(engine)
    scorer = engine.parts.scorer
    names = sorted(networks_of(scorer))
    members = [[names[0]], [names[2], "not there yet"]]
    stacked = {name: np.stack([value, -value]) for name, value in other_weights(2).items()}
    version = release(bench.database, tmp_path, more=tensors(members, stacked))
    wanted = {name: [0] for name in names} | {names[0]: [1], names[2]: [2]}
    watch, engines = ModelSwap(bench.database, Metrics()), {"plant": engine}
    watch.apply(engines)
    watch.prepare_promotions(bench.config.streams)
    promote(bench.database, version)
    watch.prepare_promotions(bench.config.streams)
    watch.apply(engines)
    assert scorer.provenance.model_version.endswith(f"+{version}")
    assert networks_of(scorer) == wanted
    bench.fill(lambda log: 2 * len(log.values) // 3)
    bench.drain(engine)
    engine.parts.snapshots.take_all(engine.parts.ownership)
    heir = bench.engine()
    bench.fill()
    bench.drain(heir)
    assert networks_of(heir.parts.scorer) == wanted
    promote(bench.database, None, "rollback")
    last = bench.engine()  # the series' stored state is that of the version that was rolled back
    bench.drain(last)
    assert networks_of(last.parts.scorer) == {name: [0] for name in names}
    bench.check()


def test_a_corrupt_model_is_refused_and_the_champion_goes_on(bench, tmp_path):
    bench.fill()
    engine = bench.engine()
    engines, watch = {"plant": engine}, ModelSwap(bench.database, Metrics())
    good, bad = release(bench.database, tmp_path, 1), release(bench.database, tmp_path, 2)
    promote(bench.database, good)
    watch.apply(engines)
    watch.prepare_promotions(bench.config.streams)
    watch.apply(engines)
    assert engine.parts.scorer.provenance.model_version.endswith(good)
    with bench.database.read() as connection:
        path = models.get(connection, bad).path
    file = Path(f"{path}.safetensors")
    whole = file.read_bytes()
    file.write_bytes(whole[:1000])
    promote(bench.database, bad)
    watch.prepare_promotions(bench.config.streams)
    watch.apply(engines)
    assert engine.parts.scorer.provenance.model_version.endswith(good)
    with bench.database.read() as connection:
        (fault,) = faults.query(connection, stream="plant", open_only=True)
    assert fault.kind is FaultKind.MODEL_UNUSABLE
    assert "truncated or swapped" in fault.message
    assert champion_of(bench.database, "plant", bench.config.streams["plant"]).version == good, (
        "also for a daemon that starts now"
    )
    bench.drain(engine)
    bench.check()
    promote(bench.database, good, "rollback")
    watch.prepare_promotions(bench.config.streams)
    with bench.database.read() as connection:
        assert faults.query(connection, stream="plant", open_only=True) == []
    file.write_bytes(whole)
    promote(bench.database, bad)
    watch.prepare_promotions(bench.config.streams)
    watch.apply(engines)
    assert engine.parts.scorer.provenance.model_version.endswith(bad)
    with bench.database.read() as connection:
        assert faults.query(connection, stream="plant", open_only=True) == []


def taken_over(tier, weights, series, noise, cut, n):
    """Waves of which much is known by ``cut`` < n: what came after it (M, 1), and the verdicts on that
    undisturbed and with other weights.
    """
    spec, rng, t = DetectorSpec(tier=tier), np.random.default_rng(3), np.arange(n)
    values = np.stack(
        [5 * np.sin(2 * np.pi * t / 150 + i) + rng.normal(0, noise, n) for i in range(series)], 1
    )

    def points(a, b):
        slot = np.tile(np.arange(series, dtype=np.int32), b - a)
        none, every = np.zeros(len(slot), np.int32), np.full(len(slot), MINUTE, np.int64)
        return Points(slot, np.repeat(t[a:b] * MINUTE, series), values[a:b].reshape(-1, 1), none, every)

    old, new = build(spec), build(spec, weights)
    state, _ = old.step(old.initial(series), points(0, cut))
    kept = {name: array.copy() for name, array in state.items()}
    _, undisturbed = old.step(kept, points(cut, n))
    new.on_weights_changed(state)
    _, after = new.step(state, points(cut, n))
    return values[cut:].reshape(-1, 1), undisturbed, after


@pytest.mark.parametrize("tier", ["standard", "strong"])
def test_a_takeover_raises_no_alarms(tier):
    """Other weights on series of which much is known: forecasts go on, and the alarms are those that would
    have come anyway.
    """
    series = 6
    truth, undisturbed, after = taken_over(
        tier, other_weights(5, size=0.3), series, noise=0.2, cut=1200, n=1800
    )
    assert np.isfinite(after.expected).all()
    error, usual = np.abs(after.expected - truth), np.abs(undisturbed.expected - truth)
    assert np.median(error[: 60 * series]) < 1.5 * np.median(usual), "from the first points on"
    assert np.median(error[300 * series :]) < 1.2 * np.median(usual)
    assert after.flag.sum() <= undisturbed.flag.sum() + 3


def test_after_a_takeover_scores_and_forecasts_come_back():
    """Within some hundred rows, however much the readout had learnt: ten thousand rows without the new hidden
    state do not hold it off.
    """
    series = 8
    truth, undisturbed, after = taken_over("standard", other_weights(5), series, noise=0.5, cut=6000, n=8000)
    learning, learnt = slice(240 * series, 720 * series), slice(1200 * series, None)
    small = [(verdicts.surprise[learning] > 1).mean() for verdicts in (after, undisturbed)]
    assert small[0] < 3 * small[1]
    error, usual = (np.abs(verdicts.expected - truth)[learnt].mean() for verdicts in (after, undisturbed))
    assert error < 1.04 * usual


def test_history_of_before_the_models_were_named_can_still_be_read(bench):
    bench.fill()
    engine = bench.engine(history=True)
    bench.drain(engine)
    engine.close()
    bench.open.clear()
    table = HistoryReader(str(bench.folder / "history")).read("plant", columns=["flag", "model"])
    assert set(table.column_names) == {"series", "time", "flag", "model"}
    assert json.loads(json.dumps(table.column("model").unique().to_pylist())) == [
        engine.parts.scorer.provenance.model_version
    ]
