"""``docs/reference/commands.md``: every command with its options, made from the commands themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer

from pipeline.cli.app import app
from pipeline.cli.exit_codes import EXITS

_HEAD = """# Commands

Generated from `pipeline/cli/` by `make docs`; do not edit.

Data go to stdout, everything else (notes, progress, logs) to stderr. Lists and single things are tables for people; `--json` gives the same to programs.
Times are ISO 8601 in UTC; options that take a time also take how long ago, such as `2h` or `7d`. On a terminal logs are text, otherwise JSON lines.

| exit code | meaning |
|---|---|
"""


def commands_markdown() -> str:
    """The text of ``docs/reference/commands.md``."""
    exits = "\n".join(f"| {code} | {meaning} |" for code, meaning in EXITS.items())
    return _HEAD + exits + "\n" + "".join(_sections("forewatch", typer.main.get_command(app)))


def _sections(path: str, command: Any) -> Iterator[str]:
    inner = getattr(command, "commands", {})
    if not inner or path == "forewatch":
        options = [
            param for param in command.params if param.name not in ("install_completion", "show_completion")
        ]
        rows = "".join(f"| `{_name(param)}` | {param.help}{_extras(param)} |\n" for param in options)
        table = f"\n| option | meaning |\n|---|---|\n{rows}" if rows else ""
        yield f"\n## {path}\n\n{_prose(command.help)}\n{table}"
    for name, one in inner.items():
        yield from _sections(f"{path} {name}", one)


def _prose(text: str) -> str:
    return " ".join(text.split())


def _name(param: Any) -> str:
    if param.param_type_name == "argument":
        return param.metavar + ("..." if param.nargs == -1 else "")
    value = "" if param.is_flag else f" {param.metavar or param.name.upper()}"
    return ", ".join(sorted(param.opts, key=len)) + value


def _extras(param: Any) -> str:
    extras = []
    if param.type_descriptor.is_choice:
        extras.append("one of " + ", ".join(str(choice.value) for choice in param.type_descriptor.choices))
    if param.required:
        extras.append("required")
    elif param.default not in (None, False) and not callable(param.default):
        extras.append(f"default `{getattr(param.default, 'value', param.default)}`")
    if getattr(param, "envvar", None):
        extras.append(f"or environment variable `{param.envvar}`")
    return f" ({'; '.join(extras)})" if extras else ""
