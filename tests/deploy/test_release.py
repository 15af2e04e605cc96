"""The release: workflows are valid, and the wheel has everything that a start needs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yaml"))
PACKAGES = ("forewatch", "pipeline", "detectors", "storage")


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_actionlint_accepts_the_workflow(workflow: Path):
    found = shutil.which("actionlint", path=f"{os.environ['PATH']}{os.pathsep}{Path.home() / 'go/bin'}")
    if found is None:
        pytest.skip(
            "actionlint is not installed (go install github.com/rhysd/actionlint/cmd/actionlint@v1.7.12)"
        )
    done = subprocess.run([found, str(workflow)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_the_workflow_follows_the_schema(workflow: Path):
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows"]
    done = subprocess.run([*command, str(workflow)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_workflow_uses_files_and_targets_that_exist():
    text = (ROOT / ".github/workflows/release.yaml").read_text(encoding="utf-8")
    for name in re.findall(r"(?:tools|deploy)/[\w./-]+", text):
        assert (ROOT / name).is_file(), name
    images = YAML(typ="safe").load(text)["jobs"]["images"]["strategy"]["matrix"]["include"]
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text(encoding="utf-8")
    arguments = set(re.findall(r"^ARG (\w+)", dockerfile, re.MULTILINE))
    for one in images:
        assert re.search(rf" AS {one['target']}$", dockerfile, re.MULTILINE)
    assert {"DEBIAN", "SOURCE_DATE_EPOCH", "VERSION", "REVISION"} <= arguments


def test_no_job_has_more_rights_than_it_needs():
    workflow = YAML(typ="safe").load((ROOT / ".github/workflows/release.yaml").read_text(encoding="utf-8"))
    assert workflow["permissions"] == {}
    for name, job in workflow["jobs"].items():
        assert ("write" in str(job["permissions"])) == (name != "test")
        assert job["timeout-minutes"] <= 90


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built and installed into a folder of its own; the dependencies are those of this Python."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(
                path, source / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules", "*.nb[ic]")
            )
        else:
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "--quiet"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", f"--wheel-dir={folder}"]
    subprocess.run([*pip, "wheel", *options, str(source)], check=True, capture_output=True, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(folder / "site")
    return folder / "site"


def forewatch(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    code = "import pipeline; print(pipeline.__file__); from pipeline.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
        timeout=800,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith(str(installed)), "the installed wheel runs, not the checkout"
    return done


def test_the_wheel_has_all_data_files(installed: Path):
    wanted = {
        path.relative_to(ROOT)
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in {".py", ".typed", ".safetensors", ".mako", ".html", ".css", ".json"}
        and not {"web", "static", "__pycache__"} & set(path.parts)
    }
    assert len(wanted) > 300
    assert sorted(str(path) for path in wanted if not (installed / path).is_file()) == []


def test_the_wheel_has_the_pages_of_the_dashboard(installed: Path):
    static = Path("pipeline/dashboard/static")
    if not (ROOT / static / "index.html").is_file():
        pytest.skip("the pages of the dashboard are not built (make dashboard)")
    files = {path.relative_to(ROOT) for path in (ROOT / static).rglob("*") if path.is_file()}
    missing = {path for path in files if not (installed / path).is_file() and path.name != ".built"}
    assert missing == set()
    assert not (installed / "pipeline/dashboard/web").exists()


def test_commands_of_the_wheel_run(installed: Path, tmp_path: Path):
    assert re.search(r"^\d+\.\d+", forewatch(installed, tmp_path, "version").stdout.splitlines()[1])
    forewatch(installed, tmp_path, "init", "forewatch.yaml")
    forewatch(installed, tmp_path, "db", "upgrade")
    assert (tmp_path / "forewatch.db").is_file()


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_demo_of_the_wheel_starts(installed: Path, tmp_path: Path):
    """Compile everything, as at a first start: ``pytest -m long tests/deploy/test_release.py``."""
    done = forewatch(installed, tmp_path, "demo", "--no-kafka", "--seconds", "1")
    assert "[demo] finished" in done.stdout
