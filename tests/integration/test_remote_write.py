"""Scores by remote write, to a decoding receiver and to a real Prometheus."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.outputs import RemoteWriteConfig
from pipeline.core.types import FaultKind
from pipeline.observability.metrics import Metrics, OutputMetrics
from pipeline.outputs.remote_write import RemoteWriteOutput
from pipeline.outputs.remote_write_format import encode_request, metric_labels
from tests.faults.feed import START_MS, Log, record
from tests.support.engines import Bench
from tests.support.receiver import Receiver, answer
from tests.support.remote_write_decoder import decoded
from tests.support.verdict_topics import wait_until

SPIKE_SECOND = 60


def values(start_ms: int = START_MS) -> list[bytes]:
    """Two series of 120 s, of which "a" has a spike."""
    shift = (start_ms - START_MS) / 1000
    return [
        record(name, shift + second, 500.0 if (name, second) == ("a", SPIKE_SECOND) else 20.0 + second % 5)
        for second in range(120)
        for name in "ab"
    ]


class Sending:
    """An engine with an output to ``url``."""

    def __init__(self, folder: Path, template: Path, url: str, log: list[bytes], **settings: Any) -> None:
        self.bench = Bench(folder, template, [Log(log, ["scored"] * len(log))], lateness="0s")
        self.metrics = Metrics()
        config = RemoteWriteConfig(url=url, **settings)

        def outputs(scorer: Any) -> list[RemoteWriteOutput]:
            return [
                RemoteWriteOutput("graphs", config, scorer, OutputMetrics(self.metrics, "plant", "graphs"))
            ]

        self.engine = self.bench.engine(make_outputs=outputs)
        (self.output,) = self.engine.parts.writers.outputs

    def count(self, name: str) -> float:
        labels = {"stream": "plant", "output": "graphs"}
        return self.metrics.registry.get_sample_value(f"forewatch_output_{name}", labels) or 0.0

    def send(self) -> None:
        self.bench.fill()
        self.bench.drain(self.engine)
        wait_until(lambda: not self.output._waiting, "everything is sent")

    def close(self) -> None:
        self.bench.close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


@contextmanager
def sending(
    tmp_path: Path, template: Path, url: str, log: list[bytes] | None = None, **settings: Any
) -> Iterator[Sending]:
    made = Sending(tmp_path / "bench", template, url, log or values(), **settings)
    try:
        yield made
    finally:
        made.close()


def samples(receiver: Receiver) -> dict[tuple[str, ...], list[tuple[float, int]]]:
    """Return (metric, series, channel) → samples of all requests."""
    found: dict[tuple[str, ...], list[tuple[float, int]]] = {}
    for one in receiver.received:
        for labels, pairs in decoded(one.body):
            assert labels["stream"] == "plant"
            key = (
                labels["__name__"].removeprefix("forewatch_verdict_"),
                labels["s"],
                labels.get("channel", ""),
            )
            found.setdefault(key, []).extend(pairs)
    return found


def test_a_flagged_series_is_sent_from_its_flag_on(tmp_path, sqlite_template, receiver):
    with sending(tmp_path, sqlite_template, receiver.url, keep="30s") as run:
        run.send()
    found = samples(receiver)
    assert {series for _, series, _ in found} == {"a"}
    assert {metric for metric, _, _ in found} >= {"score", "flag", "value", "expected", "lower", "upper"}
    times = [time_ms for _, time_ms in found["value", "a", "v"]]
    first = START_MS + SPIKE_SECOND * 1000
    assert times == [first + 1000 * i for i in range(31)]
    assert found["value", "a", "v"][0] == (500.0, first)
    assert found["flag", "a", ""][0] == (1.0, first)
    one = receiver.received[0]
    assert one.headers["content-encoding"] == "snappy"
    assert one.headers["x-prometheus-remote-write-version"] == "0.1.0"


def test_all_series_up_to_the_limit(tmp_path, sqlite_template, receiver):
    with sending(tmp_path, sqlite_template, receiver.url, series="all", max_series=1) as run:
        run.send()
        refused = run.count("dropped_rows_total")
    found = samples(receiver)
    assert {series for _, series, _ in found} == {"a"}
    assert len(found["value", "a", "v"]) == 120
    assert refused == 120


def test_a_receiver_that_comes_back_gets_the_samples_in_order(tmp_path, sqlite_template, receiver):
    receiver.behave = answer(503, b"not yet", retry_after="0")
    with sending(tmp_path, sqlite_template, receiver.url, series="all") as run:
        run.bench.fill()
        run.bench.drain(run.engine)
        wait_until(lambda: bool(run.output.problem), "the receiver refuses")
        run.engine.turn(0.0)
        assert [fault.kind for fault in run.bench.faults()] == [FaultKind.OUTPUT_DOWN]
        assert "status 503: not yet" in run.output.problem
        assert run.count("up") == 0
        receiver.received.clear()
        receiver.behave = answer(204, b"")
        wait_until(lambda: not run.output._waiting, "everything is sent")
        run.engine.turn(0.0)
        assert run.engine.parts.faults.current == []
        assert run.count("rows_total") == 240
        assert run.count("up") == 1
    times = [time_ms for _, time_ms in samples(receiver)["score", "b", ""]]
    assert times == sorted(times)


def test_what_the_receiver_refuses_is_dropped_and_counted(tmp_path, sqlite_template, receiver):
    receiver.behave = answer(400, b"out of order sample")
    with sending(tmp_path, sqlite_template, receiver.url, series="all") as run:
        run.send()
        assert run.output.problem == ""
        assert (run.count("rows_total"), run.count("dropped_rows_total")) == (0, 240)


def test_the_buffer_drops_the_oldest_and_the_stream_goes_on(tmp_path, sqlite_template):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        unused = f"http://127.0.0.1:{free.getsockname()[1]}/write"
    log = [record("a", second, 20.0 + second % 5) for second in range(3_000)]
    with sending(tmp_path, sqlite_template, unused, log, series="all", buffer=1_000) as run:
        run.bench.fill()
        run.bench.drain(run.engine)
        assert run.count("dropped_rows_total") > 1_000
        assert run.output._waiting * 6 <= 1_000 + 6 * 1_500


def test_a_replay_sends_nothing_again(tmp_path, sqlite_template, receiver):
    with sending(tmp_path, sqlite_template, receiver.url, series="all") as run:
        run.engine.parts.snapshots._every = 1e9
        run.send()
        before = sum(map(len, samples(receiver).values()))
        again = Sending.__new__(Sending)
        again.bench, again.metrics = run.bench, run.metrics
        second = run.bench.engine(make_outputs=lambda scorer: [_copy(run.output, scorer, run.metrics)])
        run.bench.drain(second)
        time.sleep(0.2)
        assert sum(map(len, samples(receiver).values())) == before


def _copy(output: RemoteWriteOutput, scorer: Any, metrics: Metrics) -> RemoteWriteOutput:
    return RemoteWriteOutput("graphs", output._config, scorer, OutputMetrics(metrics, "plant", "graphs"))


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"site.name": "x"}, ("site_name", "x")),
        ({"9lives": "x"}, ("label_9lives", "x")),
        ({"channel": "x"}, ("label_channel", "x")),
        ({"__name__": "x"}, ("label___name__", "x")),
        ({"s": "grün\n☃"}, ("s", "grün\n☃")),
    ],
)
def test_labels_that_prometheus_would_refuse(labels, said):
    made = metric_labels("m", {"stream": "plant", "channel": "v"}, labels)
    (found,) = decoded(encode_request({made: [(1.5, -1), (2.5, 2**40)]}))
    assert said in found[0].items()
    assert found[1] == [(1.5, -1), (2.5, 2**40)]


# ------------------------------------------------------------------------------------------ Prometheus


@contextmanager
def prometheus(folder: Path) -> Iterator[str]:
    """Run a Prometheus that takes remote write; yield its address."""
    program = shutil.which("prometheus")
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    process = subprocess.Popen(
        [
            *(program, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
            *(f"--web.listen-address={address}", "--web.enable-remote-write-receiver"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: _answers(f"http://{address}/-/ready"), "Prometheus is ready")
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait(120)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def query(url: str, what: str, at: float) -> list[dict[str, Any]]:
    parameters = urllib.parse.urlencode({"query": what, "time": at})
    with urllib.request.urlopen(f"{url}/api/v1/query?{parameters}", timeout=10) as response:
        found = json.load(response)
    return list(found["data"]["result"])


def test_a_real_prometheus_takes_them(tmp_path, sqlite_template):
    start_ms = int(time.time() * 1000) // 1000 * 1000 - 300_000
    with (
        prometheus(tmp_path) as url,
        sending(tmp_path, sqlite_template, f"{url}/api/v1/write", values(start_ms)) as run,
    ):
        run.send()
        assert run.count("dropped_rows_total") == 0
        assert run.count("rows_total") == 60
        spike = start_ms / 1000 + SPIKE_SECOND
        (flag,) = query(url, 'forewatch_verdict_flag{stream="plant"}', spike)
        assert flag["metric"] == {"__name__": "forewatch_verdict_flag", "s": "a", "stream": "plant"}
        assert flag["value"][1] == "1"
        (value,) = query(url, 'forewatch_verdict_value{s="a"}', spike)
        assert (value["metric"]["channel"], value["value"][1]) == ("v", "500")
        assert (
            query(url, 'count_over_time(forewatch_verdict_score{s="a"}[10m])', spike + 59)[0]["value"][1]
            == "60"
        )
