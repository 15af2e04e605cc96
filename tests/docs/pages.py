"""Pages of the documentation, and what stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

ROOT = Path(__file__).resolve().parents[2]
ROOT_PAGES = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")

_FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```[ ]*$", re.MULTILINE | re.DOTALL)
_NOT_RUN = re.compile(r"<!-- not run:((?:(?!-->).)*)-->\s*\Z", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page. ``not_run`` is the reason why the test does not run it, None if it does."""

    language: str
    text: str
    line: int
    not_run: str | None


def pages() -> list[Path]:
    """Return all pages, those of the repository root first."""
    return [*(ROOT / name for name in ROOT_PAGES), *sorted((ROOT / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return the path of a page in the repository."""
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[Block]:
    """Return the fenced blocks of ``language``, in order."""
    return [block for block in _blocks(page.read_text(encoding="utf-8")) if block.language == language]


def _blocks(text: str) -> Iterator[Block]:
    for found in _FENCE.finditer(text):
        before = text[: found.start()]
        marked = _NOT_RUN.search(before)
        reason = marked[1].strip() if marked else None
        yield Block(found[2], dedent(found[3]), before.count("\n") + 1, reason)
