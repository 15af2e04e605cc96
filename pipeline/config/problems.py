"""Errors of a config file: where, what and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

Key = str | int
KeyPath = tuple[Key, ...]


class Finding(NamedTuple):
    """An error of a config: key, problem and remedy."""

    path: KeyPath
    what: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding with its line in the file (0: the file as a whole)."""

    line: int
    path: KeyPath
    what: str
    remedy: str

    @property
    def key(self) -> str:
        """``streams.plant.source.kafka.topics[0]``"""
        text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in self.path)
        return text.removeprefix(".")

    def as_dict(self) -> dict[str, str | int]:
        """Return plain JSON."""
        return {"line": self.line, "key": self.key, "what": self.what, "remedy": self.remedy}

    def show(self, file: Path) -> str:
        place = f"{file}:{self.line}" if self.line else str(file)
        return ": ".join(part for part in (place, self.key, f"{self.what} — {self.remedy}") if part)
