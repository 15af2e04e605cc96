"""Reading of a YAML file into a ``Config``; each error has its line, its key and a remedy."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedSeq
from ruamel.yaml.constructor import RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.config.clear_secrets import clear_secrets
from pipeline.config.deprecated_keys import RenamedKey, rename_deprecated_keys
from pipeline.config.diagnostics import Key, KeyPath, Problem, explain
from pipeline.config.schema import Config
from pipeline.config.validation import broken_rules
from pipeline.core.errors import ConfigError
from pipeline.core.secret_text import hide_in_urls, hide_secrets

log = structlog.get_logger(__name__)


class ConfigFileError(ConfigError):
    """All errors of a config file; ``problems`` holds them for programs."""

    def __init__(self, file: Path, problems: list[Problem]) -> None:
        self.file = file
        self.problems = problems
        super().__init__("\n".join(problem.show(file) for problem in problems))


def load_config(path: Path | str) -> Config:
    """Read and check a config file.

    Raises:
        ConfigFileError: The file has errors; all of them are listed in the order of the lines.
    """
    file = Path(path)
    tree = _parse(file, _read(file))
    plain = _plain(tree, {})
    renamed = rename_deprecated_keys(plain)
    lines = _Lines(tree, renamed)
    for key in renamed:
        log.warning(
            "a configuration key has a new name; the old one is read in this version only",
            file=str(file),
            line=lines.of(key.old_path),
            key=".".join(map(str, key.old_path)),
            new_name=key.new_name,
        )
    secrets = list(clear_secrets(plain))
    try:
        config = Config.model_validate(plain, context={"file": file.absolute()})
    except ValidationError as error:
        found = explain(error, plain)
    else:
        found = broken_rules(config)
        if not found and not secrets:
            return config
    named = {secret.path for secret in secrets}
    found = [*secrets, *(finding for finding in found if finding.path not in named)]
    problems = [Problem(lines.of(path), path, hide_in_urls(what), remedy) for path, what, remedy in found]
    raise ConfigFileError(file, sorted(problems, key=lambda problem: problem.line))


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


def _parse(file: Path, text: str) -> dict[Key, Any]:
    yaml = YAML(typ="rt")
    yaml.Constructor = _Constructor
    try:
        tree = yaml.load(text)
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


def _yaml_remedy(what: str) -> str:
    if "'\\t'" in what:
        return "indent with spaces"
    if "duplicate key" in what:
        return "remove one of the two"
    if "undefined alias" in what:
        return "define it with & before it is used with *, or put the text in quotes"
    return "look at the indentation, colons, brackets and quotes here and on the line before"


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


class _Lines:
    """Line numbers (from 1) of the keys of a parsed file."""

    def __init__(self, tree: dict[Key, Any], renamed: list[RenamedKey]) -> None:
        self._tree = tree
        self._renamed = renamed

    def of(self, path: KeyPath) -> int:
        """Return the line of the deepest key of ``path`` in the file; 0 for the whole file."""
        node: Any = self._tree
        line = 0
        for key in self._as_written(path):
            # The key is missing here, or merged from an anchor.
            with suppress(AttributeError, KeyError, TypeError):
                line = (node.lc.item(key) if isinstance(node, CommentedSeq) else node.lc.key(key))[0] + 1
            try:
                node = node[key]
            except (KeyError, IndexError, TypeError):
                break
        return line

    def _as_written(self, path: KeyPath) -> KeyPath:
        """Return ``path`` with the old names that the file has for renamed keys."""
        for key in self._renamed:
            if path[: len(key.new_path)] == key.new_path:
                path = (*key.old_path, *path[len(key.new_path) :])
        return path
