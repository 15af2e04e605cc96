"""Run the services of ``deploy/compose/compose.yaml`` from installed programs, with its files.

``python -m tests.deploy.compose_stack FOLDER`` expects a network and mount namespace of its own, as
root (``tests/deploy/test_compose.py`` makes one). Names of services resolve to this namespace, files of
``volumes`` and ``secrets`` are mounted where the containers have them, and commands are those of the
file. Kafka, PostgreSQL and the mail catcher are those of the other tests. The result is printed as JSON.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from ruamel.yaml import YAML

from tests.support.kafka_server import QUICK, FaultyBroker
from tests.support.mail_server import MailServer
from tests.support.postgres_server import LocalPostgres

ROOT = Path(__file__).resolve().parents[2]
COMPOSE = ROOT / "deploy" / "compose" / "compose.yaml"
#: Address of the containers. Loopback is not a network that alerts may be sent to.
ADDRESS = "10.231.0.1"
#: The broker and the database of the tests listen on loopback only.
ON_LOOPBACK = ("kafka", "postgres")
#: Programs that a machine may lack; their services are left out then.
OPTIONAL = {
    "proxy": ("nginx", "-g", "daemon off;"),
    "prometheus": ("prometheus",),
    "alertmanager": (
        "prometheus-alertmanager" if shutil.which("prometheus-alertmanager") else "alertmanager",
        "--cluster.listen-address=",
    ),
}
#: A first start compiles; on a loaded machine that takes minutes.
MAX_WAIT_SECONDS = 400.0


def load_services() -> dict[str, Any]:
    """Return the services of the Compose file."""
    return YAML(typ="safe").load(COMPOSE.read_text(encoding="utf-8"))["services"]


def wait_until(condition: Callable[[], Any], what: str) -> Any:
    """Return the result of ``condition`` once it is true."""
    deadline = time.monotonic() + MAX_WAIT_SECONDS
    while not (found := _result_or_none(condition)):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.3)
    return found


def _result_or_none(condition: Callable[[], Any]) -> Any:
    try:
        return condition()
    except (OSError, ValueError):
        return None


def get_json(url: str) -> Any:
    """Return the JSON at ``url``."""
    with urllib.request.urlopen(url, timeout=5) as answer:
        return json.load(answer)


class Stack:
    """The running services."""

    def __init__(self, folder: Path) -> None:
        """Prepare the names and the mounts in ``folder``."""
        self.folder = folder
        self.services = load_services()
        self.processes: dict[str, subprocess.Popen] = {}
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}

    def prepare(self) -> None:
        """Bring up the network, and mount names, files and secrets."""
        for command in (
            "ip link set lo up",
            f"ip address add {ADDRESS}/32 dev lo",
            "mount --make-rprivate /",
            "mount -t tmpfs tmpfs /run",
            "mount -t tmpfs tmpfs /mnt",
        ):
            subprocess.run(command.split(), check=True)
        for place in ("/etc", "/var/lib", "/var/spool"):
            cover_with_memory(place)
        lines = [f"127.0.0.1 localhost {' '.join(ON_LOOPBACK)}"]
        lines += [f"{ADDRESS} {name}" for name in self.services if name not in ON_LOOPBACK]
        Path("/etc/hosts").write_text("\n".join(lines) + "\n")
        shutil.copy(COMPOSE.parent / "secrets.sh", self.folder)
        subprocess.run(["sh", str(self.folder / "secrets.sh")], check=True, stdout=subprocess.DEVNULL)
        mount(self.folder / "secrets", "/run/secrets")
        volumes = [one for service in self.services.values() for one in service.get("volumes", ())]
        for volume in dict.fromkeys(volumes):
            source, target, *_ = volume.split(":")
            self._mount_volume(source, target)

    def _mount_volume(self, source: str, target: str) -> None:
        if not target.startswith(("/etc/", "/var/lib/forewatch", "/var/spool/forewatch")):
            return  # data of a server that is not the one of the container
        if source == "spool-2":
            return  # one daemon runs, see start
        if source.startswith("."):
            mount(COMPOSE.parent / source, target)
            return
        folder = self.folder / f"volume-{source}"
        folder.mkdir()
        mount(folder, target)

    def start(self, name: str, *program: str) -> None:
        """Start a service with its command; ``program`` replaces the entrypoint of its image."""
        service = self.services[name]
        entrypoint = program or tuple(service.get("entrypoint", ("forewatch",)))
        command = service.get("command", ())
        log = (self.folder / f"{name}.log").open("w")
        self.processes[name] = subprocess.Popen(
            [
                _program(entrypoint[0]),
                *entrypoint[1:],
                *(re.sub("=/(prometheus|alertmanager)$", f"={self.folder}", one) for one in command),
            ],
            cwd="/var/lib/forewatch",
            env=self.environment,
            stdout=log,
            stderr=log,
        )

    def wait_healthy(self, name: str) -> None:
        """Run the health check of a service until it succeeds."""
        kind, *command = self.services[name]["healthcheck"]["test"]
        assert kind == "CMD"
        command[0] = _program(command[0])
        wait_until(
            lambda: subprocess.run(command, capture_output=True, env=self.environment).returncode == 0,
            f"the health check of {name}",
        )

    def stop(self) -> dict[str, int]:
        """Stop the services as Compose does, and return their exit codes."""
        for process in self.processes.values():
            process.terminate()
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(60)
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = -9
        return codes


def _program(name: str) -> str:
    """Return the path of a program of the environment of this Python, or of the machine."""
    if name == "python":
        return sys.executable
    return shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}") or name


def mount(source: Path, target: str) -> None:
    """Bind ``source`` to ``target`` in this namespace."""
    place = Path(target)
    place.parent.mkdir(parents=True, exist_ok=True)
    if source.is_dir():
        place.mkdir(exist_ok=True)
    else:
        place.touch()
    subprocess.run(["mount", "--bind", str(source), target], check=True)


def cover_with_memory(folder: str) -> None:
    """Keep all changes of ``folder`` in memory (overlay)."""
    layer = Path("/mnt") / folder.strip("/").replace("/", "-")
    for name in ("upper", "work"):
        (layer / name).mkdir(parents=True)
    options = f"lowerdir={folder},upperdir={layer}/upper,workdir={layer}/work"
    subprocess.run(["mount", "-t", "overlay", "overlay", "-o", options, folder], check=True)


@contextmanager
def servers(folder: Path) -> Iterator[MailServer]:
    """Run the broker, the database with its role, and the mail catcher, at the ports of the Compose file."""
    broker = FaultyBroker(
        folder / "kafka", port=9092, settings=QUICK, heap="256m", announce=lambda line: None
    )
    database = LocalPostgres(port=5432)
    with ExitStack() as stack:
        stack.callback(broker.kill)
        broker.up()
        stack.callback(database.remove)
        database.start()
        password = Path("/run/secrets/postgres_password").read_text()
        with psycopg.connect("postgresql://postgres@postgres/postgres", autocommit=True) as connection:
            connection.execute(f"CREATE ROLE forewatch LOGIN PASSWORD '{password}'")
            connection.execute("CREATE DATABASE forewatch OWNER forewatch")
            path = connection.execute("SHOW hba_file").fetchone()[0]
            Path(path).write_text("host all forewatch all scram-sha-256\nhost all all all trust\n")
            connection.execute("SELECT pg_reload_conf()")
        yield stack.enter_context(MailServer(host=ADDRESS, port=1025))


def fire_alert(url: str, name: str) -> None:
    """Send an alert to the Alertmanager, as Prometheus does."""
    body = json.dumps([{"labels": {"alertname": name, "severity": "critical"}}]).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, data=body, headers=headers, method="POST")
    wait_until(lambda: urllib.request.urlopen(request, timeout=5).status == 200, "the Alertmanager")


def wait_for_mail(mails: MailServer, sender: str) -> list[str]:
    """Return the subjects of the mails of ``sender``, once there is one."""
    wait_until(lambda: any(one.sender == sender for one in mails.letters), f"a mail of {sender}")
    return [str(one.message["subject"]) for one in mails.letters if one.sender == sender]


def observe(stack: Stack, mails: MailServer) -> dict[str, Any]:
    """Wait for what a user of the stack must see, and return it."""
    port = 8080 if "proxy" in stack.processes else 9465
    api = f"http://localhost:{port}/api/v1"
    found = wait_until(lambda: get_json(f"{api}/anomalies")["items"], "an anomaly in the REST API")
    seen: dict[str, Any] = {
        "anomalies": len(found),
        "subjects": wait_for_mail(mails, "forewatch@example.org"),
        "services": sorted(stack.processes),
    }
    if "prometheus" in stack.processes:
        query = "http://prometheus:9090/api/v1/query?query="
        for stream in ("plant", "metrics"):
            # Prometheus itself sends the stream metrics.
            scored = f'{query}sum(forewatch_records_total%7Bstream="{stream}",outcome="scored"%7D)>0'
            wait_until(lambda url=scored: get_json(url)["data"]["result"], f"scored records of {stream}")
        groups = get_json("http://prometheus:9090/api/v1/rules")["data"]["groups"]
        seen["rules"] = sum(len(group["rules"]) for group in groups)
        seen["unhealthy rules"] = [
            rule["name"] for group in groups for rule in group["rules"] if rule["health"] == "err"
        ]
    if "alertmanager" in stack.processes:
        if "prometheus" in stack.processes:
            known = "http://prometheus:9090/api/v1/alertmanagers"
            wait_until(
                lambda: get_json(known)["data"]["activeAlertmanagers"], "the Alertmanager of Prometheus"
            )
        fire_alert("http://alertmanager:9093/api/v2/alerts", "ForewatchTest")
        seen["alerts of rules"] = wait_for_mail(mails, "alertmanager@example.org")
    from distributed import Client

    with Client("tcp://scheduler:8786", timeout="30s") as client:
        client.wait_for_workers(1, timeout=60)
        seen["workers"] = len(client.scheduler_info(n_workers=-1)["workers"])
    return seen


def main(folder: Path) -> None:
    """Start everything, observe, stop, and print the result."""
    stack = Stack(folder)
    stack.prepare()
    with servers(folder) as mails:
        try:
            stack.start("migrate")
            assert stack.processes.pop("migrate").wait(60) == 0, (folder / "migrate.log").read_text()
            for name in ("scheduler", "forewatch-1", "serve", "worker"):
                stack.start(name)
            for name, program in OPTIONAL.items():
                if shutil.which(program[0]):
                    stack.start(name, *program)
            for name in ("scheduler", "serve"):
                stack.wait_healthy(name)
            stack.start("producer")
            seen = observe(stack, mails)
        finally:
            codes = stack.stop()
    print(json.dumps(seen | {"exit codes": codes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
