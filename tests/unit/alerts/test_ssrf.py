"""The SSRF guard: every kind of address that must not be called, and the ones that may."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from datetime import UTC, datetime
from uuid import uuid4

import httpcore
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.alerts.delivery.senders import sender_of
from pipeline.alerts.messages.payload import encode
from pipeline.alerts.sample import sample_payload
from pipeline.alerts.transport.base import Message
from pipeline.alerts.transport.filtered_network import SsrfFilterBackend
from pipeline.alerts.transport.ssrf import ForbiddenAddress, allowed_networks, check_address, check_addresses
from tests.support.alerting import endpoint

INSIDE = allowed_networks(["private", "loopback"])


@pytest.mark.parametrize(
    "address", ["93.184.216.34", "8.8.8.8", "2606:4700::1111", "2a00:1450:4001:80b::200e"]
)
def test_public_addresses_may_be_called(address: str):
    assert str(check_address(address, ())) == address


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "::1",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",  # carrier-grade NAT
        "192.0.2.1",  # documentation
        "198.18.0.1",  # benchmarking
        "fc00::1",
        "fd12:3456::1",
        "::ffff:127.0.0.1",  # IPv4-mapped
        "::ffff:10.0.0.1",
        "::127.0.0.1",  # IPv4-compatible
        "64:ff9b::7f00:1",  # NAT64 of 127.0.0.1
        "64:ff9b:1::1",
        "2002:7f00:1::",  # 6to4 of 127.0.0.1
        "2002:a9fe:a9fe::1",  # 6to4 of 169.254.169.254
        "2001:0:4136:e378:8000:63bf:3fff:fdd2",  # Teredo
        "2001:db8::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "abcd::1",
        "192.88.99.1",
    ],
)
def test_addresses_inside_are_refused_unless_allowed(address: str):
    with pytest.raises(ForbiddenAddress):
        check_address(address, ())


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254",
        "169.254.170.2",
        "::ffff:169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "fe80::1",
        "fe80::1%eth0",
        "224.0.0.1",
        "239.255.255.250",
        "ff02::1",
        "255.255.255.255",
        "0.0.0.0",
        "::",
    ],
)
def test_metadata_link_local_and_multicast_are_refused_whatever_is_allowed(address: str):
    with pytest.raises(ForbiddenAddress):
        check_address(address, allowed_networks(["0.0.0.0/0", "::/0"]))


def test_the_allow_list_opens_what_it_names_and_nothing_else():
    allowed = allowed_networks(["10.1.0.0/16"])
    assert str(check_address("10.1.2.3", allowed)) == "10.1.2.3"
    assert str(check_address("::ffff:10.1.2.3", allowed)) == "10.1.2.3"
    with pytest.raises(ForbiddenAddress, match=r"allow: \[10\.2\.0\.1/32\]"):
        check_address("10.2.0.1", allowed)
    assert check_address("192.168.3.4", INSIDE)
    assert check_address("fd12::1", INSIDE)


@given(st.ip_addresses())
def test_nothing_but_public_addresses_passes_an_empty_list(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
):
    try:
        check_address(str(address), ())
    except ForbiddenAddress:
        return
    assert address.is_global
    assert not address.is_multicast
    assert not address.is_link_local


def test_one_bad_address_condemns_the_answer():
    with pytest.raises(ForbiddenAddress, match=r"evil\.example: 127\.0\.0\.1"):
        check_addresses("evil.example", ["93.184.216.34", "127.0.0.1"], ())


def test_the_backend_connects_to_the_judged_address_and_asks_the_dns_once(monkeypatch):
    """Rebinding: the first answer is public, a second one would be loopback. There is no second look-up."""
    asked: list[str] = []

    async def getaddrinfo(self, host, port, **kw):
        asked.append(host)
        return [
            (
                socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                ("93.184.216.34" if len(asked) == 1 else "127.0.0.1", port),
            )
        ]

    called: list[str] = []

    async def open_connection(host, port):
        called.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(asyncio, "open_connection", open_connection)

    async def call() -> None:
        async with httpcore.AsyncConnectionPool(network_backend=SsrfFilterBackend([])) as pool:
            await pool.request("POST", "http://rebind.example/", content=b"x")

    with pytest.raises(httpcore.ConnectError):
        asyncio.run(call())
    assert (asked, called) == (["rebind.example"], ["93.184.216.34"])
    with pytest.raises(ForbiddenAddress):
        asyncio.run(call())
    assert called == ["93.184.216.34"]


def test_a_name_of_this_machine_is_refused():
    async def call() -> None:
        async with httpcore.AsyncConnectionPool(network_backend=SsrfFilterBackend([])) as pool:
            await pool.request("POST", "http://localhost:9/", content=b"x")

    with pytest.raises(ForbiddenAddress, match="not a public address"):
        asyncio.run(call())


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:4700::1111", "::ffff:93.184.216.34"])
def test_clear_connections_need_an_address_that_is_allowed(address: str):
    with pytest.raises(ForbiddenAddress, match="not be encrypted"):
        check_address(address, INSIDE, encrypted=False)
    network = "93.184.216.0/24" if "." in address else "2606:4700::/32"
    assert check_address(address, allowed_networks([network]), encrypted=False)
    assert check_address("10.1.2.3", INSIDE, encrypted=False)


@pytest.mark.parametrize("allow", [["private", "loopback"], ["10.0.0.0/8"], ["192.0.2.0/24"]])
def test_http_to_a_public_address_is_refused_at_connect_time(monkeypatch, allow: list[str]):
    connected: list[str] = []

    async def connect(host: str, port: int) -> None:
        connected.append(host)
        raise OSError("no network in this test")

    monkeypatch.setattr(asyncio, "open_connection", connect)
    for scheme, expected in (("http", []), ("https", ["93.184.216.34"])):
        sender = sender_of(
            endpoint(type="alertmanager", url=f"{scheme}://93.184.216.34:9093", allow=allow), lambda _: None
        )
        payload = sample_payload()
        message = Message(uuid4(), "test", encode(payload), payload, datetime.now(UTC))
        result = asyncio.run(sender.send(message))
        assert not result.delivered
        assert connected == expected
        assert ("not be encrypted" in result.answer) is (scheme == "http")


def test_mail_in_clear_to_a_public_address_is_refused():
    mail = {"type": "email", "host": "93.184.216.34", "sender": "a@example.org", "to": ["b@example.org"]}
    sender = sender_of(endpoint(**mail, security="none", allow=["private"]), lambda _: None)
    payload = sample_payload()
    message = Message(uuid4(), "test", encode(payload), payload, datetime.now(UTC))
    result = asyncio.run(sender.send(message))
    assert "not be encrypted" in result.answer
