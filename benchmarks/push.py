"""Samples per second that a push source receives, keeps and decodes."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx

from benchmarks.record_formats import remote_write
from pipeline.config.schema import PushSourceConfig, Stream
from pipeline.decode import make_decoder
from pipeline.decode.metrics_formats import content_check
from pipeline.sources.push.source import PushSource
from tests.support.postgres_server import free_port
from tests.support.remote_write import HEADERS, snappy

SENDERS, REQUESTS, SAMPLES = 4, 100, 2000


def main() -> None:
    """Measure and print."""
    stream = Stream.model_validate({"source": {"push": {}}, "format": {"remote_write": {}}})
    bodies = [snappy(remote_write(scrape, 0, SAMPLES)) for scrape in range(REQUESTS)]
    check = content_check(stream.format.chosen)
    assert check is not None
    with TemporaryDirectory() as folder:
        port = free_port()
        source = PushSource("bench", PushSourceConfig(port=port), Path(folder), check)
        (partition,) = source.poll(1, 0.1).assigned
        source.seek(partition, 0)
        source.resume([partition])
        threads = [threading.Thread(target=_send, args=(port, bodies)) for _ in range(SENDERS)]
        started, cpu = time.perf_counter(), time.process_time()
        for thread in threads:
            thread.start()
        decoder, points, wanted = make_decoder("bench", stream), 0, SENDERS * REQUESTS * SAMPLES
        while points < wanted:
            for records in source.poll(20_000, 0.1).records:
                points += len(decoder.decode(records).columns)
        wall, used = time.perf_counter() - started, time.process_time() - cpu
        source.close()
    figures = {"samples/s": round(points / wall), "samples/s of CPU, senders included": round(points / used)}
    print(json.dumps({"benchmark": "push", **figures}))


def _send(port: int, bodies: list[bytes]) -> None:
    with httpx.Client(verify=False) as client:
        for body in bodies:
            client.post(
                f"http://127.0.0.1:{port}/push/bench", content=body, headers=HEADERS
            ).raise_for_status()


if __name__ == "__main__":
    main()
