"""API and dashboard served by a daemon: beside the loop, and never in its way."""

from __future__ import annotations

import signal
import socket
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import httpx
import psutil

from pipeline.api import daemon_service
from pipeline.api.daemon_service import DashboardService
from pipeline.config.schema import Config
from pipeline.daemon.daemon import daemon
from storage.access import audit
from storage.sql.database import Database
from storage.stream_state import positions
from tests.support.postgres_server import free_port


def config_of(folder: Path, serve) -> Config:
    stream = {
        "source": {"files": {"paths": [str(folder / "*.csv")], "follow": True}},
        "format": {"csv": {"series": ["s"], "time": "t", "values": ["v"]}},
        "every": "1s",
        "detector": "light",
    }
    values = {"database": f"sqlite:///{folder}/forewatch.db", "http": None, "streams": {"plant": stream}}
    return Config.model_validate(values | {"serve": serve})


def write_rows(folder: Path, count: int) -> None:
    lines = [f"a,{time.time_ns() // 10**9 - count + n},{n % 5}" for n in range(count)]
    (folder / "rows.csv").write_text("\n".join(["s,t,v", *lines]) + "\n")


@contextmanager
def running(config: Config):
    stopping = threading.Event()
    with daemon(config, stopping, [DashboardService(config)]) as one:
        thread = threading.Thread(target=one.run, args=(lambda: None,), daemon=True)
        thread.start()
        try:
            yield one
        finally:
            stopping.set()
            thread.join()


def eventually(check, seconds: float = 120):
    deadline = time.monotonic() + seconds
    while not (found := check()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return found


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/api/v1/health", timeout=30).status_code == 200
    except httpx.HTTPError:
        return False


def scored(config: Config) -> int:
    with closing(Database(config.database)) as database, database.read() as connection:
        return sum(one.counts.scored for one in positions.all_of(connection))


def test_a_daemon_serves_and_a_changed_config_is_served_and_written_down(tmp_path):
    first, second = free_port(), free_port()
    write_rows(tmp_path, 200)
    config = config_of(tmp_path, {"port": first})
    with running(config) as one:
        assert eventually(lambda: answers(f"http://127.0.0.1:{first}"))
        assert eventually(lambda: scored(config) > 100)
        one.use_config(config_of(tmp_path, {"port": second}))
        assert eventually(lambda: answers(f"http://127.0.0.1:{second}"))
        assert not answers(f"http://127.0.0.1:{first}")
        with closing(Database(config.database)) as database, database.read() as connection:
            [entry] = audit.query(connection)
        assert (entry.action, entry.actor_kind, entry.detail["keys"]) == (
            "config.reload",
            "daemon",
            ["serve"],
        )
    assert not answers(f"http://127.0.0.1:{second}")


def test_a_server_that_cannot_start_leaves_the_streams_alone_and_is_tried_again(tmp_path, capfd):
    write_rows(tmp_path, 200)
    printed = ""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = config_of(tmp_path, {"port": port})
        with running(config):

            def is_reported() -> bool:
                nonlocal printed
                printed += capfd.readouterr().err
                return "streams run without it" in printed

            assert eventually(lambda: scored(config) > 100)
            assert eventually(is_reported)
            taken.close()
            assert eventually(lambda: answers(f"http://127.0.0.1:{port}"))


def test_a_daemon_without_the_key_serves_nothing(tmp_path):
    for serve in (False, {"daemon": False}):
        service = DashboardService(config_of(tmp_path, serve))
        service.start()
        assert not servers()
        service.stop()


def test_a_server_that_is_killed_comes_back(tmp_path):
    port = free_port()
    config = config_of(tmp_path, {"port": port})
    with closing(Database(config.database)) as database:
        database.upgrade()
    service = DashboardService(config)
    try:
        service.start()
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}"))
        [before] = servers()
        before.kill()
        assert eventually(lambda: servers() not in ([], [before]))
        assert eventually(lambda: answers(f"http://127.0.0.1:{port}"))
    finally:
        service.stop()
    assert not servers()


def test_a_server_ends_with_its_daemon_and_not_by_signals_for_all(tmp_path):
    config = config_of(tmp_path, {"port": free_port()})
    with closing(Database(config.database)) as database:
        database.upgrade()
    code = (
        "import sys, time\n"
        "from pipeline.api.daemon_service import DashboardService\n"
        "from pipeline.config.schema import Config\n"
        "DashboardService(Config.model_validate_json(sys.argv[1])).start()\n"
        "time.sleep(300)\n"
    )
    daemon_process = psutil.Popen(
        [sys.executable, "-c", code, config.model_dump_json(by_alias=True, exclude_unset=True)]
    )
    try:
        assert config.served is not None
        url = f"http://127.0.0.1:{config.served.port}"
        assert eventually(lambda: answers(url))
        [server] = daemon_process.children()
        for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            server.send_signal(signum)
        assert answers(url)
    finally:
        daemon_process.kill()
        daemon_process.wait()
    server.wait(30)


def servers() -> list[psutil.Process]:
    """Return the processes of servers that this process has started."""
    children = psutil.Process().children()
    return [
        one
        for one in children
        if one.status() != psutil.STATUS_ZOMBIE and daemon_service.MODULE in one.cmdline()
    ]
