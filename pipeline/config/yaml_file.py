"""Reading of a YAML file into a tree whose keys know their lines."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.config.problems import Key, Problem
from pipeline.config.yaml_limits import YamlTooLarge, load_limited
from pipeline.core.errors import ConfigError
from pipeline.core.secret_text import hide_secrets


class ConfigFileError(ConfigError):
    """All errors of a config file; ``problems`` holds them for programs."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__("\n".join(problem.show(file) for problem in problems))


def read_tree(file: Path) -> dict[Key, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        ConfigFileError: The file cannot be read, or it is no YAML mapping.
    """
    return parse_tree(file, _read(file))


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        what, remedy = "no such file", "`forewatch init` writes one to begin with"
    except UnicodeDecodeError as error:
        what, remedy = f"byte {error.start} is not UTF-8", "save the file as UTF-8"
    except OSError as error:
        what, remedy = f"cannot be read: {error.strerror}", "give the path of a readable YAML file"
    raise ConfigFileError(file, [Problem(0, (), what, remedy)])


class _Constructor(RoundTripConstructor):
    """Constructor that keeps times as text, because the models parse them."""


_Constructor.add_constructor("tag:yaml.org,2002:timestamp", _Constructor.construct_yaml_str)


def parse_tree(file: Path, text: str) -> dict[Key, Any]:
    """Return the mapping that a YAML text holds; ``file`` is its name in errors.

    Raises:
        ConfigFileError: The text is no YAML mapping.
    """
    try:
        tree = _load(text)
    except MarkedYAMLError as error:
        # A missing colon is detected at the next token. The position of the key is more helpful.
        beginning = error.context == "while scanning a simple key"
        mark = (error.context_mark if beginning else None) or error.problem_mark or error.context_mark
        what = " ".join(part for part in (error.context, error.problem) if part)
        # A duplicate key is reported with both values.
        what = hide_secrets(re.sub(r"(duplicate key .*?) with value.*", r"\1", what, flags=re.DOTALL))
        raise ConfigFileError(
            file, [Problem(mark.line + 1 if mark else 0, (), f"not YAML: {what}", _yaml_remedy(what))]
        ) from None
    except YAMLError as error:
        raise ConfigFileError(
            file, [Problem(0, (), f"not YAML: {hide_secrets(str(error))}", "remove what is not text")]
        ) from None
    except (YamlTooLarge, RecursionError) as error:
        what = str(error) if isinstance(error, YamlTooLarge) else "nested too deeply"
        raise ConfigFileError(file, [Problem(0, (), what, "a config needs some ten levels")]) from None
    # ruamel accepts a list as a key, !!int before a word, or -_ as a number.
    except (IndexError, TypeError, ValueError) as error:
        raise ConfigFileError(
            file,
            [
                Problem(
                    0,
                    (),
                    f"not a config: {hide_secrets(str(error))}",
                    "write keys as plain text, and no !tags",
                )
            ],
        ) from None
    if tree is None:
        raise ConfigFileError(
            file, [Problem(0, (), "the file is empty", "`forewatch init` writes one to begin with")]
        )
    if not isinstance(tree, dict):
        remedy = "begin with keys such as `streams:`; see `forewatch init`"
        kind = "a list" if isinstance(tree, list) else "a single value"
        raise ConfigFileError(file, [Problem(1, (), f"must be a mapping of keys, not {kind}", remedy)])
    return tree


def _load(text: str) -> Any:
    yaml = YAML(typ="rt")
    yaml.Constructor = _Constructor
    return load_limited(yaml, text)


def _yaml_remedy(what: str) -> str:
    if "'\\t'" in what:
        return "indent with spaces"
    if "duplicate key" in what:
        return "remove one of the two"
    if "undefined alias" in what:
        return "define it with & before it is used with *, or put the text in quotes"
    return "look at the indentation, colons, brackets and quotes here and on the line before"


def plain_values(tree: dict[Key, Any]) -> dict[Any, Any]:
    """Return a parsed file as plain dicts, lists and scalars."""
    return dict(_plain(tree, {}))


def _plain(node: Any, seen: dict[int, Any]) -> Any:
    """Return the tree as plain dicts, lists and scalars.

    An alias stays one object, even when it contains itself.
    """
    if id(node) in seen:
        return seen[id(node)]
    if isinstance(node, dict):
        mapping: dict[Any, Any] = {}
        seen[id(node)] = mapping
        mapping.update((_plain(key, seen), _plain(value, seen)) for key, value in node.items())
        return mapping
    if isinstance(node, list):
        items: list[Any] = []
        seen[id(node)] = items
        items.extend(_plain(item, seen) for item in node)
        return items
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return node
