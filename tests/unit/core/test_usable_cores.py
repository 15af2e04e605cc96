"""The number of usable cores is the smallest of affinity and the limits of the control groups."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.core.usable_cores import usable_cores


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))


def limited(folder: Path, **limits: str) -> tuple[Path, Path]:
    """Control groups ``/`` and ``/a/b`` with these limits; this process is in ``/a/b``."""
    (folder / "groups/a/b").mkdir(parents=True)
    for name, limit in limits.items():
        (folder / "groups" / {"root": ".", "a": "a", "b": "a/b"}[name] / "cpu.max").write_text(f"{limit}\n")
    own = folder / "own"
    own.write_text("0::/a/b\n")
    return folder / "groups", own


@pytest.mark.parametrize(
    ("limits", "cores"),
    [
        ({}, 8),
        ({"root": "max 100000"}, 8),
        ({"b": "250000 100000"}, 2),
        ({"a": "300000 100000", "b": "max 100000"}, 3),
        ({"root": "100000 100000", "b": "400000 100000"}, 1),
        ({"b": "50000 100000"}, 1),
        ({"b": "nonsense"}, 8),
    ],
)
def test_limits_of_control_groups(tmp_path: Path, limits: dict[str, str], cores: int):
    assert usable_cores(*limited(tmp_path, **limits)) == cores


def test_in_a_container_the_root_counts(tmp_path: Path):
    groups, own = limited(tmp_path, root="200000 100000")
    own.write_text("0::/system.slice/of-the-host\n")
    assert usable_cores(groups, own) == 2


def test_without_control_groups(tmp_path: Path):
    assert usable_cores(tmp_path / "none", tmp_path / "no file") == 8
