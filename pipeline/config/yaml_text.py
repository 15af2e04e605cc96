"""YAML text of a tree."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import ScalarNode
from ruamel.yaml.representer import RoundTripRepresenter


class _Representer(RoundTripRepresenter):
    """Representer that writes null as a word; that of ruamel writes nothing."""


def _null(representer: _Representer, value: None) -> ScalarNode:
    found: ScalarNode = representer.represent_scalar("tag:yaml.org,2002:null", "null")
    return found


_Representer.add_representer(type(None), _null)


def yaml_of(tree: dict[str, Any]) -> str:
    """Return a tree as YAML, an empty one as an empty text."""
    if not tree:
        return ""
    yaml, text = YAML(), io.StringIO()
    yaml.Representer = _Representer
    yaml.dump(tree, text)
    return text.getvalue()
