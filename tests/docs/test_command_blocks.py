"""Every ``sh`` block of README, tutorials and how-to guides runs, page by page and in order.

A block that cannot run in a test stands below a comment ``<!-- not run: reason -->``.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Block, blocks, name_of, pages

CHECKED = [
    page for page in pages() if name_of(page).startswith(("README.md", "docs/tutorial/", "docs/how-to/"))
]
#: Broker that the pages name.
DOCUMENTED_BROKER = "localhost:9092"
#: Blocks without a run; a higher number needs a reason here as well as on the page. Of these, 2 are of a
#: backfill on a cluster: they install a package and need PostgreSQL, or several machines. Their commands run
#: in tests/integration/test_cluster_backfill.py and tests/faults/test_cluster_kills.py. One is of an encrypted
#: cluster (tests/integration/test_cluster_tls.py), and one needs a database and a Prometheus
#: (tests/integration/test_init_remote.py).
MAX_NOT_RUN = 31

_SHIM = """#!/bin/sh
exec {python} -c 'from pipeline.cli import main; main()' "$@"
"""


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks(page, "sh") if block.not_run is None]


@pytest.fixture(scope="module")
def environment(tmp_path_factory) -> dict[str, str]:
    """Variables with ``forewatch`` and ``python`` of this test run on the path."""
    folder = tmp_path_factory.mktemp("bin")
    for name, text in {
        "forewatch": _SHIM.format(python=sys.executable),
        "python": f'#!/bin/sh\nexec {sys.executable} "$@"\n',
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(stat.S_IRWXU)
    cleared = {key: value for key, value in os.environ.items() if not key.startswith("FOREWATCH_")}
    return cleared | {
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "NO_COLOR": "1",
        "COLUMNS": "200",
    }


def run_page(page: Path, folder: Path, environment: dict[str, str], broker: str | None) -> None:
    """Run the blocks of a page in one folder. Each is a script that stops at the first failure."""
    for block in runnable(page):
        script = block.text.replace(DOCUMENTED_BROKER, broker) if broker else block.text
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            text=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=240,
            check=False,
        )
        where = f"{name_of(page)}, line {block.line}:\n{script}\n{done.stdout}"
        assert done.returncode == 0, f"exit code {done.returncode} in {where}"
        assert "Traceback (most recent call last)" not in done.stdout, where


def check_anomalies(folder: Path) -> None:
    """A tutorial with a database finds the fault that it puts into its data."""
    for database in folder.glob("*.db"):
        with closing(sqlite3.connect(database)) as connection:
            (count,) = connection.execute("SELECT count(*) FROM anomalies").fetchone()
        assert count > 0, database.name


def needs_kafka(page: Path) -> bool:
    return any(DOCUMENTED_BROKER in block.text for block in runnable(page))


@pytest.mark.parametrize("page", [p for p in CHECKED if runnable(p) and not needs_kafka(p)], ids=name_of)
def test_the_blocks_of_a_page_run(page, tmp_path, environment):
    run_page(page, tmp_path, environment, None)
    check_anomalies(tmp_path)


@pytest.mark.kafka
@pytest.mark.parametrize("page", [p for p in CHECKED if needs_kafka(p)], ids=name_of)
def test_the_blocks_of_a_page_run_on_a_broker(page, tmp_path, environment, kafka_broker):
    run_page(page, tmp_path, environment, kafka_broker)
    check_anomalies(tmp_path)


def test_every_block_that_is_not_run_has_a_reason():
    skipped = [
        (name_of(page), block)
        for page in CHECKED
        for block in blocks(page, "sh")
        if block.not_run is not None
    ]
    assert [f"{name}:{block.line}" for name, block in skipped if len(block.not_run or "") < 10] == []
    assert len(skipped) <= MAX_NOT_RUN


def test_every_tutorial_has_blocks_that_run():
    tutorials = [page for page in CHECKED if "/tutorial/" in name_of(page)]
    assert len(tutorials) == 5
    without = [name_of(p) for p in tutorials if not runnable(p) and not blocks(p, "python")]
    assert without == []


def test_the_python_blocks_of_the_notebook_page_run(tmp_path, environment):
    page = ROOT / "docs" / "tutorial" / "notebook.md"
    program = "\n".join(block.text for block in blocks(page, "python"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
