"""Rules of push sources and of formats of metrics."""

from __future__ import annotations

import pytest

from pipeline.config.schema import Config, Stream
from pipeline.config.stream_hash import config_hash
from pipeline.config.validation import broken_rules
from pipeline.services.preflight import probe_stream
from pipeline.services.safety import safety_warnings


def found(push=None, form=None, name="plant", **keys):
    stream = {"source": {"push": push or {}}, "format": form or {"remote_write": {}}} | keys
    return [
        f"{'.'.join(map(str, one.path[2:]))}: {one.what}"
        for one in broken_rules(Config.model_validate({"streams": {name: stream}}))
    ]


def test_what_is_right():
    assert found() == []
    assert found({"host": "0.0.0.0", "key": {"env": "X"}}) == []
    assert found(form={"json": {"series": "a", "time": "t", "values": "v"}}) == []
    form = {"remote_write": {"series": ["__name__"], "values": {"load": "value"}, "where": {"job": "node"}}}
    functions = {"load": "mean", "hosts": {"nunique": "instance"}}
    assert found(form=form, aggregate={"every": "1m", "values": functions}) == []


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        ({"push": {"host": "0.0.0.0"}}, "source.push.host: 0.0.0.0 is not of this machine only"),
        ({"push": {"host": "collector.example"}}, "there is no key"),
        ({"name": "a b"}, "source.push: the name of the stream, 'a b', is a part of the address"),
        ({"push": {"max_content_bytes": 5}}, "max_content_bytes: is less than max_body_bytes"),
        ({"push": {"spool_bytes": 1 << 21}}, "spool_bytes: has no room for two bodies"),
        (
            {"form": {"csv": {"series": "a", "time": "t", "values": "v"}}},
            "format.csv: records that are pushed",
        ),
        ({"form": {"remote_write": {"time": "t"}}}, "time: samples have their time in timestamp"),
        ({"form": {"remote_write": {"values": ["a", "b"]}}}, "values: samples have one number, called value"),
        ({"form": {"remote_write": {"series": "$key"}}}, "series: '$key' of $key is no label"),
        ({"form": {"remote_write": {"where": "value > 3"}}}, "where: 'value' is no label"),
        ({"aggregate": {"every": "1m", "values": {"x": {"max": "job"}}}}, "'job' is a label, not a number"),
    ],
)
def test_what_is_refused(keys, text):
    assert any(text in one for one in found(**keys)), found(**keys)


def test_metrics_do_not_come_from_files():
    stream = {"source": {"files": {"paths": ["a.csv"]}}, "format": {"remote_write": {}}}
    (finding,) = broken_rules(Config.model_validate({"streams": {"plant": stream}}))
    assert finding.what == "files, telemetry and SQL hold no such records"
    assert "push" in finding.remedy


def test_a_check_reads_the_key_only(monkeypatch):
    stream = Stream.model_validate(
        {"source": {"push": {"key": {"env": "NO_SUCH_KEY"}}}, "format": {"remote_write": {}}}
    )
    probe = probe_stream("plant", stream)
    assert "NO_SUCH_KEY is not set" in (probe.error or "")
    monkeypatch.setenv("NO_SUCH_KEY", "x")
    probe = probe_stream("plant", stream)
    assert (probe.exit_code, probe.receives) == (0, "http://127.0.0.1:9466/push/plant")


def test_a_server_beyond_this_machine_is_warned_of():
    stream = {"source": {"push": {"host": "0.0.0.0", "key": {"env": "X"}}}, "format": {"remote_write": {}}}
    config = Config.model_validate({"streams": {"plant": stream}})
    assert any("streams.plant.source.push.host" in line for line in safety_warnings(config))


def test_the_hash_of_other_streams_does_not_know_push_sources():
    stream = {"source": {"memory": {}}, "format": {"csv": {"series": "a", "time": "t", "values": "v"}}}
    assert config_hash(Stream.model_validate(stream)) == "c9b551854c78"
