"""Number of cores that a process may use: affinity and limits of control groups."""

from __future__ import annotations

import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")


def usable_cores(cgroups: Path = CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return the whole cores that this process may use, at least 1.

    Args:
        cgroups: Root of the control groups (version 2).
        own: File that names the control group of this process.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    return max(1, min([cores, *_limits(cgroups, own)]))


def _limits(cgroups: Path, own: Path) -> list[int]:
    """Return the whole cores of each limit, from our group up to the root."""
    try:
        line = next(line for line in own.read_text().splitlines() if line.startswith("0::"))
    except (OSError, StopIteration):
        return []
    group = cgroups / line.removeprefix("0::/")
    # In a container the path can be that of the host, which is not visible; the root is the container's own.
    folders = [group, *group.parents] if group.is_dir() else [cgroups]
    found = (_limit(folder / "cpu.max") for folder in folders if folder.is_relative_to(cgroups))
    return [cores for cores in found if cores is not None]


def _limit(file: Path) -> int | None:
    """Return the whole cores of a limit such as ``200000 100000``, None without one."""
    try:
        quota, period = file.read_text().split()
        return int(quota) // int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None
