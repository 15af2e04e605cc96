"""The commands of the page about backups, for tests that run them."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from sqlalchemy import make_url

from tests.support.postgres_server import tools_path

_PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "back-up-and-restore.md"


def page_commands(name: str) -> list[str]:
    """Return the arguments of each ``forewatch db NAME`` of the page, without duplicates."""
    lines = re.findall(rf"^\s*forewatch (db {name} .*)$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert lines, name
    return list(dict.fromkeys(lines))


def page_dump(url: str, file: Path) -> list[str]:
    """Return the pg_dump of the page for containers, for another database and file."""
    (options,) = re.findall(
        r"^\s*pg_dump (.*) --file=\S+ postgresql://\S+$", _PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    address = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
    program = shutil.which("pg_dump", path=tools_path())
    assert program is not None
    return [program, *shlex.split(options), f"--file={file}", address]
