"""SSRF filter: addresses to which alerts may be sent, checked after resolution, before each connection.

A person who can write an address into the configuration (or into the DNS) must not be able to make this
process call its own machine, the network around it or the metadata service of its cloud. A name is resolved
once, every address of the answer is checked, and the connection goes to a checked address. A second look-up,
which could answer differently (DNS rebinding), does not happen.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence

from pipeline.config.endpoints import NETWORKS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Forbidden whatever ``allow`` contains: link-local (with the metadata services of AWS, GCP, Azure),
#: multicast, "this network", reserved.
_FORBIDDEN_NETWORKS = [
    ipaddress.ip_network(n)
    for n in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "168.63.129.16/32",  # Azure's platform address, in the public range
        "100.100.100.200/32",  # Alibaba's metadata service, in the carrier-grade NAT range
        "fd00:ec2::254/128",  # AWS's metadata service over IPv6
        "::/128",
        "fe80::/10",
        "fec0::/10",
        "ff00::/8",
    )
]

#: IPv6 addresses with an IPv4 address inside, which a gateway would call: the plain address can be used
#: instead.
_TUNNEL_NETWORKS = [
    ipaddress.ip_network(n)
    for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96", "::/96")
]

#: Networks that are not public, although Python 3.11 counts them so: all of IPv6 but global unicast, its
#: documentation range of RFC 9637, and the relays of 6to4.
_NOT_PUBLIC = [
    ipaddress.ip_network(n) for n in ("::/3", "4000::/2", "8000::/1", "3fff::/20", "192.88.99.0/24")
]


class ForbiddenAddress(Exception):
    """Raised for an address that may not be called; the message says how to allow an internal receiver."""


def allowed_networks(allow: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of an ``allow`` list."""
    return tuple(ipaddress.ip_network(n) for entry in allow for n in NETWORKS.get(entry, (entry,)))


def check_address(address: str, allowed: Sequence[Network], *, encrypted: bool = True) -> Address:
    """Return ``address`` (as getaddrinfo gives it) if it may be called.

    Public addresses are allowed over an encrypted connection, internal ones if ``allowed`` contains them,
    link-local, metadata, multicast and tunnelled ones never.

    Args:
        address: The address.
        allowed: Networks that may be called besides public ones, also without encryption.
        encrypted: False for a connection in clear, which needs an address in ``allowed``.

    Raises:
        ForbiddenAddress: the address may not be called.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if "%" in address or _within(ip, _FORBIDDEN_NETWORKS):
        raise ForbiddenAddress(
            f"{ip} is a link-local, metadata, multicast or reserved address, which is never allowed"
        )
    if _within(ip, allowed):
        return ip
    if _within(ip, _TUNNEL_NETWORKS):
        raise ForbiddenAddress(
            f"{ip} contains an IPv4 address behind a gateway, which is never allowed; write the IPv4 address"
        )
    if not ip.is_global or _within(ip, _NOT_PUBLIC):
        raise ForbiddenAddress(
            f"{ip} is not a public address; if the receiver is internal, allow its network: allow: [{ip}/{ip.max_prefixlen}]"
        )
    if not encrypted:
        raise ForbiddenAddress(
            f"{ip} is a public address outside the networks of `allow`, and the connection would not be encrypted; "
            "use https:// (for mail: starttls or tls)"
        )
    return ip


def check_addresses(
    host: str, answers: Sequence[str], allowed: Sequence[Network], *, encrypted: bool = True
) -> list[str]:
    """Return the addresses to try, in the order of the answer.

    One forbidden address forbids the whole answer of a name.
    """
    try:
        return [str(check_address(a, allowed, encrypted=encrypted)) for a in answers]
    except ForbiddenAddress as error:
        raise ForbiddenAddress(f"{host}: {error}") from None


async def resolve_allowed(
    host: str, port: int, allowed: Sequence[Network], *, encrypted: bool = True
) -> list[str]:
    """Resolve and check. Raises OSError (no answer) and ForbiddenAddress."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    answers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    return check_addresses(host, answers, allowed, encrypted=encrypted)


def connect_allowed(
    host: str, port: int, allowed: Sequence[Network], timeout: float, *, encrypted: bool = True
) -> socket.socket:
    """Open a blocking connection to a checked address.

    Args:
        host: Name or address.
        port: TCP port.
        allowed: Networks that may be called besides public ones.
        timeout: Seconds for each address.
        encrypted: False if the connection stays in clear.

    Raises:
        OSError: no address answers.
        ForbiddenAddress: an address may not be called.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    answers = list(dict.fromkeys(str(entry[4][0]) for entry in found))
    addresses = check_addresses(host, answers, allowed, encrypted=encrypted)
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), timeout)
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), timeout)


def _within(ip: Address, among: Sequence[Network]) -> bool:
    return any(ip.version == n.version and ip in n for n in among)
