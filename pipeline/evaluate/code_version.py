"""Version of the code of a result: the commit, and a digest of the sources.

The digest decides whether scores on disk are still valid.
"""

from __future__ import annotations

import subprocess
from functools import cache
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[2]
#: Files on which the scores depend. The code of the metrics may change without a new scoring.
_SCORING = (
    "detectors/**/*.py",
    "detectors/**/*.safetensors",
    "pipeline/config/**/*.py",
    "pipeline/core/**/*.py",
    "pipeline/decode/**/*.py",
    "pipeline/models/champion.py",
    "pipeline/scoring/**/*.py",
    "pipeline/services/anomaly_columns.py",
    "pipeline/services/dataframe.py",
    "pipeline/services/frame_times.py",
    "pipeline/services/scores_file.py",
    "pipeline/windows/**/*.py",
    "pipeline/evaluate/scoring_run.py",
    "pipeline/evaluate/layouts.py",
)


@cache
def commit() -> str:
    """Return the short commit of the checkout.

    ``+`` marks sources that differ from it. Without a checkout, return the released version.
    """
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "detectors", "pipeline") else "")
    except (OSError, subprocess.CalledProcessError):
        try:
            return version("forewatch")
        except PackageNotFoundError:
            return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=_ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


@cache
def code_digest() -> str:
    """Return a digest of the sources and weights on which scores depend."""
    digest = sha256()
    for path in sorted(path for pattern in _SCORING for path in _ROOT.glob(pattern)):
        digest.update(path.relative_to(_ROOT).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]
