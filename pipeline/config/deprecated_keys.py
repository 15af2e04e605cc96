"""Old names of configuration keys, read for one more version and reported.

A renamed key keeps its meaning: a file with the old name is read as if it had the new one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

KeyPath = tuple[str | int, ...]

#: Path of an old key ("*" stands for any name) → the new name of its last part.
DEPRECATED_KEYS: Final[dict[tuple[str, ...], str]] = {
    ("streams", "*", "retraining", "guard"): "post_promotion_check",
    ("streams", "*", "history"): "warm_start",
}


@dataclass(frozen=True, slots=True)
class RenamedKey:
    """An old key found in a file: its path there, and the new name of its last part."""

    old_path: KeyPath
    new_name: str

    @property
    def new_path(self) -> KeyPath:
        return (*self.old_path[:-1], self.new_name)


def rename_deprecated_keys(tree: dict[Any, Any]) -> list[RenamedKey]:
    """Rename the old keys of a parsed file in place.

    A key that is given under both names keeps both, so that the check for unknown keys reports the old one.
    """
    found = []
    for pattern, new_name in DEPRECATED_KEYS.items():
        for path, parent in _matching_parents(tree, pattern[:-1]):
            if pattern[-1] in parent and new_name not in parent:
                renamed = {new_name if key == pattern[-1] else key: value for key, value in parent.items()}
                parent.clear()
                parent.update(renamed)
                found.append(RenamedKey((*path, pattern[-1]), new_name))
    return found


def _matching_parents(
    node: Any, pattern: tuple[str, ...], path: KeyPath = ()
) -> Iterator[tuple[KeyPath, dict[Any, Any]]]:
    """Mappings at ``pattern`` below ``node``, with their paths."""
    if not isinstance(node, dict):
        return
    if not pattern:
        yield path, node
        return
    for key in list(node) if pattern[0] == "*" else [pattern[0]]:
        if key in node:
            yield from _matching_parents(node[key], pattern[1:], (*path, key))
