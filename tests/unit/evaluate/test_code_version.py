"""The digest that decides whether stored scores are still valid."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pipeline.evaluate import code_version

#: Packages that are loaded for scoring without an influence on scores.
WITHOUT_INFLUENCE = ("pipeline/evaluate/", "pipeline/models/", "pipeline/sources/", "storage/")
SCORE = """
import sys
import numpy as np, pandas as pd
from pipeline.services.dataframe import detect
import pipeline.evaluate.scoring_run
frame = pd.DataFrame({"ts": pd.date_range("2026-01-01", periods=400, freq="min"), "a": np.sin(np.arange(400.0))})
detect(frame, time="ts", values="a", detector="light")
print("\\n".join(m.__file__ for m in list(sys.modules.values()) if getattr(m, "__file__", None)))
"""


def test_the_digest_covers_every_source_that_scoring_runs() -> None:
    root = code_version._ROOT
    made = subprocess.run([sys.executable, "-c", SCORE], cwd=root, check=True, capture_output=True, text=True)
    loaded = {Path(line) for line in made.stdout.splitlines()}
    ours = {path.relative_to(root).as_posix() for path in loaded if path.is_relative_to(root)}
    covered = {
        path.relative_to(root).as_posix() for pattern in code_version._SCORING for path in root.glob(pattern)
    }
    missing = {path for path in ours - covered if path.startswith(("detectors/", "pipeline/"))}
    assert not {path for path in missing if not path.startswith(WITHOUT_INFLUENCE)} - {
        "pipeline/__init__.py",
        "pipeline/services/__init__.py",
    }, "add these files to code_version._SCORING: detect() runs them"
    assert "pipeline/scoring/stream_scorer.py" in covered
    assert "pipeline/windows/event_time.py" in covered
