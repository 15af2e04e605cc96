"""Configuration of the HTTP servers (``http``, ``serve``)."""

from __future__ import annotations

import ipaddress
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipeline.config.field_types import ConfigModel, Duration, Secret

ScopeName = Literal["viewer", "operator", "admin"]


class Http(ConfigModel):
    """Address of /healthz, /readyz and /metrics."""

    host: str = Field("127.0.0.1", description="address to listen on")
    port: int = Field(9464, ge=0, le=65535, description="port; 0 takes a free port and logs it")


class GroupRights(ConfigModel):
    """Rights of a group; without streams and teams it sees all streams."""

    scope: ScopeName = Field("viewer", description="viewer, operator or admin; each includes those before")
    streams: list[str] = Field(default_factory=list, description="streams that the group sees")
    teams: list[str] = Field(default_factory=list, description="teams whose streams the group sees")


class OpenIdConfig(ConfigModel):
    """Login of the dashboard by an OpenID provider (authorization code with PKCE)."""

    issuer: str = Field(description="https://... address of the provider, as its discovery document names it")
    client_id: str = Field(min_length=1, description="id of forewatch at the provider")
    client_secret: Secret | None = Field(None, description="secret of forewatch at the provider")
    scopes: list[str] = Field(
        default_factory=lambda: ["openid", "profile", "email"], description="scopes that are requested"
    )
    name_claim: str = Field("preferred_username", description="claim with the name of the person")
    groups_claim: str = Field("groups", description="claim with the groups of the person")
    groups: dict[str, GroupRights] = Field(
        min_length=1, description="group → rights; a person without one of these groups cannot log in"
    )
    ca: Path | None = Field(None, description="PEM file of the authority of an internal provider")


class ServeConfig(ConfigModel):
    """Server of the REST API and the dashboard (daemon and `forewatch serve`)."""

    daemon: bool = Field(True, description="the daemon serves; otherwise only `forewatch serve` does")
    host: str = Field(
        "127.0.0.1", description="address to listen on; beyond loopback a key or oidc is needed"
    )
    port: int = Field(9465, ge=0, le=65535, description="port; 0 takes a free port and logs it")
    url: str | None = Field(
        None,
        description="public address, such as https://forewatch.example.com; links of messages lead there",
    )
    trusted_proxies: list[str] = Field(
        default_factory=list, description="addresses or networks of proxies whose X-Forwarded-For is believed"
    )
    session_idle: Duration = Field(timedelta(hours=8), description="time without requests that ends a login")
    session_max: Duration = Field(timedelta(hours=24), description="longest time of a login")
    requests_per_minute: int = Field(
        6000, ge=1, description="limit of a key, of a login, and of an address without either"
    )
    failures_per_minute: int = Field(10, ge=1, description="limit of refused keys of an address")
    oidc: OpenIdConfig | None = Field(None, description="login by an OpenID provider")

    @field_validator("trusted_proxies")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for entry in value:
            try:
                ipaddress.ip_network(entry)
            except ValueError as error:
                raise ValueError(f"{error}; write an address or a network such as 10.1.0.0/16") from None
        return value

    @model_validator(mode="after")
    def _idle_before_end(self) -> ServeConfig:
        if not timedelta() < self.session_idle <= self.session_max:
            raise ValueError("session_idle: must be above 0 and at most session_max")
        return self
