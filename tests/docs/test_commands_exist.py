"""Every ``forewatch`` command in the documentation exists, with its options, also where it is not run."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from tests.docs.pages import blocks, name_of, pages

CURRENT = [page for page in pages() if not name_of(page).startswith(("docs/lab-notes/", "CHANGELOG.md"))]


@cache
def root() -> Any:
    import typer.main

    from pipeline.cli.app import app

    return typer.main.get_command(app)


def problems(command: str) -> Iterator[str]:
    """Yield each word of a command line that the command line interface does not know."""
    words = shlex.split(command, comments=True)[1:]
    found = root()
    while words and hasattr(found, "commands"):
        name = words.pop(0)
        if name.startswith("-"):
            return  # an option of forewatch itself
        if name not in found.commands:
            yield f"{command}: no command {name}"
            return
        found = found.commands[name]
    known = {option for one in found.params for option in (*one.opts, *one.secondary_opts)} | {"--help", "-h"}
    for word in words:
        option = word.partition("=")[0]
        if option.startswith("-") and option not in known:
            yield f"{command}: no option {option}"


def commands_of_blocks(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        for found in re.findall(r"(?:^|\$\(|[;&|] *|run )(forewatch [^|;&)>]*)", line.strip()):
            yield found.strip()


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_commands_of_blocks_exist(page):
    commands = [c for block in blocks(page, "sh") for c in commands_of_blocks(block.text)]
    assert [problem for command in commands for problem in problems(command)] == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_commands_in_sentences_exist(page):
    found = re.findall(r"`(forewatch [a-z][^`\n]*)`", page.read_text(encoding="utf-8"))
    assert [problem for command in found for problem in problems(command.replace("…", ""))] == []
