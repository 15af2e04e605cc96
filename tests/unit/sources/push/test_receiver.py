"""The receiver over real HTTP: answers, limits, keys."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pyarrow as pa
import pytest

from pipeline.config.schema import PushSourceConfig, Secret
from pipeline.core.errors import ConfigError, OffsetOutOfRange, SourceError, SourceUnavailable
from pipeline.observability.metrics import Metrics, PushMetrics
from pipeline.sources.push.receiver import OtherFormatError
from pipeline.sources.push.source import PushSource
from tests.support.postgres_server import free_port
from tests.support.source_kinds import Reader

KEY = "a long random text"


def check(content: bytes, kind: str) -> int:
    if kind == "text/other":
        raise OtherFormatError("send text/plain")
    if content.startswith(b"bad"):
        raise ValueError("it begins with bad")
    return max(len(content.split()), 1)


@pytest.fixture
def opened(tmp_path: Path, monkeypatch) -> Iterator[Callable[..., tuple[PushSource, str]]]:
    monkeypatch.setenv("PUSH_KEY", KEY)
    made: list[PushSource] = []

    def make(name: str = "plant", port: int | None = None, metrics: PushMetrics | None = None, **keys):
        port = port or free_port()
        source = PushSource(name, PushSourceConfig(port=port, **keys), tmp_path / name, check, metrics)
        made.append(source)
        source.poll(10, 0.1)
        return source, f"http://127.0.0.1:{port}/push/{name}"

    yield make
    for source in made:
        source.close()


def values(source: PushSource, count: int) -> list[bytes | None]:
    reader = Reader(source)
    reader.owned.add(source._partition)
    reader.positions[source._partition] = 0
    source.seek(source._partition, 0)
    source.resume([source._partition])
    return reader.until_read(count).values(source._partition)


def test_what_is_answered_is_read_in_order(opened):
    source, url = opened()
    for text in ("one", "two and three", "four"):
        assert httpx.post(url, content=text, headers={"Content-Type": "text/plain"}).status_code == 204
    assert values(source, 3) == [b"one", b"two and three", b"four"]
    (records,) = source.poll(10, 0.1).records or [None]
    assert records is None


def test_records_have_their_type_and_their_time(opened):
    source, url = opened()
    before = time.time_ns()
    httpx.post(f"{url}/api/v1/write", content="x", headers={"Content-Type": "text/plain; charset=utf-8"})
    source.seek(source._partition, 0)
    source.resume([source._partition])
    (records,) = source.poll(10, 5).records
    assert records.headers == [[("content-type", b"text/plain; charset=utf-8")]]
    assert before <= records.timestamps[0] <= time.time_ns()


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "snappy", "identity"])
def test_compressed_bodies_are_unpacked(opened, encoding):
    source, url = opened()
    text = b"some text " * 1000
    body = text
    if encoding != "identity":
        body = gzip.compress(text) if encoding == "gzip" else bytes(pa.Codec(encoding).compress(text))
    assert httpx.post(url, content=body, headers={"Content-Encoding": encoding}).status_code == 204
    assert values(source, 1) == [text]


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "snappy"])
def test_a_bomb_is_refused_and_not_kept(opened, encoding):
    source, url = opened(max_body_bytes=100_000, max_content_bytes=1_000_000)
    zeros = bytes(2_000_000)
    body = gzip.compress(zeros) if encoding == "gzip" else bytes(pa.Codec(encoding).compress(zeros))
    assert len(body) < 100_000
    answer = httpx.post(url, content=body, headers={"Content-Encoding": encoding})
    assert (answer.status_code, source.spool.end) == (413, 0)
    assert "1,000,000 bytes" in answer.text


def test_bodies_over_the_limit_are_refused(opened):
    source, url = opened(max_body_bytes=1000)
    assert httpx.post(url, content=b"x" * 1001).status_code == 413

    def chunks() -> Iterator[bytes]:  # without Content-Length
        for _ in range(100):
            yield b"x" * 100

    assert httpx.post(url, content=chunks()).status_code == 413
    assert source.spool.end == 0
    assert httpx.post(url, content=b"x" * 1000).status_code == 204


def test_broken_data_get_the_reason_and_are_kept(opened):
    source, url = opened()
    answer = httpx.post(url, content="bad data")
    assert (answer.status_code, answer.text.strip()) == (400, "it begins with bad")
    damaged = httpx.post(url, content=b"no gzip", headers={"Content-Encoding": "gzip"})
    assert damaged.status_code == 400
    assert damaged.text.startswith("gzip: ")
    unknown = httpx.post(url, content=b"x", headers={"Content-Encoding": "br"})
    assert "snappy, gzip, zstd" in unknown.text
    assert values(source, 3) == [b"bad data", b"no gzip", b"x"]
    other = httpx.post(url, content="x", headers={"Content-Type": "text/other"})
    assert (other.status_code, other.text.strip(), source.spool.end) == (415, "send text/plain", 3)


def test_senders_of_remote_write_2_learn_the_number_of_samples(opened):
    _, url = opened()
    kind = {"Content-Type": "application/x-protobuf;proto=io.prometheus.write.v2.Request"}
    answer = httpx.post(f"{url}/api/v1/write", content="one two three", headers=kind)
    names = [f"X-Prometheus-Remote-Write-{what}-Written" for what in ("Samples", "Histograms", "Exemplars")]
    assert [answer.headers[name] for name in names] == ["3", "0", "0"]


def test_keys(opened):
    source, url = opened(key=Secret(env="PUSH_KEY"))
    for given in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
        answer = httpx.post(url, content="x", headers=given)
        assert answer.status_code == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert source.spool.end == 0
    assert httpx.post(url, content="x", headers={"Authorization": f"Bearer {KEY}"}).status_code == 204


def test_an_empty_key_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("PUSH_KEY", "")
    with pytest.raises(ConfigError, match="key is empty"):
        PushSource("plant", PushSourceConfig(key=Secret(env="PUSH_KEY")), tmp_path, check)


def test_beyond_this_machine_a_key_is_needed(tmp_path, monkeypatch):
    source = PushSource("plant", PushSourceConfig(host="0.0.0.0", port=free_port()), tmp_path, check)
    with pytest.raises(SourceUnavailable, match="a `key` is needed"):
        source.poll(1, 0.1)
    source.close()


def test_pages_of_browsers_must_not_push(opened):
    source, url = opened()
    assert httpx.post(url, content="x", headers={"Origin": "http://evil.example"}).status_code == 403
    assert httpx.post(url, content="x", headers={"Host": "evil.example"}).status_code == 403
    assert source.spool.end == 0


def test_other_streams_and_methods(opened):
    _, url = opened()
    assert httpx.post(url.replace("plant", "other"), content="x").status_code == 503
    assert httpx.get(url).status_code == 405


def test_streams_share_a_port(opened):
    port = free_port()
    one, first = opened("one", port)
    two, second = opened("two", port)
    for number, url in enumerate((first, second, second)):
        assert httpx.post(url, content=f"{number}").status_code == 204
    assert (one.spool.end, two.spool.end) == (1, 2)
    one.close()
    assert httpx.post(first, content="x").status_code == 503, "it may come again"
    assert httpx.post(second, content="x").status_code == 204
    two.close()
    with pytest.raises(httpx.ConnectError):
        httpx.post(second, content="x")


def test_a_port_in_use_is_waited_for(opened, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        source = PushSource("plant", PushSourceConfig(port=port), tmp_path / "x", check)
        with pytest.raises(SourceUnavailable, match=rf"push: cannot listen on 127.0.0.1 port {port}"):
            source.poll(1, 0.1)
    assert source.poll(1, 0.1).assigned
    source.close()


def test_a_full_spool_is_answered_with_429_until_there_is_room(opened):
    metrics = Metrics()
    source, url = opened(metrics=PushMetrics(metrics, "plant"), spool_bytes=1 << 20, max_body_bytes=300_000)
    answers = [httpx.post(url, content=b"x" * 250_000) for _ in range(6)]
    assert [one.status_code for one in answers] == [204] * 4 + [429] * 2
    assert answers[-1].headers["Retry-After"] == "5"
    values(source, 4)
    source.release(source._partition, 4)
    assert httpx.post(url, content=b"x" * 250_000).status_code == 204

    def count(status: str) -> float | None:
        return metrics.registry.get_sample_value(
            "forewatch_push_requests_total", {"stream": "plant", "status": status}
        )

    assert (count("204"), count("429")) == (5, 2)


def test_an_offset_that_is_gone_is_reported(opened):
    source, url = opened()
    httpx.post(url, content="x")
    source.seek(source._partition, 5)
    source.resume([source._partition])
    with pytest.raises(OffsetOutOfRange):
        source.poll(1, 0.1)
    source.close()
    with pytest.raises(SourceError, match="closed"):
        source.poll(1, 0.1)


def test_many_senders_at_the_same_time(opened):
    source, url = opened()
    codes: list[int] = []

    def send(name: str) -> None:
        with httpx.Client() as client:
            codes.extend(client.post(url, content=f"{name}{n}", timeout=60).status_code for n in range(20))

    threads = [threading.Thread(target=send, args=(name,)) for name in "abcdefghijklmnopqrst"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert codes == [204] * 400
    assert sorted(values(source, 400)) == sorted(
        f"{n}{i}".encode() for n in "abcdefghijklmnopqrst" for i in range(20)
    )
