"""``forewatch evaluate`` as a user runs it, on sets made here: figures, per-row scores, reports, resuming,
comparison, failures.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import detectors
from detectors import DetectorSpec, build
from pipeline.cli.app import app
from pipeline.core.errors import ForewatchError, InputError
from pipeline.evaluate import layouts, report
from pipeline.evaluate.evaluation import EvaluationTask, evaluate, score_yardstick
from pipeline.evaluate.scoring_run import score_series
from pipeline.evaluate.set_metrics import summarise


def forewatch(*arguments):
    """The command in this process; mistakes are raised (``pipeline.cli.main`` turns them into one message
    and an exit code).
    """
    done = CliRunner().invoke(app, ["--log-level", "error", "evaluate", *map(str, arguments)])
    if isinstance(done.exception, ForewatchError):
        raise done.exception
    return done


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Four noisy sines with a spike each, one of them without its label column."""
    folder = tmp_path_factory.mktemp("sines")
    rng = np.random.default_rng(0)
    for name in "abcd":
        value = np.sin(np.arange(1500) / 8) + rng.normal(0, 0.05, 1500)
        at = int(rng.integers(600, 1400))
        value[at] += 6.0
        rows = [(1_700_000_000 + 60 * i, v, int(i == at)) for i, v in enumerate(value)]
        columns = 2 if name == "d" else 3
        text = "\n".join(
            ",".join(map(str, row[:columns])) for row in [("timestamp", "value", "label"), *rows]
        )
        (folder / f"{name}.csv").write_text(text + "\n")
    return folder


def test_measures_what_it_can_and_says_what_failed(dataset, tmp_path):
    command = [Path(sys.executable).with_name("forewatch"), "evaluate", dataset, "--detector", "light"]
    command += ["--scores", tmp_path / "s", "--report", tmp_path / "r.json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stderr
    assert "d.csv: no column label" in done.stderr
    assert "Traceback" not in done.stderr
    made = json.loads((tmp_path / "r.json").read_text())
    assert [series["name"] for series in made["series"]] == ["a", "b", "c"]
    assert made["metrics"]["event recall"]["all"] == 1.0
    assert made["metrics"]["UCR accuracy"]["all"] == 1.0
    assert set(made["yardsticks"]) == {"random", "difference"}
    assert made["commit"]
    assert made["points"] == 4500
    with (tmp_path / "s" / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == [
        "timestamp",
        "value",
        "score",
        "expected",
        "lower",
        "upper",
        "flag",
        "surprise",
        "rarity",
    ]
    assert len(rows) == 1500
    assert all(0.0 <= float(row["score"]) <= 1.0 for row in rows)
    (spike,) = [row for row in rows if float(row["value"]) > 4]
    assert spike["flag"] == "1"
    assert float(spike["upper"]) < float(spike["value"])


def test_the_report_has_the_calibration_of_rows_without_a_label(dataset, tmp_path):
    for _ in range(2):  # scored, then read back
        done = forewatch(dataset, "--detector", "light", "--scores", tmp_path, "--json")
        made = json.loads(done.stdout)
        old, young = made["calibration"]["old"], made["calibration"]["young"]
        assert [one["decade"] for one in young["frequencies"]] == [1, 2, 3, 4]
        assert young["frequencies"][0]["rows"] > 0
        assert 0.9 < young["coverage"] <= 1
        assert old["values"] == 0, "the series have 1,500 rows"


def test_resumes_from_scores_on_disk_and_scores_again_for_another_detector(dataset, tmp_path):
    first = evaluate(EvaluationTask(dataset, "labelled", "light", scores=tmp_path))
    before = (tmp_path / "a.csv").stat().st_mtime_ns
    (tmp_path / "b.csv").rename(tmp_path / "kept.csv")
    state = json.loads((tmp_path / "run.json").read_text())
    del state["seconds"]["b"]
    (tmp_path / "run.json").write_text(json.dumps(state))
    again = evaluate(EvaluationTask(dataset, "labelled", "light", scores=tmp_path))
    assert (tmp_path / "a.csv").stat().st_mtime_ns == before
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "kept.csv").read_text()
    for old, new in zip(first.scores, again.scores, strict=True):
        assert np.array_equal(old.surprise, new.surprise)
        assert np.array_equal(old.flag, new.flag)
        assert np.array_equal(old.upper, new.upper, equal_nan=True)
    assert summarise(first) == summarise(again)
    evaluate(EvaluationTask(dataset, "labelled", "difference", scores=tmp_path))
    assert (tmp_path / "a.csv").stat().st_mtime_ns > before


def test_a_series_that_was_changed_is_scored_again(dataset, tmp_path):
    folder = tmp_path / "set"
    folder.mkdir()
    for name in "ab":
        (folder / f"{name}.csv").write_text((dataset / f"{name}.csv").read_text())
    first = evaluate(EvaluationTask(folder, "labelled", "light", scores=tmp_path / "s"))
    written = {name: (tmp_path / "s" / f"{name}.csv").stat().st_mtime_ns for name in "ab"}
    (folder / "a.csv").write_text((dataset / "c.csv").read_text())  # as many rows, other values
    again = evaluate(EvaluationTask(folder, "labelled", "light", scores=tmp_path / "s"))
    assert np.array_equal(
        again.scores[0].surprise, evaluate(EvaluationTask(folder, "labelled", "light")).scores[0].surprise
    )
    assert not np.array_equal(again.scores[0].surprise, first.scores[0].surprise)
    assert (tmp_path / "s" / "a.csv").stat().st_mtime_ns > written["a"]
    assert (tmp_path / "s" / "b.csv").stat().st_mtime_ns == written["b"]


def test_an_odd_folder_is_measured_without_a_warning_and_says_what_it_dropped(dataset, tmp_path, recwarn):
    head, *rows = (dataset / "a.csv").read_text().splitlines()
    fields = [row.split(",") for row in rows]
    files = {
        "doubled": [field for field in fields for _ in range(2)],
        "constant": [(time, "5", label) for time, _, label in fields],
        "holes": [
            (time, "" if i % 9 == 0 else value, label) for i, (time, value, label) in enumerate(fields)
        ],
        "nothing": [(time, "", label) for time, _, label in fields],
        "tiny": fields[:3],
    }
    for name, lines in files.items():
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *map(",".join, lines)]) + "\n")
    done = forewatch(tmp_path, "--detector", "light", "--report", tmp_path / "r.html")
    assert done.exit_code == 0, done.output
    assert (
        "doubled: 1,500 of 3,000 rows are out of order or repeat a timestamp and were not scored"
        in done.stderr
    )
    assert done.stderr.count("rows are out of order") == 1
    assert [str(one) for one in recwarn if issubclass(one.category, RuntimeWarning)] == []


