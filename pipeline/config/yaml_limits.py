"""YAML within limits: how deep it nests, and how much its aliases repeat."""

from __future__ import annotations

import re
from typing import Any

from ruamel.yaml import YAML

MAX_DEPTH = 100
MAX_VALUES = 100_000
_BRACKET = re.compile(r"[\[\]{}]")


class YamlTooLarge(ValueError):
    """The text is no config that a person wrote."""


def load_limited(yaml: YAML, text: str) -> Any:
    """Return what a text holds. Raises YamlTooLarge and the errors of ``yaml``."""
    _require_shallow(text)
    tree = yaml.load(text)
    _require_few_values(tree)
    return tree


def _require_shallow(text: str) -> None:
    """Raise YamlTooLarge if brackets nest too deeply.

    The time that a parser takes grows with the square of their depth.
    """
    depth = 0
    for one in _BRACKET.finditer(text):
        depth = depth + 1 if one[0] in "[{" else max(0, depth - 1)
        if depth > MAX_DEPTH:
            raise YamlTooLarge(f"more than {MAX_DEPTH} levels of brackets")


def _require_few_values(tree: Any) -> None:
    """Raise YamlTooLarge if a tree has too many values where each alias is written out."""
    if _count_values(tree, {}) > MAX_VALUES:
        raise YamlTooLarge(f"more than {MAX_VALUES} values where each alias is written out")


def _count_values(node: Any, known: dict[int, int]) -> int:
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in known:
        known[id(node)] = 0  # an alias of itself counts once
        parts = [*node.keys(), *node.values()] if isinstance(node, dict) else node
        known[id(node)] = 1 + sum(_count_values(part, known) for part in parts)
    return known[id(node)]
