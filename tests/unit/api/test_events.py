"""Live events from a real server to real clients: many, slow, gone, and back again."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from pipeline.api import events
from pipeline.api.events import Event, EventKind, EventLog
from pipeline.api.server import dashboard_server
from pipeline.config.schema import Config
from pipeline.core.types import Fault, FaultKind, Severity
from storage.results import anomalies, faults
from storage.sql.database import Database
from tests.support.alerting import NOON, RouterBench, anomaly, closed
from tests.support.api_servers import plant_config


@pytest.fixture
def config(tmp_path: Path, sqlite_template: Path) -> Config:
    (tmp_path / "forewatch.db").write_bytes(sqlite_template.read_bytes())
    return plant_config(f"sqlite:///{tmp_path}/forewatch.db", tmp_path)


@pytest.fixture
def database(config: Config) -> Iterator[Database]:
    opened = Database(config.database)
    yield opened
    opened.close()


@pytest.fixture
def site(config: Config) -> Iterator[str]:
    with dashboard_server(config, port=0) as server:
        yield server.url


def store(database: Database, *found) -> None:
    with database.begin() as connection:
        anomalies.upsert(connection, found)


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.2)


class Reader:
    """A client of the events; ``next`` returns (kind, id, data) of the next one."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        kind, self.begun, _ = self.next()
        assert kind == "ready"

    def next(self) -> tuple[str, str, dict]:
        kind, id_, data = "", "", {}
        deadline = time.monotonic() + 120
        for line in self._lines:
            assert time.monotonic() < deadline, "no event, only comments"
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "id":
                id_ = value
            elif name == "data":
                data = json.loads(value)
            elif not line and kind:
                return kind, id_, data
        raise AssertionError("the stream has ended")


@contextmanager
def reading(site: str, last_id: str | None = None, **query) -> Iterator[Reader]:
    headers = {} if last_id is None else {"last-event-id": last_id}
    url = f"{site}/api/v1/events"
    with httpx.stream("GET", url, params=query, headers=headers, timeout=120, trust_env=False) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        yield Reader(answer.iter_lines())


def test_an_anomaly_is_reported_when_it_opens_closes_or_gets_worse_but_not_when_it_grows(site, database):
    one = anomaly("b/1")
    with reading(site, kind="anomaly") as reader:
        store(database, one)
        kind, _, data = reader.next()
        assert (kind, data["id"], data["state"]) == ("anomaly", str(one.id), "open")
        assert data["text"].startswith("temperature was 93.1")
        store(database, anomaly("b/1", end_ns=one.end_ns + 10**9, revision=2))
        store(database, anomaly("b/1", severity=Severity.CRITICAL, revision=3))
        assert reader.next()[2]["severity"] == "critical"
        store(database, closed(anomaly("b/1", severity=Severity.CRITICAL, revision=4)))
        assert reader.next()[2]["state"] == "closed"


def test_alerts_faults_and_deliveries_are_reported(site, database):
    bench = RouterBench(database)
    fault = Fault("plant", FaultKind.SOURCE_DOWN, "the broker is away", NOON)
    with reading(site) as reader:
        store(database, one := anomaly())
        bench.happen(one)
        bench.settle()
        with database.begin() as connection:
            faults.save(connection, fault)
        found: dict[str, dict] = {}
        while not {"anomaly", "alert", "deliveries", "fault"} <= set(found):
            kind, _, data = reader.next()
            found[kind] = data
        assert found["alert"]["stream"] == "plant"
        assert (found["fault"]["message"], found["fault"]["ended"]) == ("the broker is away", None)
        with database.begin() as connection:
            faults.close(connection, "plant", FaultKind.SOURCE_DOWN, None, NOON + 10**9)
        while (event := reader.next())[0] != "fault":
            pass
        assert event[2]["ended"] is not None


def test_a_reader_that_comes_back_gets_what_it_missed_once(site, database):
    with reading(site, kind="anomaly") as reader:
        store(database, anomaly("b/0"))
        _, last, _ = reader.next()
    store(database, anomaly("b/1"))
    time.sleep(1.2)
    store(database, anomaly("b/2"))
    with reading(site, last, kind="anomaly") as reader:
        assert [reader.next()[2]["series"] for _ in range(2)] == ["b/1", "b/2"]
        store(database, anomaly("b/3"))
        assert reader.next()[2]["series"] == "b/3"


def test_a_reader_that_left_before_the_first_event_gets_what_it_missed(site, database):
    with reading(site, kind="anomaly") as reader:
        begun = reader.begun
    store(database, anomaly("b/1"))
    with reading(site, begun, kind="anomaly") as reader:
        assert reader.next()[2]["series"] == "b/1"


def test_a_long_connection_ends_with_the_id_to_go_on_from(site, database, monkeypatch):
    monkeypatch.setattr(events, "MAX_STREAM_SECONDS", 0.5)
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.1)
    with reading(site, kind="anomaly") as reader:
        kind, last, _ = reader.next()
    assert kind == "renew"
    monkeypatch.undo()  # a slow machine may read the anomaly later than the end above
    store(database, anomaly("b/1"))
    with reading(site, last, kind="anomaly") as reader:
        assert reader.next()[2]["series"] == "b/1"