def test_what_cannot_work_is_refused_before_the_work(dataset, tmp_path):
    (tmp_path / "file").touch()
    wrong = {
        ("--report", tmp_path / "file" / "r.html"): "cannot be written",
        ("--compare", "light", "nobody"): "no detector nobody",
        ("--detector", "bidirectional"): "it is a forecaster that cannot run on a live stream",
        ("--detector", "gru"): "it is a forecaster",
        ("--forecaster", "bidirectional"): "no forecaster bidirectional: bidirectional looks ahead",
        ("--forecaster", "gro"): "did you mean gru",
        ("--forecaster", "gru+clock"): "no forecaster gru\\+clock",
        ("--forecaster", "gru", "--detector", "light"): "detector light has no network",
        ("--compare", "light", "r.json"): "two detectors or two JSON reports",
    }
    for arguments, message in wrong.items():
        with pytest.raises(InputError, match=message):
            forewatch(dataset, "--scores", tmp_path / "s", *arguments)
    assert not (tmp_path / "s").exists()


def test_a_network_is_trained_on_the_rows_that_are_not_measured(dataset, monkeypatch):
    monkeypatch.setattr("pipeline.evaluate.network_training.EPOCHS", 3)
    packaged, network = (
        evaluate(EvaluationTask(dataset, "labelled", limit=3, forecaster=name))
        for name in ("", "gru+calendar+lags")
    )
    assert not network.errors
    assert packaged.task.key != network.task.key
    assert report.document(network, summarise(network), {})["forecaster"] == "gru+calendar+lags"
    expected = [np.nan_to_num(run.scores[0].expected) for run in (packaged, network)]
    assert not np.array_equal(*expected), "another network forecasts otherwise"
    pairs = zip(network.scores, network.series, strict=True)
    assert all(scores.flag[one.label].all() for scores, one in pairs), "the spikes are flagged"


def test_processes_and_neighbours_change_nothing(dataset):
    one = evaluate(EvaluationTask(dataset, "labelled", "light"))
    two = evaluate(EvaluationTask(dataset, "labelled", "light", jobs=2))
    alone = score_series([one.series[0]], "light", "sensor")[0]
    assert np.array_equal(one.scores[0].surprise, alone.surprise)
    for a, b in zip(one.scores, two.scores, strict=True):
        assert np.array_equal(a.surprise, b.surprise)


class Breaks:
    """The light detector, which fails on a batch that holds a value above 100."""

    def __init__(self, spec, weights):
        self._light = build(DetectorSpec(tier="light", preset=spec.preset, channels=spec.channels))

    def __getattr__(self, name):
        return getattr(self._light, name)

    def step(self, state, points):
        if (points.values > 100).any():
            raise FloatingPointError("value too large")
        return self._light.step(state, points)


