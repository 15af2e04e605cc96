"""Outputs that cannot be used are refused at the start, with line and key."""

from __future__ import annotations

import pytest

from pipeline.config.loader import load_config
from pipeline.config.stream_hash import config_hash
from pipeline.core.errors import ConfigError

CONFIG = """\
streams:
  plant:
    source: {kafka: {brokers: [b:9092], topics: [readings]}}
    format: {json: {series: k, time: t, values: [v]}}
    outputs:
      scores: OUTPUT
"""
KAFKA = "{kafka: {brokers: [b:9092], topic: verdicts}}"


def load(folder, output):
    file = folder / "c.yaml"
    file.write_text(CONFIG.replace("OUTPUT", output))
    return load_config(file)


@pytest.mark.parametrize(
    ("output", "key", "said"),
    [
        ("{}", "scores", "exactly one of kafka, remote_write"),
        ("{kafka: {brokers: [b:9092]}}", "scores.kafka.topic", "is missing"),
        ("{kafka: {brokers: [b], topic: x}}", "scores.kafka.brokers", "is not host:port"),
        ("{kafka: {brokers: [b:9092], topic: readings}}", "scores.kafka.topic", "reads 'readings' itself"),
        ("{kafka: {brokers: [b:9092], topic: x, rows: some}}", "scores.kafka.rows", "flagged"),
        ("{kafka: {brokers: [b:9092], topic: x, row: all}}", "scores.kafka.row", "did you mean rows"),
        (
            "{kafka: {brokers: [b:9092], topic: x, security: {sasl_mechanism: PLAIN}}}",
            "scores.kafka.security",
            "security_protocol",
        ),
        (
            "{kafka: {brokers: [b:9092], topic: x, security: {sasl_plain_password: hunter22}}}",
            "scores.kafka.security.sasl_plain_password",
            "stands in the config",
        ),
        ("{remote_write: {url: 'ftp://x/y'}}", "scores.remote_write", "must be https://host/path"),
        ("{remote_write: {url: 'http://x/y', allow: []}}", "scores.remote_write", "unencrypted"),
        ("{remote_write: {url: 'http://x/y', allow: [inside]}}", "scores.remote_write.allow", "10.1.0.0/16"),
        (
            "{remote_write: {url: 'http://x/y', headers: {Authorization: Bearer abc12345}}}",
            "scores.remote_write.headers.Authorization",
            "stands in the config",
        ),
        (
            "{remote_write: {url: 'http://x/y', headers: {Content-Type: text/plain}}}",
            "scores.remote_write.headers",
            "is set by forewatch",
        ),
    ],
)
def test_an_output_that_cannot_be_used(output, key, said, tmp_path):
    with pytest.raises(ConfigError) as refused:
        load(tmp_path, output)
    assert f"streams.plant.outputs.{key}" in str(refused.value)
    assert said in str(refused.value)
    assert ":6: " in str(refused.value)


def test_the_defaults(tmp_path):
    output = load(tmp_path, KAFKA).streams["plant"].outputs["scores"].kafka
    assert (output.rows, output.buffer, output.compression) == ("flagged", 100_000, "zstd")


def test_outputs_do_not_change_verdicts(tmp_path):
    stream = load(tmp_path, KAFKA).streams["plant"]
    assert config_hash(stream) == config_hash(stream.model_copy(update={"outputs": {}}))
