"""Configuration of the receivers of alerts (``endpoints``), one model for each type."""

from __future__ import annotations

import ipaddress
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, field_validator, model_validator

from pipeline.config.field_types import ConfigModel, Duration, Secret
from pipeline.config.kafka_security import KafkaSecurity, TopicName

#: Names of networks in ``allow``. Link-local and metadata addresses have no name: they are never allowed.
NETWORKS = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
}

Url = str | Secret


def _per_second(value: Any) -> Any:
    """Convert ``1 per second`` or ``30 per minute`` to messages per second."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s+per\s+(second|minute|hour)\s*", value)
        if found is None:
            raise ValueError("write a rate such as 1 per second or 30 per minute")
        return float(found[1]) / {"second": 1, "minute": 60, "hour": 3600}[found[2]]
    return value


_RATE_TEXT = {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s+per\s+(second|minute|hour)\s*$"}
Rate = Annotated[
    float,
    BeforeValidator(_per_second),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, _RATE_TEXT]}),
]


class EndpointConfig(ConfigModel):
    """Keys of every type of endpoint."""

    urgency: Literal["notice", "page"] = Field(
        "notice", description="notice: receives all alerts; page: receives only alerts that page"
    )
    in_flight: int = Field(
        8,
        ge=1,
        le=256,
        description="maximum number of simultaneous calls; the alerts of one series are sent one after "
        "another",
    )
    rate: Rate | None = Field(
        None, gt=0, description="maximum rate of messages of a delivery process, for example `30 per minute`"
    )
    timeout: Duration = Field(
        timedelta(seconds=15),
        description="timeout of the whole call, from connecting to the last byte of the answer",
    )
    disable_after: Duration = Field(
        timedelta(days=3), description="an endpoint whose attempts all fail for this long is disabled"
    )
    allow: list[str] = Field(
        default_factory=list,
        description="internal networks that may be called: CIDR, `private` or `loopback`; also allows "
        "http:// there. Public addresses are always allowed",
    )

    @field_validator("allow")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        return check_networks(value)


class HttpEndpoint(EndpointConfig):
    """A receiver that is called over HTTP.

    Redirects are not followed and proxies of the environment are not used.
    """

    url: Url = Field(description="https://...; {env: NAME} or {file: PATH} if the address is itself a secret")
    ca: Path | None = Field(None, description="PEM file of the certificate authority of an internal receiver")
    headers: dict[str, str | Secret] = Field(
        default_factory=dict, description="additional headers, for example Authorization: {env: TOKEN}"
    )

    @field_validator("headers")
    @classmethod
    def _headers(cls, value: dict[str, str | Secret]) -> dict[str, str | Secret]:
        for name, text in value.items():
            check_header(name, text if isinstance(text, str) else "")
        return value

    @model_validator(mode="after")
    def _secure(self) -> HttpEndpoint:
        if isinstance(self.url, str):
            check_url(self.url, inside=bool(self.allow))
        return self


class WebhookEndpoint(HttpEndpoint):
    """A webhook with signatures of Standard Webhooks 1.0; the payload is in `docs/reference/alert-payload.schema.json`."""

    type: Literal["webhook"] = Field(description="type of the endpoint")
    secret: Secret | list[Secret] = Field(
        description="`whsec_...`, 24 to 64 random bytes in base64; a list of two signs with both while "
        "a secret is replaced, the new one first"
    )

    @property
    def secrets(self) -> list[Secret]:
        return [self.secret] if isinstance(self.secret, Secret) else self.secret

    @model_validator(mode="after")
    def _few(self) -> WebhookEndpoint:
        if not 1 <= len(self.secrets) <= 2:
            raise ValueError("secret: give one, or two while the secret is replaced (the new one first)")
        return self


class JsonEndpoint(HttpEndpoint):
    """The payload of a webhook as plain JSON, unsigned."""

    type: Literal["json"] = Field(description="type of the endpoint")


class SlackEndpoint(HttpEndpoint):
    """An incoming webhook of Slack."""

    type: Literal["slack"] = Field(description="type of the endpoint")
    rate: Rate | None = Field(
        1.0, gt=0, description="Slack takes one message a second from an incoming webhook"
    )


class TeamsEndpoint(HttpEndpoint):
    """A workflow of Microsoft Teams that starts when a webhook request is received."""

    type: Literal["teams"] = Field(description="type of the endpoint")
    rate: Rate | None = Field(1.0, gt=0, description="Teams takes four requests a second, a channel fewer")


class PagerDutyEndpoint(HttpEndpoint):
    """PagerDuty, Events API v2."""

    type: Literal["pagerduty"] = Field(description="type of the endpoint")
    key: Secret = Field(description="integration (routing) key of the service")
    url: Url = Field(
        "https://events.pagerduty.com/v2/enqueue",
        description="other for the EU region: https://events.eu.pagerduty.com/v2/enqueue",
    )
    urgency: Literal["notice", "page"] = Field(
        "page", description="notice: receives all alerts; page: receives only alerts that page"
    )


class OpsgenieEndpoint(HttpEndpoint):
    """Opsgenie (and Jira Service Management), Alert API."""

    type: Literal["opsgenie"] = Field(description="type of the endpoint")
    key: Secret = Field(description="key of an API integration")
    url: Url = Field(
        "https://api.opsgenie.com", description="other for the EU region: https://api.eu.opsgenie.com"
    )
    urgency: Literal["notice", "page"] = Field(
        "page", description="notice: receives all alerts; page: receives only alerts that page"
    )


class AlertmanagerEndpoint(HttpEndpoint):
    """Prometheus Alertmanager, API v2: it groups, silences and routes further."""

    type: Literal["alertmanager"] = Field(description="type of the endpoint")
    url: Url = Field(description="base address, for example http://alertmanager:9093")
    allow: list[str] = Field(
        ["private", "loopback"], description="an Alertmanager is normally inside; see the other types"
    )


class EmailEndpoint(EndpointConfig):
    """Mail over SMTP."""

    type: Literal["email"] = Field(description="type of the endpoint")
    host: str = Field(description="mail server")
    port: int = Field(587, ge=1, le=65535, description="port of the mail server")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none is allowed only for a server in a network of `allow`"
    )
    ca: Path | None = Field(None, description="PEM file of the certificate authority of an internal server")
    user: str | None = Field(None, description="user name for the mail server")
    password: Secret | None = Field(None, description="password of that user")
    sender: str = Field(description="sender address")
    to: list[str] = Field(min_length=1, description="recipient addresses")
    in_flight: int = Field(2, ge=1, le=16, description="maximum number of mails at the same time")

    @model_validator(mode="after")
    def _mail(self) -> EmailEndpoint:
        for address in (self.sender, *self.to):
            if not re.fullmatch(r"[^\s@<>,;]+@[^\s@<>,;]+", address):
                raise ValueError(f"{address!r} is not a mail address; write name@host")
        if self.security == "none" and not self.allow:
            raise ValueError(
                "security none sends mail unencrypted: add the network of the server to `allow`, "
                "or use starttls"
            )
        if (self.user is None) != (self.password is None):
            raise ValueError("user and password must be given together")
        return self


class KafkaEndpoint(EndpointConfig):
    """A Kafka topic; the key of a record is the series or group, its value the payload of a webhook."""

    type: Literal["kafka"] = Field(description="type of the endpoint")
    brokers: list[str] = Field(min_length=1, description="bootstrap servers, host:port")
    topic: TopicName = Field(description="topic to write to")
    security: KafkaSecurity = Field(
        default_factory=dict, description="SASL and TLS settings, as in a Kafka source"
    )
    password: Secret | None = Field(
        None, description="SASL password; needs a security_protocol in `security`"
    )
    in_flight: int = Field(
        64, ge=1, le=1024, description="maximum number of records without an answer of the broker"
    )


Endpoint = Annotated[
    WebhookEndpoint
    | JsonEndpoint
    | SlackEndpoint
    | TeamsEndpoint
    | PagerDutyEndpoint
    | OpsgenieEndpoint
    | AlertmanagerEndpoint
    | EmailEndpoint
    | KafkaEndpoint,
    Field(discriminator="type"),
]


def check_networks(networks: list[str]) -> list[str]:
    """Return the networks of ``allow``; raise ValueError for an entry that is none."""
    for entry in networks:
        if entry not in NETWORKS:
            try:
                ipaddress.ip_network(entry)
            except ValueError as error:
                raise ValueError(
                    f"{error}; write a network such as 10.1.0.0/16, or private, or loopback"
                ) from None
    return networks


def check_url(url: str, *, inside: bool) -> None:
    """Raise ValueError unless the URL may be called; http is allowed only with ``inside``."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"the address of the endpoint is not a URL: {error}") from None
    if (
        parts.scheme not in ("http", "https")
        or not host
        or not url.isascii()
        or not url.isprintable()
        or " " in url
    ):
        raise ValueError("the address of an endpoint must be https://host/path, in ASCII")
    if parts.username is not None or parts.password is not None:
        raise ValueError(
            "the address of an endpoint must not contain a user or password; write headers: "
            "{Authorization: {env: NAME}}"
        )
    if parts.scheme == "http" and not inside:
        raise ValueError(
            "http:// sends alerts unencrypted: write https://, or add the network of an "
            "internal receiver to `allow`"
        )


def check_header(name: str, value: str) -> None:
    """Raise ValueError if the header cannot be sent as it is (RFC 9110: token; no control characters)."""
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", name):
        raise ValueError(f"{name!r} is not a header name")
    if name.lower() in {
        "host",
        "content-length",
        "transfer-encoding",
        "connection",
    } or name.lower().startswith("webhook-"):
        raise ValueError(f"the header {name} is set by forewatch; remove it")
    if not value.isascii() or (value and not value.isprintable()):
        raise ValueError(f"the value of the header {name} has characters that are not allowed in a header")