def test_one_series_that_breaks_a_detector_does_not_take_the_others_with_it(dataset, tmp_path, monkeypatch):
    for name in "ab":
        (tmp_path / f"{name}.csv").write_text((dataset / f"{name}.csv").read_text())
    (tmp_path / "z.csv").write_text("timestamp,value,label\n" + "".join(f"{i},{i},0\n" for i in range(300)))
    monkeypatch.setitem(detectors.REGISTRY, "breaks", Breaks)
    run = evaluate(EvaluationTask(tmp_path, "labelled", "breaks"))
    assert [series.name for series in run.series] == ["a", "b"]
    assert list(run.errors) == ["z"]
    assert "value too large" in run.errors["z"]


def test_a_page_shows_misses_and_false_alarms(dataset, tmp_path):
    run = evaluate(EvaluationTask(dataset, "labelled", "light"))
    run.scores[0].flag = np.zeros(1500, bool)
    run.scores[1].flag = run.scores[1].flag | (np.arange(1500) == 1450)
    summary = summarise(run)
    report.write(tmp_path / "r.html", run, summary, {"random": summarise(score_yardstick(run, "random"))})
    html = (tmp_path / "r.html").read_text()
    assert "Missed events: 1" in html
    assert "no column label" in html
    assert html.count('src="data:image/png;base64,') == html.count("<figure>") >= 5
    assert "://" not in html, "nothing is loaded (base64 has no colon)"
    assert "<h2>Calibration</h2>" in html
    assert "$" not in html


def test_nab_writes_what_its_official_scorer_reads(tmp_path):
    stamps = [f"2024-01-{1 + i // 24:02d} {i % 24:02d}:00:00" for i in range(480)]
    value = np.random.default_rng(1).normal(0, 1, 480)
    value[300] = 40.0
    (tmp_path / "data" / "real").mkdir(parents=True)
    rows = "".join(f"{stamp},{v}\n" for stamp, v in zip(stamps, value, strict=True))
    (tmp_path / "data" / "real" / "x.csv").write_text("timestamp,value\n" + rows)
    (tmp_path / "combined_windows.json").write_text(
        json.dumps({"real/x.csv": [[f"{stamps[295]}.000000", f"{stamps[310]}.000000"]]})
    )
    forewatch(tmp_path, "--layout", "nab", "--detector", "light", "--scores", tmp_path / "s", "--json")
    with (tmp_path / "s" / "results" / "light" / "real" / "light_x.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["timestamp", "value", "anomaly_score", "label"]
    assert [row["timestamp"] for row in rows] == stamps
    assert [i for i, row in enumerate(rows) if row["label"] == "1"] == list(range(295, 311))
    assert max(rows, key=lambda row: float(row["anomaly_score"]))["timestamp"] == stamps[300]


def test_compare_runs_both_or_reads_reports(dataset, tmp_path):
    forewatch(dataset, "--limit", 3, "--compare", "light", "random", "--report", tmp_path / "r.json")
    assert {path.name for path in tmp_path.glob("*.json")} == {"r-light.json", "r-random.json"}
    done = forewatch("--compare", tmp_path / "r-random.json", tmp_path / "r-light.json", "--json")
    pairs = {pair["metric"]: pair for pair in json.loads(done.stdout)["pairs"]}
    assert pairs["VUS-PR"]["wins_b"] == 3
    assert pairs["VUS-PR"]["p"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector", "ligth"], "did you mean light?"),
        (["--preset", "stocks"], "did you mean stock?"),
        (["--report", "r.pdf"], ".html"),
        (["--layout", "ucr"], "there are nab, labelled, skab"),
    ],
)
def test_mistakes_are_named(dataset, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        forewatch(dataset, *arguments)


def test_a_data_set_must_be_named():
    with pytest.raises(InputError, match="DATASET is missing: give the folder"):
        forewatch()


def test_open_data_loads(shared_data):
    counts = {
        "nab": ("nab", 58, 116),
        "tsb-ad-u-r": ("labelled", 41, 831),
        "ucr": ("labelled", 57, 57),
        "skab": ("skab", 35, 34),
    }
    for folder, (layout, files, windows) in counts.items():
        series = [entry.read() for entry in layouts.find(shared_data / folder, layout)]
        assert (len(series), sum(len(one.windows) for one in series)) == (files, windows)


@pytest.mark.parametrize("detector", ["light", "standard", "strong"])
def test_the_future_of_a_series_moves_no_past_score(dataset, detector):
    series = layouts.find(dataset, "labelled")[0].read()
    changed = replace(series, values=series.values.copy())
    changed.values[1000:] = 100.0 - 3.0 * changed.values[1000:]
    before, after = (score_series([one], detector, "sensor")[0] for one in (series, changed))
    assert np.array_equal(before.surprise[:1000], after.surprise[:1000])
    assert np.array_equal(before.flag[:1000], after.flag[:1000])
    assert np.array_equal(before.upper[:1000], after.upper[:1000], equal_nan=True)
    assert not np.array_equal(before.surprise[1000:], after.surprise[1000:])
