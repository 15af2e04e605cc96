"""The Compose file: valid, consistent, and its services run together with the files that it mounts."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipeline.config.loader import load_config
from pipeline.config.push import PushSourceConfig
from pipeline.dashboard.assets import is_built
from tests.deploy.compose_stack import COMPOSE, OPTIONAL, ROOT, load_services

SERVICES = load_services()
OWN = sorted(name for name, service in SERVICES.items() if "forewatch" in service["image"])
FOLDER = COMPOSE.parent


def test_the_file_follows_the_specification():
    pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec"]
    subprocess.run([*command, str(COMPOSE)], check=True, capture_output=True)


def test_compose_accepts_the_file():
    if shutil.which("docker-compose") is None:
        pytest.skip("docker-compose is not installed (Debian: apt-get install docker-compose)")
    command = ["docker-compose", "-f", str(COMPOSE), "--profile", "demo", "config", "--services"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COMPOSE_")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == sorted(SERVICES)


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_mounted_files_exist(name: str):
    for volume in SERVICES[name].get("volumes", ()):
        source = volume.partition(":")[0]
        assert not source.startswith(".") or (FOLDER / source).exists(), volume


def test_secrets_are_files_that_the_script_writes(tmp_path: Path):
    shutil.copy(FOLDER / "secrets.sh", tmp_path)
    for _ in range(2):
        subprocess.run(["sh", str(tmp_path / "secrets.sh")], check=True, capture_output=True)
    whole = YAML(typ="safe").load(COMPOSE.read_text(encoding="utf-8"))
    for secret in whole["secrets"].values():
        file = tmp_path / secret["file"]
        assert len(file.read_text()) == 48
        # Bind mounts keep the mode, and the users of the containers differ.
        assert file.stat().st_mode & 0o777 == 0o444
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    assert not re.search(r"password: *[^{ ]", COMPOSE.read_text(), re.IGNORECASE)


@pytest.mark.parametrize("name", OWN)
def test_our_containers_have_no_rights(name: str):
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_ports_are_published_on_loopback_only():
    ports = [port for service in SERVICES.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_stop_leaves_time_for_the_last_commit():
    for name in ("forewatch-1", "forewatch-2", "worker"):
        assert SERVICES[name]["stop_grace_period"] == "60s"


def test_a_created_key_does_not_make_serve_unhealthy():
    command = SERVICES["serve"]["healthcheck"]["test"][-1]
    assert "(200, 401)" in command
    compile(command, "healthcheck", "exec")


def test_images_have_a_version():
    for service in SERVICES.values():
        image = service["image"].partition(":-")[2].rstrip("}") or service["image"]
        assert image.rpartition(":")[2] not in ("", "latest"), image


def test_the_config_is_accepted():
    config = load_config(FOLDER / "forewatch.yaml")
    assert config.http is not None
    scrape = YAML(typ="safe").load((FOLDER / "prometheus.yaml").read_text())["scrape_configs"][0]
    assert scrape["job_name"].startswith("forewatch")
    for target in scrape["static_configs"][0]["targets"]:
        name, port = target.split(":")
        assert name in SERVICES
        assert int(port) == config.http.port


def test_pushed_data_reach_a_member_and_stay_on_its_own_volume():
    push = load_config(FOLDER / "forewatch.yaml").streams["metrics"].source.chosen
    assert isinstance(push, PushSourceConfig)
    volumes, ports = [], []
    for name in ("forewatch-1", "forewatch-2"):
        (volume,) = [one for one in SERVICES[name]["volumes"] if one.endswith(":/var/spool/forewatch")]
        volumes.append(volume)
        ports += [port.split(":")[1:] for port in SERVICES[name]["ports"]]
    assert len(set(volumes)) == 2
    assert [inner for _, inner in ports] == [str(push.port)] * 2
    assert push.spool is not None
    assert str(push.spool.parent) == "/var/spool/forewatch"
    sender = YAML(typ="safe").load((FOLDER / "prometheus.yaml").read_text())["remote_write"][0]
    assert sender["url"] == f"http://forewatch-1:{push.port}/push/metrics"
    assert sender["authorization"]["credentials_file"] == "/run/secrets/push_key"
    assert sender["queue_config"]["retry_on_http_429"] is True


def test_grafana_finds_the_dashboards():
    provider = YAML(typ="safe").load((FOLDER / "grafana/provisioning/dashboards/forewatch.yaml").read_text())
    mounts = dict(volume.split(":")[:2] for volume in SERVICES["grafana"]["volumes"])
    assert mounts["../grafana/dashboards"] == provider["providers"][0]["options"]["path"]
    source = YAML(typ="safe").load((FOLDER / "grafana/provisioning/datasources/prometheus.yaml").read_text())
    assert source["datasources"][0]["url"].removeprefix("http://").partition(":")[0] in SERVICES


def test_alerts_of_the_rules_reach_the_mail_catcher():
    prometheus = YAML(typ="safe").load((FOLDER / "prometheus.yaml").read_text())
    (target,) = prometheus["alerting"]["alertmanagers"][0]["static_configs"][0]["targets"]
    assert target.partition(":")[0] in SERVICES
    manager = YAML(typ="safe").load((FOLDER / "alertmanager.yaml").read_text())
    assert manager["global"]["smtp_smarthost"].partition(":")[0] in SERVICES
    names = [receiver["name"] for receiver in manager["receivers"]]
    assert manager["route"]["receiver"] in names


#: Programs that check a config, given its path.
CHECKS = {
    "prometheus.yaml": ("promtool", "check", "config"),
    "alertmanager.yaml": ("amtool", "check-config"),
    "nginx.conf": ("nginx", "-t", "-c"),
}


@pytest.mark.parametrize("file", CHECKS)
def test_other_configs_are_accepted(file: str, tmp_path: Path):
    rules = ROOT / "deploy/prometheus/forewatch.rules.yaml"
    text = (FOLDER / file).read_text().replace("/etc/prometheus/forewatch.rules.yaml", str(rules))
    if file == "nginx.conf":
        text = text.replace("/tmp/", f"{tmp_path}/")
    if shutil.which(CHECKS[file][0]) is None:
        pytest.skip(f"{CHECKS[file][0]} is not installed")
    (tmp_path / file).write_text(text)
    done = subprocess.run([*CHECKS[file], str(tmp_path / file)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.timeout(1500)
def test_the_services_work_together(tmp_path: Path):
    """Start what Compose starts, from installed programs: ``pytest -m long tests/deploy/test_compose.py``."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "ip", "mount"))):
        pytest.skip("needs root, unshare and ip: services get a network of their own")
    if not is_built():
        pytest.skip("the pages of the dashboard are not built (make dashboard)")
    pytest.importorskip("distributed")
    command = [
        "unshare",
        "--net",
        "--mount",
        sys.executable,
        "-m",
        "tests.deploy.compose_stack",
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=1400,
    )
    logs = "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in sorted(tmp_path.glob("*.log")))
    assert done.returncode == 0, done.stderr[-3000:] + logs
    seen = json.loads(done.stdout.splitlines()[-1])
    assert seen["anomalies"] >= 1
    assert seen["subjects"]
    assert seen["workers"] == 1
    assert seen["exit codes"]["forewatch-1"] == 0, logs
    assert seen["exit codes"]["worker"] == 0, logs
    if shutil.which(OPTIONAL["prometheus"][0]):
        assert seen["rules"] > 10
        assert seen["unhealthy rules"] == []
    if shutil.which(OPTIONAL["alertmanager"][0]):
        assert any("ForewatchTest" in subject for subject in seen["alerts of rules"])