def test_who_asks_after_an_event_gets_no_answer_from_before_it(site, database):
    with reading(site, kind="anomaly") as reader:
        for number in range(5):
            fleet = httpx.get(f"{site}/api/v1/fleet", trust_env=False, timeout=120).json()
            assert fleet["tiles"]["open_anomalies"] == number
            store(database, anomaly(f"b/{number}"))
            assert reader.next()[2]["series"] == f"b/{number}"


@pytest.mark.parametrize("last", ["0123456789ab-5", "nonsense", "-", "x-99999999999999999999"])
def test_an_id_of_another_run_resets_the_reader(site, database, last):
    with reading(site, last) as reader:
        kind, id_, data = reader.next()
        assert (kind, "read the lists again" in data["reason"]) == ("reset", True)
    with reading(site, id_, kind="anomaly") as reader:
        store(database, anomaly("b/1"))
        assert reader.next()[0] == "anomaly"  # and no second reset


def test_events_of_other_streams_are_left_out(site, database):
    with reading(site, stream="plant", kind="anomaly") as reader:
        store(database, anomaly("b/1", stream="other"))
        time.sleep(1.2)
        store(database, anomaly("b/2"))
        assert reader.next()[2]["series"] == "b/2"
    unknown = httpx.get(f"{site}/api/v1/events", params={"stream": "nowhere"}, trust_env=False)
    assert unknown.status_code == 404


def test_a_reader_that_reads_nothing_is_disconnected_and_holds_up_no_other(site, database, monkeypatch):
    monkeypatch.setattr(events, "SEND_TIMEOUT_SECONDS", 1.0)
    monkeypatch.setattr(events, "MAX_READERS", 2)
    host, port = site.removeprefix("http://").split(":")
    slow = socket.socket()
    slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slow.connect((host, int(port)))
    slow.sendall(f"GET /api/v1/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
    time.sleep(0.5)
    with reading(site, kind="anomaly") as reader:
        labels = {"note": "x" * 20_000}
        seen = set()
        for first in range(0, 300, 10):  # what this reader has not read yet fits into its socket
            store(database, *(anomaly(f"b/{n}", labels=labels) for n in range(first, first + 10)))
            while len(seen) < first + 10:
                kind, _, data = reader.next()
                assert kind == "anomaly"
                seen.add(data["series"])
        wait_for(lambda: _status(site) == 200, "the reader that reads nothing still has its place")
        slow.settimeout(5)
        received = 0
        with suppress(OSError):
            while part := slow.recv(1 << 16):
                received += len(part)
        assert received < 300 * 20_000
    slow.close()


def test_fifty_readers_get_each_event_and_leave_nothing_behind(site, database):
    got: list[str] = []
    ready, lock = threading.Barrier(51), threading.Lock()

    def read() -> None:
        with reading(site, kind="anomaly") as reader:
            ready.wait(120)
            found = [reader.next()[2]["series"] for _ in range(3)]
        with lock:
            got.extend(found)

    threads = [threading.Thread(target=read) for _ in range(50)]
    for thread in threads:
        thread.start()
    ready.wait(120)
    store(database, anomaly("b/1"), anomaly("b/2"), anomaly("b/3"))
    for thread in threads:
        thread.join(120)
    assert sorted(got) == ["b/1"] * 50 + ["b/2"] * 50 + ["b/3"] * 50


def test_more_readers_than_the_limit_are_refused(site, monkeypatch):
    monkeypatch.setattr(events, "MAX_READERS", 1)
    with reading(site) as _first:  # without a name its connection would be closed
        refused = httpx.get(f"{site}/api/v1/events", timeout=120, trust_env=False)
        assert (refused.status_code, refused.headers["content-type"]) == (503, "application/problem+json")
        assert "close some pages" in refused.json()["detail"]
    wait_for(lambda: _status(site) == 200, "the place of a reader that has left is not free")


def _status(site: str) -> int:
    with httpx.stream("GET", f"{site}/api/v1/events", timeout=120, trust_env=False) as answer:
        return answer.status_code


def test_silence_is_filled_with_comments(site, monkeypatch):
    monkeypatch.setattr(events, "HEARTBEAT_SECONDS", 0.2)
    with httpx.stream("GET", f"{site}/api/v1/events", timeout=120, trust_env=False) as answer:
        assert next(line for line in answer.iter_lines() if line == ": alive")


def test_a_log_keeps_the_last_events_and_says_when_some_are_gone(monkeypatch):
    monkeypatch.setattr(events, "MAX_KEPT_EVENTS", 10)
    log = EventLog()
    log.append([Event(EventKind.PROGRESS, None, {"n": n}) for n in range(25)])
    assert log.after(0) == ([], False)
    assert log.after(26) == ([], False)
    found, whole = log.after(20)
    assert ([n for n, _ in found], whole) == ([20, 21, 22, 23, 24], True)
    assert [one.data["n"] for _, one in found] == [20, 21, 22, 23, 24]
    assert log.after(25) == ([], True)
    assert log.place_of(f"{log.boot}-25") == 25


def test_a_server_that_stops_ends_its_streams_in_order_and_logs_nothing(config, caplog):
    caplog.set_level(logging.WARNING)
    with ExitStack() as readers:
        with dashboard_server(config, port=0) as server:
            streams = [readers.enter_context(reading(server.url)) for _ in range(3)]
        for one in streams:
            with pytest.raises(AssertionError, match="the stream has ended"):
                one.next()
    assert [one.getMessage() for one in caplog.records if one.name.startswith("uvicorn")] == []
