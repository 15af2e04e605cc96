"""Reading of a YAML file into a ``Config``; each error has its line, its key and a remedy."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog
from pydantic import ValidationError
from ruamel.yaml.comments import CommentedSeq

from pipeline.config.clear_secrets import clear_secrets
from pipeline.config.deprecated_keys import RenamedKey, rename_deprecated_keys
from pipeline.config.diagnostics import explain
from pipeline.config.problems import Key, KeyPath, Problem
from pipeline.config.schema import Config
from pipeline.config.validation import broken_rules
from pipeline.config.yaml_file import ConfigFileError, parse_tree, plain_values, read_tree
from pipeline.core.secret_text import hide_in_urls

log = structlog.get_logger(__name__)


def load_config(path: Path | str) -> Config:
    """Read and check a config file.

    Raises:
        ConfigFileError: The file has errors; all of them are listed in the order of the lines.
    """
    file = Path(path)
    return _config_of(file, read_tree(file))


def config_of_text(file: Path, text: str) -> Config:
    """Check a config that is no file yet.

    Args:
        file: Where it will be: paths in it are relative to its folder.
        text: The YAML.

    Raises:
        ConfigFileError: The text has errors; all of them are listed in the order of the lines.
    """
    return _config_of(file, parse_tree(file, text))


def _config_of(file: Path, tree: dict[Key, Any]) -> Config:
    plain = plain_values(tree)
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
