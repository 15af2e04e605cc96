"""Rules of the tree that no linter knows.

The order of the packages is checked by import-linter (`make lint`).
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OURS = ("forewatch", "pipeline", "detectors", "storage")


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def test_product_code_does_not_import_tests_or_benchmarks() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for package in OURS
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("tests", "benchmarks")
    ]
    assert not wrong


def test_a_daemon_scores_without_what_is_slow_to_import() -> None:
    """torch alone is longer than the rest of a start together, and 400 MB; it is for training."""
    code = (
        "import sys, pipeline.daemon.daemon; from detectors import DetectorSpec, build; from detectors.composite.warmup import compile_kernels; compile_kernels(build(DetectorSpec('standard'))); "
        "sys.exit(', '.join({'torch', 'pandas', 'river', 'distributed', 'matplotlib', 'exchange_calendars'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_pickle_in_product_code() -> None:
    """Models, snapshots and state are read from places that others can write to."""
    wrong = [
        str(path.relative_to(ROOT))
        for package in OURS
        for path in (ROOT / package).rglob("*.py")
        for name in imported(path)
        if name.split(".")[0] in ("pickle", "cloudpickle", "joblib", "dill", "marshal", "shelve")
    ]
    assert not wrong


def test_no_file_names_an_index_or_this_machine() -> None:
    """A lock must install from whatever index its user has; a path of ours means nothing elsewhere."""
    hosts = [
        "pypi" + ".org",
        "pythonhosted" + ".org",
        "registry.npmjs" + ".org",
        "repo.maven" + ".apache",
        "crates" + ".io",
    ]
    found = subprocess.run(
        [
            "git",
            "grep",
            "-InF",
            *[word for host in [*hosts, "/work" + "/main", "/tmp" + "/fw"] for word in ("-e", host)],
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode in (0, 1), found.stderr
    assert not found.stdout
