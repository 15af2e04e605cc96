"""Files as people have them, through a backfill: headers, encodings, orders of rows, compression."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config.schema import Config
from pipeline.core.types import Counts
from pipeline.observability.progress_bar import Progress
from pipeline.services.backfill import run_backfill
from tests.integration.test_cli_process import Shell

FORM = {"series": "k", "time": "t", "values": ["v"]}
ROWS = [f"2026-02-01T00:{i:02}:00Z,a,{20 + i % 3}.5" for i in range(40)]
JSON_ROWS = "".join(f'{{"k":"a","t":"2026-02-01T00:{i:02}:00Z","v":{i % 3}}}\n' for i in range(40)).encode()


class Quiet(Progress):
    """Progress that is not shown."""

    def advance(self, count: int) -> None: ...
    def expect(self, total: int) -> None: ...


def config(folder: Path, path: str, form: dict[str, Any], kind: str = "csv") -> Config:
    source = {"files": {"paths": [path]}}
    return Config.model_validate(
        {
            "database": f"sqlite:///{folder}/x.db",
            "storage": {"history": False},
            "streams": {"s": {"source": source, "format": {kind: form}, "detector": "light"}},
        }
    )


def backfill(folder: Path, name: str, content: bytes, form: dict[str, Any], kind: str = "csv") -> Counts:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    made = config(folder, str(path), form, kind)
    return run_backfill(made, "s", [path], None, None, folder / "scores.parquet", Quiet()).counts


def lz4(content: bytes) -> bytes:
    packed = pa.BufferOutputStream()
    with pa.CompressedOutputStream(packed, "lz4") as stream:
        stream.write(content)
    return packed.getvalue().to_pybytes()


def csv(*rows: str, header: str = "t,k,v") -> str:
    return "\n".join([header, *rows]) + "\n"


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("x.csv", csv(*reversed(ROWS)).encode(), {}),
        ("x.csv", csv(*ROWS[::2], *ROWS[1::2][::-1]).encode(), {}),
        ("x.csv", ("# logger\nsite north\n\n" + csv(*ROWS)).encode(), {}),
        ("x.csv", ("; note\n" + csv(*ROWS[:20], "; more", *ROWS[20:])).encode(), {"comment": ";"}),
        ("x.csv", csv("ISO,-,°C", *ROWS).encode(), {"skip_after_header": 1}),
        ("x.csv", ("one\ntwo\n" + csv(*ROWS)).encode(), {"skip": 2}),
        ("x.csv", ("sep=;\n" + csv(*ROWS).replace(",", ";")).encode(), {}),
        ("x.csv", csv(*ROWS).replace(",", ";").replace(".5", ",5").encode(), {"decimal": ","}),
        ("x.tsv", csv(*ROWS).replace(",", "\t").encode(), {}),
        ("x.csv", csv(*ROWS).encode("utf-16"), {"encoding": "utf-16"}),
        ("x.csv", csv(*ROWS).replace("a,", "ü,").encode("latin-1"), {"encoding": "latin-1"}),
        ("x.csv.gz", gzip.compress(csv(*ROWS).encode(), mtime=0), {}),
        ("x.csv.zst", pa.compress(csv(*ROWS).encode(), "zstd", asbytes=True), {}),
        ("x.csv.bz2", bz2.compress(csv(*ROWS).encode()), {}),
        (
            "x.csv.bz2",
            bz2.compress(csv(*ROWS[:20]).encode())
            + bz2.compress(csv(*ROWS[20:], header="").strip().encode()),
            {},
        ),
        ("x.csv.xz", lzma.compress(csv(*ROWS).encode("utf-16")), {"encoding": "utf-16"}),
        ("x.tsv.lz4", lz4(csv(*ROWS).replace(",", "\t").encode()), {}),
        ("k=a/x.csv", csv(*(row.replace(",a", "") for row in ROWS), header="t,v").encode(), {}),
    ],
)
def test_files(name, content, keys, tmp_path):
    counts = backfill(tmp_path, name, content, FORM | keys)
    assert (counts.scored, counts.late, counts.dead_lettered) == (40, 0, 0)
    times = pq.read_table(tmp_path / "scores.parquet")["timestamp"].to_pylist()
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.jsonl", JSON_ROWS),
        ("x.ndjson", JSON_ROWS + b"\n"),
        ("x.jsonl.gz", gzip.compress(JSON_ROWS, mtime=0)),
        ("x.json.xz", lzma.compress(JSON_ROWS)),
        ("x.jsonl.bz2", bz2.compress(JSON_ROWS)),
        ("x.ndjson.zst", pa.compress(JSON_ROWS, "zstd", asbytes=True)),
    ],
)
def test_lines_of_json(name, content, tmp_path):
    assert backfill(tmp_path, name, content, FORM, "json").scored == 40


def test_folders_name_columns_of_parquet(tmp_path):
    file = tmp_path / "k=north%20hall" / "x.parquet"
    file.parent.mkdir()
    times = pa.array([row.split(",")[0] for row in ROWS])
    pq.write_table(pa.table({"t": times, "v": [float(i % 3) for i in range(40)]}), file)
    counts = run_backfill(
        config(tmp_path, str(file), FORM), "s", [file], None, None, tmp_path / "s.parquet", Quiet()
    ).counts
    assert counts.scored == 40
    assert set(pq.read_table(tmp_path / "s.parquet")["series"].to_pylist()) == {"north hall"}


def test_a_few_rows_out_of_order_stay_late_as_in_a_log(tmp_path):
    rows = [*ROWS[:10], ROWS[5].replace(":00Z", ":30Z"), *ROWS[10:]]
    assert backfill(tmp_path, "x.csv", csv(*rows).encode(), FORM).late == 1


@pytest.mark.parametrize(
    ("header", "reason"),
    [("when,k,v", "no column t; there are when, k, v"), ("t,k,v", "time_format sets another spelling")],
)
def test_a_backfill_that_decodes_nothing_ends_with_2(header, reason, tmp_path):
    rows = ROWS if header.startswith("when") else ["soon,a,1"] * 5
    (tmp_path / "x.csv").write_text(csv(*rows, header=header))
    yaml = tmp_path / "c.yaml"
    yaml.write_text(
        f"database: sqlite:///{tmp_path}/x.db\nhttp: null\nstreams:\n  s:\n    detector: light\n"
        f"    source: {{files: {{paths: [{tmp_path}/x.csv]}}}}\n"
        "    format: {csv: {series: k, time: t, values: [v]}}\n"
    )
    done = Shell(tmp_path).run("backfill", yaml, "-s", "s", "-i", tmp_path / "x.csv", code=2)
    assert f"none of {len(rows)} records could be decoded" in done.stderr
    assert reason in done.stderr


def test_a_stream_of_json_is_backfilled_from_csv(tmp_path):
    assert backfill(tmp_path, "x.csv", csv(*ROWS).encode(), FORM, "json").scored == 40
