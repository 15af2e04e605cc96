"""Requests of telegraf's outputs for InfluxDB, as its source code makes them.

Telegraf itself is in ``test_push_agents``. The requests are those of
plugins/outputs/influxdb_v2/http.go and plugins/outputs/influxdb/http.go of github.com/influxdata/telegraf.
"""

from __future__ import annotations

import gzip
from pathlib import Path

import httpx
import pytest

from storage.results import dead_letters
from storage.stream_state import positions
from tests.support.file_daemons import running
from tests.support.postgres_server import free_port

KEY = "a long random text"
T = 1_764_028_800
#: Serialised by telegraf: tags in order, an escaped space, an integer, a boolean and a text beside numbers.
BATCH = "".join(
    f"cpu,cpu=cpu-total,host=web\\ 1 usage_idle={90 + n / 4},usage_user={10 - n / 4} {T + 10 * n}000000000\n"
    f'mem,host=web\\ 1 active=3281313792i,free=true,note="a, b=c" {T + 10 * n}000000000\n'
    for n in range(3)
)


@pytest.mark.parametrize("version", [1, 2])
def test_telegraf_sends_to_a_stream(
    version: int, tmp_path: Path, sqlite_template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUSH_KEY", KEY)
    port = free_port()
    form = {
        "series": ["measurement", "tags.host"],
        "values": {"idle": "fields.usage_idle"},
        "where": {"measurement": "cpu"},
    }
    stream = {
        "source": {"push": {"port": port, "key": {"env": "PUSH_KEY"}}},
        "format": {"line_protocol": form},
        "detector": "light",
    }
    path, scheme = {1: ("write?db=telegraf", "Bearer"), 2: ("api/v2/write?bucket=-&org=-", "Token")}[version]
    headers = {
        "Content-Encoding": "gzip",
        "Content-Type": "text/plain; charset=utf-8",
        "User-Agent": "Telegraf/1.36.0 Go/1.25.0",
        "Authorization": f"{scheme} {KEY}",
    }
    url = f"http://127.0.0.1:{port}/push/bad/{path}"
    with running(tmp_path, sqlite_template, {"bad": stream}) as daemon:
        daemon.until(lambda: not daemon.health.waiting())
        refused = httpx.post(f"{url}&precision=ps", content=gzip.compress(BATCH.encode()), headers=headers)
        assert refused.status_code == 503
        assert "set `precision: ps`" in refused.text
        wrong = httpx.post(url, content=b"", headers=headers | {"Authorization": f"{scheme} wrong"})
        assert wrong.status_code == 401
        in_seconds = BATCH.replace("000000000\n", "\n")
        in_milliseconds = BATCH.replace("000000\n", "\n")
        for precision, batch in {
            "": BATCH,
            "&precision=ns": BATCH,
            "&precision=n": BATCH,
            "&precision=s": in_seconds,
            "&precision=ms": in_milliseconds,
        }.items():
            sent = httpx.post(url + precision, content=gzip.compress(batch.encode()), headers=headers)
            assert (sent.status_code, sent.content) == (204, b"")
        daemon.until(lambda: daemon.read("bad") == 5)
        with daemon.database.read() as connection:
            assert dead_letters.query(connection) == []
            (place,) = positions.all_of(connection, "bad")
        assert daemon.daemon._engines["bad"].parts.scorer.series.key(0) == "cpu\0web 1"
        assert place.counts.scored == 1  # the others are the same points, or wait for the watermark
