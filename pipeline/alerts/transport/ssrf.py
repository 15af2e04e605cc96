"""The SSRF guard: which addresses an alert may be sent to, decided on the resolved address at the moment of
connecting.

Whoever can put an address into the configuration (or into the DNS) must not be able to make this process call
its own machine, the network around it or the metadata service of its cloud. A name is resolved once, every
address of the answer is judged, and the connection goes to the very address that was judged: there is no
second look-up that could answer differently (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Iterable, Sequence

from pipeline.config.endpoints import NETWORKS

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Never, whatever ``allow`` says: link-local (with the metadata services of AWS, GCP, Azure), multicast,
#: "this network", reserved.
_NEVER = [
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

#: IPv6 addresses that carry an IPv4 address where a gateway would take them: the answer is no, the plain
#: address can be written instead.
_TUNNELS = [
    ipaddress.ip_network(n)
    for n in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32", "::ffff:0:0:0/96", "::/96")
]


class ForbiddenAddress(Exception):
    """The address may not be called. The message says which, and how an internal receiver is allowed."""


def allowed_networks(allow: Iterable[str]) -> tuple[Network, ...]:
    """The networks that an ``allow`` list names."""
    return tuple(ipaddress.ip_network(n) for entry in allow for n in NETWORKS.get(entry, (entry,)))


def check_address(address: str, allowed: Sequence[Network]) -> Address:
    """``address`` (as getaddrinfo gives it) if it may be called; raises Forbidden.

    Public addresses may always; addresses inside if ``allowed`` holds them; link-local, metadata, multicast
    and tunnelled ones never.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    if "%" in address or _within(ip, _NEVER):
        raise ForbiddenAddress(
            f"{ip} is a link-local, metadata, multicast or reserved address, which is never called"
        )
    if _within(ip, allowed):
        return ip
    if _within(ip, _TUNNELS):
        raise ForbiddenAddress(
            f"{ip} hides an IPv4 address behind a gateway, which is never called; write the address itself"
        )
    if not ip.is_global:
        raise ForbiddenAddress(
            f"{ip} is not a public address; if the receiver is inside, name its network: allow: [{ip}/{ip.max_prefixlen}]"
        )
    return ip


def check_addresses(host: str, answers: Sequence[str], allowed: Sequence[Network]) -> list[str]:
    """The addresses to try, in the order of the answer.

    One forbidden address condemns the whole answer of a name.
    """
    try:
        return [str(check_address(a, allowed)) for a in answers]
    except ForbiddenAddress as error:
        raise ForbiddenAddress(f"{host}: {error}") from None


async def resolve_allowed(host: str, port: int, allowed: Sequence[Network]) -> list[str]:
    """Resolve and judge. Raises OSError (no answer) and Forbidden."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return check_addresses(host, list(dict.fromkeys(str(entry[4][0]) for entry in found)), allowed)


def connect(host: str, port: int, allowed: Sequence[Network], timeout: float) -> socket.socket:
    """A blocking connection to a judged address. Raises OSError and Forbidden."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = check_addresses(host, list(dict.fromkeys(str(entry[4][0]) for entry in found)), allowed)
    for address in addresses[:-1]:
        try:
            return socket.create_connection((address, port), timeout)
        except OSError:
            continue
    return socket.create_connection((addresses[-1], port), timeout)


def _within(ip: Address, among: Sequence[Network]) -> bool:
    return any(ip.version == n.version and ip in n for n in among)
