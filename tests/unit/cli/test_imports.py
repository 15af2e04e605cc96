"""Commands that look into the database import little: what takes long to import is listed, not timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CONFIG = """\
database: sqlite:///forewatch.db
streams: {plant: {source: {memory: {}}, format: {csv: {series: s, time: t, values: v}}}}
"""
#: Modules that such a command must not import. Typer imports pydantic itself; the models of the config
#: (pipeline.config.schema) take twice as long.
FORBIDDEN = {
    "dask",
    "detectors",
    "distributed",
    "fastapi",
    "httpx",
    "kafka",
    "matplotlib",
    "numba",
    "numpy",
    "pandas",
    "pipeline.config.schema",
    "psycopg",
    "pyarrow",
    "scipy",
    "structlog",
    "torch",
}
COMMANDS = (
    ("alerts", "list"),
    ("alerts", "show", "0123"),
    ("alerts", "ack", "0123"),
    ("anomalies", "list"),
    ("deadletters", "list"),
    ("deliveries", "list"),
    ("faults", "list"),
    ("keys", "list"),
    ("models", "list"),
    ("jobs", "list"),
    ("audit",),
)
PROGRAM = """\
import sys
from pipeline.cli import main
try:
    main()
finally:
    print("imported", *sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plant")
    (folder / "forewatch.yaml").write_text(CONFIG)
    run_command(folder, "db", "upgrade")
    return folder


def run_command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-c", PROGRAM, *words]
    return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_command_that_looks_into_the_database_imports_little(folder, words):
    done = run_command(folder, *words)
    assert "imported" in done.stdout, done.stderr
    assert "Error" not in done.stderr
    imported = set(done.stdout.rpartition("imported")[2].split())
    assert "sqlalchemy" in imported
    assert imported & FORBIDDEN == set()


def test_a_stream_that_the_config_lacks_is_named(folder):
    done = run_command(folder, "alerts", "list", "--stream", "plnt")
    assert "the config has no stream 'plnt'" in done.stderr
    assert "plant" in done.stderr
