"""Open data sets: hashes, a real server, and messages where there is none."""

from __future__ import annotations

import gzip
import hashlib
import socket
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from pipeline.core.errors import InputError, SourceUnavailable
from pipeline.evaluate.open_data import OpenFile, OpenSet, fetch_set, missing_files, open_sets, states
from tests.integration.test_cli_process import Shell
from tests.support.receiver import Received, Receiver, answer

CONTENT = {"toy/a.csv": b"timestamp,value\n1,2\n", "toy/b.log.gz": b"one line\n"}


@pytest.fixture
def server() -> Iterator[Receiver]:
    def behave(request: Received) -> bytes:
        content = CONTENT.get(request.path.lstrip("/"))
        return answer(404) if content is None else answer(200, content)

    with Receiver(behave) as running:
        yield running


def toy(port: int) -> OpenSet:
    files = tuple(
        OpenFile(path, f"http://127.0.0.1:{port}/{path}", hashlib.sha256(content).hexdigest())
        for path, content in CONTENT.items()
    )
    return OpenSet("toy", "toy", "two files", "https://toy.example", "none", files=files)


def test_files_are_fetched_once_and_compressed(server, tmp_path):
    assert fetch_set(toy(server.port), tmp_path) == 2
    assert (tmp_path / "toy/a.csv").read_bytes() == CONTENT["toy/a.csv"]
    assert gzip.decompress((tmp_path / "toy/b.log.gz").read_bytes()) == CONTENT["toy/b.log.gz"]
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == ["a.csv", "b.log.gz"]
    assert fetch_set(toy(server.port), tmp_path) == 0
    (tmp_path / "toy/a.csv").write_bytes(b"damaged")
    assert fetch_set(toy(server.port), tmp_path) == 1
    assert missing_files(toy(server.port), tmp_path) == []


def test_another_content_is_refused_and_not_kept(server, tmp_path):
    one = toy(server.port)
    wrong = replace(one, files=(one.files[0]._replace(sha256="0" * 64),))
    with pytest.raises(SourceUnavailable, match="has another content than the one that was measured"):
        fetch_set(wrong, tmp_path)
    assert not (tmp_path / "toy/a.csv").exists()


def test_what_cannot_be_fetched_is_said_with_place_and_hash(tmp_path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        one = toy(free.getsockname()[1])
    with pytest.raises(SourceUnavailable) as refused:
        fetch_set(one, tmp_path)
    for said in (one.files[0].url, one.files[0].sha256, one.origin, str(tmp_path / "toy/a.csv"), "--mirror"):
        assert said in str(refused.value)
    assert "2 of 2 files are missing" in str(refused.value)
    assert refused.value.exit_code == 3


def test_a_set_that_needs_preparation(tmp_path):
    with pytest.raises(InputError, match=r"manifest\.csv"):
        fetch_set(open_sets()["ucr"], tmp_path)


def test_the_hashes_are_those_of_the_measured_files(shared_data):
    for one in open_sets().values():
        assert missing_files(one, shared_data) == []
    assert {one.name: state for one, state in states(shared_data)}["nab"] == "complete"


def test_the_commands(tmp_path):
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        mirror = f"http://127.0.0.1:{free.getsockname()[1]}"
    shell = Shell(tmp_path)
    assert "59 of 59 files missing" in shell.run("data", "list").stdout
    refused = shell.run("data", "fetch", "nab", "--mirror", mirror, code=3)
    assert f"{mirror}/nab/" in refused.stderr
    assert "there is no set nob" in shell.run("data", "fetch", "nob", code=2).stderr
    assert "prepar" in shell.run("data", "fetch", "ucr", code=2).stderr
