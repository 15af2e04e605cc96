"""A delivery process for the fault tests: ``python -m tests.faults.alert_worker DATABASE URL [DIE]``; it ends
itself where DIE says.

DIE is ``before`` (claimed, not called), ``during`` (called, no answer yet), ``after`` (answered, not
recorded) or left out.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from pipeline.alerts.delivery.loop import DeliveryLoop
from pipeline.alerts.metrics import AlertMetrics
from pipeline.alerts.routing.router import Router
from pipeline.alerts.transport.http import HttpSender
from pipeline.config.alerts import AlertsConfig
from pipeline.config.stream_names import OPERATIONS_STREAM
from pipeline.observability.metrics import Metrics
from storage.sql.database import Database
from tests.support.alerting import json_endpoint


def main() -> None:
    url, receiver, die = sys.argv[1], sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else ""
    if die:
        _die(die)
    ends = {"hook": json_endpoint(receiver, timeout="5s")}
    router = Router(
        {"plant": AlertsConfig(storm=None, max_age=None), OPERATIONS_STREAM: AlertsConfig()}, ends
    )
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    print("up", flush=True)
    DeliveryLoop(Database(url), router, ends, AlertMetrics(Metrics())).run(stop)


def _die(when: str) -> None:
    """kill -9 of ourselves at a certain place of the third call."""
    original, calls = HttpSender.send, [0]

    async def send(self, message):  # type: ignore[no-untyped-def]
        calls[0] += 1
        if when == "before" and calls[0] == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        outcome = await original(self, message)
        if when == "after" and calls[0] >= 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return outcome

    HttpSender.send = send  # type: ignore[method-assign]


if __name__ == "__main__":
    main()
