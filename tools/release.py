"""Checks and notes of a release.

python tools/release.py check v1.2.3     the tag is the version of the project, and the changelog has it
python tools/release.py notes v1.2.3     print the section of the changelog
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def notes_of(version: str, changelog: str) -> str:
    """Return the text below the heading of a version.

    Raises:
        SystemExit: the changelog has no such heading, or nothing below it.
    """
    sections = re.split(r"^## \[([^\]]+)\].*$", changelog, flags=re.MULTILINE)
    found = dict(zip(sections[1::2], sections[2::2], strict=True)).get(version, "").strip()
    if not found:
        sys.exit(f"CHANGELOG.md has no section [{version}]: rename Unreleased, and add the date")
    return found + "\n"


def version_of(tag: str, project: dict) -> str:
    """Return the version that a tag names.

    Raises:
        SystemExit: the project has another version.
    """
    version = tag.removeprefix("v")
    if tag == version or version != project["version"]:
        sys.exit(f"the tag {tag} is not v{project['version']}, the version in pyproject.toml")
    return version


def main(command: str, tag: str) -> None:
    """Run a command."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    notes = notes_of(version_of(tag, project), (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"))
    if command == "notes":
        print(notes, end="")
    elif command != "check":
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
