"""Limits of the requests of a principal, and of refused keys of an address."""

from __future__ import annotations

import math
import time
from ipaddress import IPv6Address, ip_address

from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter, SlidingWindowCounterRateLimiter

from pipeline.config.serve import ServeConfig


class RequestLimiter:
    """Counts requests of the last minute, in the memory of this process."""

    def __init__(self, serve: ServeConfig) -> None:
        """Take the limits of a config."""
        storage = MemoryStorage()
        self._requests = SlidingWindowCounterRateLimiter(storage)
        self._failures = MovingWindowRateLimiter(storage)
        self._most_requests = RateLimitItemPerMinute(serve.requests_per_minute)
        self._most_failures = RateLimitItemPerMinute(serve.failures_per_minute)

    def count_request(self, identity: str) -> int | None:
        """Count a request; return the seconds to wait if there were too many."""
        if self._requests.hit(self._most_requests, identity):
            return None
        return _seconds(self._requests.get_window_stats(self._most_requests, identity).reset_time)

    def count_failure(self, address: str | None) -> int | None:
        """Count a refused key or login; return the seconds to wait if there were too many."""
        identity = f"failure {network_of(address)}"
        if self._failures.hit(self._most_failures, identity):
            return None
        return _seconds(self._failures.get_window_stats(self._most_failures, identity).reset_time)

    def failures_exceeded(self, address: str | None) -> int | None:
        """Return the seconds to wait if the address has used up its failures."""
        identity = f"failure {network_of(address)}"
        if self._failures.test(self._most_failures, identity):
            return None
        return _seconds(self._failures.get_window_stats(self._most_failures, identity).reset_time)


def network_of(address: str | None) -> str:
    """Return an IPv4 address, or the /64 network of an IPv6 address.

    One host can use all addresses of such a network.
    """
    try:
        parsed = ip_address((address or "").partition("%")[0])
    except ValueError:
        return "unknown"
    if isinstance(parsed, IPv6Address):
        mapped = parsed.ipv4_mapped
        return str(mapped) if mapped else f"{IPv6Address(int(parsed) >> 64 << 64)}/64"
    return str(parsed)


def _seconds(reset_time: float) -> int:
    return max(1, math.ceil(reset_time - time.time()))
