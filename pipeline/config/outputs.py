"""The models of the outputs of a stream, to which its verdicts are written."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.endpoints import Url, check_header, check_networks, check_url
from pipeline.config.field_types import ConfigModel, Duration, Secret
from pipeline.config.kafka_security import KafkaSecurity, TopicName


class KafkaOutputConfig(ConfigModel):
    """A Kafka topic of verdicts, each once for readers of committed records."""

    brokers: list[str] = Field(min_length=1, description="bootstrap servers, host:port")
    topic: TopicName = Field(description="topic to write to; it must exist")
    rows: Literal["flagged", "all"] = Field(
        "flagged", description="flagged: the verdicts of flagged points; all: those of all points"
    )
    buffer: int = Field(
        100_000,
        ge=1_000,
        description="verdicts that wait in memory while the brokers do not answer; with more of them the "
        "stream stops reading until they do",
    )
    client: Literal["kafka-python", "confluent"] = Field(
        "kafka-python",
        description="confluent needs the extra forewatch[confluent], and writes several times as fast",
    )
    compression: Literal["none", "gzip", "lz4", "zstd"] = Field(
        "zstd", description="compression of the records"
    )
    security: KafkaSecurity = Field(
        default_factory=dict, description="SASL and TLS settings, as in a Kafka source"
    )
    password: Secret | None = Field(
        None, description="SASL password; needs a security_protocol in `security`"
    )


class RemoteWriteConfig(ConfigModel):
    """A receiver of Prometheus remote write, for scores, flags and intervals."""

    url: Url = Field(description="address of the receiver, such as http://prometheus:9090/api/v1/write")
    series: Literal["flagged", "all"] = Field(
        "flagged",
        description="flagged: series from their first flagged point on, for `keep`; all: every series",
    )
    keep: Duration = Field(
        timedelta(hours=1), description="time since its last flagged point that a series is written"
    )
    max_series: int = Field(
        1_000, ge=1, description="largest number of series at a time; further ones are left out and counted"
    )
    buffer: int = Field(
        100_000,
        ge=1_000,
        description="samples that wait in memory while the receiver does not answer; the oldest are dropped",
    )
    revisions: bool = Field(
        False,
        description="also send the verdicts that late points change: for receivers that take old "
        "samples, and a second sample of a time (VictoriaMetrics); Prometheus refuses them",
    )
    timeout: Duration = Field(timedelta(seconds=15), description="timeout of a request")
    headers: dict[str, str | Secret] = Field(
        default_factory=dict, description="additional headers, for example Authorization: {env: TOKEN}"
    )
    ca: Path | None = Field(None, description="PEM file of the certificate authority of an internal receiver")
    allow: list[str] = Field(
        ["private", "loopback"],
        description="internal networks that may be called: CIDR, `private` or `loopback`",
    )

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        return check_networks(value)

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name, text in value.items():
            check_header(name, text if isinstance(text, str) else "")
            if name.lower() in ("content-type", "content-encoding") or name.lower().startswith("x-prom"):
                raise ValueError(f"the header {name} is set by forewatch; remove it")
        return value

    @model_validator(mode="after")
    def _secure(self) -> RemoteWriteConfig:
        if isinstance(self.url, str):
            check_url(self.url, inside=bool(self.allow))
        return self


class OutputConfig(ConfigModel):
    """Output of a stream; exactly one of the keys."""

    kafka: KafkaOutputConfig | None = None
    remote_write: RemoteWriteConfig | None = None

    @model_validator(mode="after")
    def _one(self) -> OutputConfig:
        if len(self.model_fields_set) != 1:
            raise ValueError("give exactly one of kafka, remote_write")
        return self
