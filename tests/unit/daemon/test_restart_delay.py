"""Pauses between attempts double, up to a limit, and are forgotten after a quiet time."""

from __future__ import annotations

from pipeline.daemon.restart_delay import FIRST_SECONDS, FORGET_SECONDS, MAX_SECONDS, RestartDelay


def test_pauses_double_up_to_the_limit_and_are_forgotten():
    now = 100.0
    delay = RestartDelay(lambda: now)
    pauses = [delay.next_attempt() - now for _ in range(8)]
    assert pauses == [min(FIRST_SECONDS * 2**n, MAX_SECONDS) for n in range(8)]
    now += FORGET_SECONDS + 1
    assert delay.next_attempt() == now + FIRST_SECONDS
