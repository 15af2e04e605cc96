"""Rules of ``serve``: addresses, names of streams and teams."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from urllib.parse import SplitResult, urlsplit

from pipeline.config.diagnostics import closest
from pipeline.config.problems import Finding, KeyPath
from pipeline.config.schema import Config
from pipeline.config.serve import OpenIdConfig


def serve_rules(config: Config) -> Iterator[Finding]:
    """Yield a finding for each rule that ``serve`` breaks."""
    serve = config.served
    if serve is None:
        return
    if serve.url is not None and not _is_site(serve.url):
        yield Finding(
            ("serve", "url"),
            f"{serve.url!r} is not the address of a site",
            "write https://forewatch.example.com, without a path (http:// only for this machine)",
        )
    if serve.oidc is not None:
        yield from _oidc(config, serve.oidc, ("serve", "oidc"))
        if serve.url is None:
            yield Finding(
                ("serve", "oidc"),
                "the provider needs the public address to come back to",
                "write it as `serve.url`, and allow URL/login/oidc/callback at the provider",
            )


def _oidc(config: Config, oidc: OpenIdConfig, at: KeyPath) -> Iterator[Finding]:
    if not _is_secure(_parts(oidc.issuer)):
        yield Finding(
            (*at, "issuer"),
            f"{oidc.issuer!r} is not an https:// address",
            "write the address of the provider",
        )
    if "openid" not in oidc.scopes:
        yield Finding((*at, "scopes"), "lacks openid", "add openid: without it there is no login")
    if oidc.ca is not None and not oidc.ca.is_file():
        yield Finding((*at, "ca"), f"there is no file {oidc.ca}", "give the path of a PEM file")
    teams = sorted({one.team for one in config.streams.values() if one.team is not None})
    for group, rights in oidc.groups.items():
        for key, names, known in (
            ("streams", rights.streams, config.streams),
            ("teams", rights.teams, teams),
        ):
            for number, name in enumerate(names):
                if name not in known:
                    path = (*at, "groups", group, key, number)
                    remedy = closest(name, known) if known else "write `team: NAME` into a stream"
                    yield Finding(path, f"there is no {key[:-1]} {name!r}", remedy)


def _parts(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        valid = parts.hostname and (parts.port is None or parts.port) and not parts.username
    except ValueError:
        return None
    return parts if valid and not any(character.isspace() for character in url) else None


def _is_site(url: str) -> bool:
    parts = _parts(url)
    return (
        _is_secure(parts)
        and parts is not None
        and not (parts.path.strip("/") or parts.query or parts.fragment)
    )


def _is_secure(parts: SplitResult | None) -> bool:
    if parts is None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_local_name(parts.hostname or ""))


def is_local_name(name: str) -> bool:
    """Return whether a host name or address stands for this machine only."""
    if name == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
