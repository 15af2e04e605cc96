"""Fixtures that every suite shares. Servers are started by the run that needs them, on free ports, and stopped by their own process id."""

from __future__ import annotations

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The open data sets beside the checkout; tests that need them are skipped where they are not."""
    path = ROOT.parent / "shared" / "data"
    if not path.is_dir():
        pytest.skip("the open data sets (../shared/data) are not on this machine")
    return path
