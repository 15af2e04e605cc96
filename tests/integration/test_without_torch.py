"""An installation without the extra ``train``: it scores, backfills and checks as any other, and says in one
line what training needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.test_cli_process import Shell

#: Python imports a module of this name by itself, in this process and in those that it starts.
HOOK = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "dask", "distributed"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
"""
CONFIG = """\
database: sqlite:///forewatch.db
http: null
streams:
  plant:
    source: {memory: {}}
    format: {csv: {series: sensor, time: ts, values: [temperature]}}
    detector: standard
"""
NEEDS = "training needs PyTorch and Dask, which are not installed: pip install 'forewatch[train]'"
DETECT = """
import numpy as np, pandas as pd
from pipeline import detect
values = np.sin(np.arange(600) / 9)
values[500] = 40
found = detect(pd.DataFrame({"v": values}, index=pd.date_range("2026-01-01", periods=600, freq="min", tz="UTC")))
print(bool(found["flag"].iloc[500]))
"""


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    made = Shell(tmp_path, new_interpreters=True)
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    paths = [
        str(tmp_path / "hook"),
        str(Path(__file__).resolve().parents[2]),
        os.environ.get("PYTHONPATH", ""),
    ]
    made.env["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    (tmp_path / "forewatch.yaml").write_text(CONFIG)
    return made


def python(shell: Shell, program: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=shell.folder,
        env=shell.env,
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_check_warns_and_the_stream_is_scored_all_the_same(shell):
    assert "No module named 'torch'" in python(shell, "import torch").stderr
    done = shell.run("check")
    assert (
        f"forewatch.yaml: warning: streams.plant.retraining: {NEEDS}; until then the stream is scored by the weights that it has"
        in (done.stderr.splitlines())
    )
    assert "forewatch.yaml: valid" in done.stderr
    assert [NEEDS in warning for warning in shell.json("check")["warnings"]] == [True]
    rows = (
        f"p1,2026-01-01T{i // 60:02}:{i % 60:02}:00Z,{400 if i == 500 else 20 + i % 7}" for i in range(600)
    )
    (shell.folder / "past.csv").write_text("\n".join(["sensor,ts,temperature", *rows]) + "\n")
    shell.run("backfill", "forewatch.yaml", "-s", "plant", "-i", "past.csv", "--scores", "scores.csv")
    assert len((shell.folder / "scores.csv").read_text().splitlines()) == 601
    found = shell.json("anomalies", "list")
    assert any("08:20" in anomaly["start"] for anomaly in found), found


def test_a_frame_is_scored(shell):
    assert python(shell, DETECT).stdout == "True\n"


def test_what_trains_says_what_is_missing(shell):
    shell.run("db", "upgrade")
    assert shell.run("train", "forewatch.yaml", "-s", "plant", "--wait", code=2).stderr.splitlines() == [
        NEEDS
    ]
    assert shell.json("jobs", "list") == []
    assert shell.run("worker", "--scheduler", "tcp://127.0.0.1:1", code=2).stderr.splitlines() == [NEEDS]
    queued = shell.run("train", "forewatch.yaml", "-s", "plant").stderr.splitlines()
    assert queued[-1] == f"a daemon of this installation cannot run it: {NEEDS}"


def test_a_forecaster_is_no_detector_here_either(shell):
    path = shell.folder / "forewatch.yaml"
    path.write_text(CONFIG.replace("standard", "lstm"))
    assert "it is a forecaster" in shell.run("check", code=2).stderr
