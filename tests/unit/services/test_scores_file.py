"""The file of ``backfill --scores``: what becomes of it where it cannot be written."""

from __future__ import annotations

import pytest

from pipeline.core.errors import InputError
from pipeline.services.scores_file import ScoresWriter

SCORER = None  # nothing is scored here


@pytest.mark.parametrize("name", ["no/such/folder/scores.csv", "folder.csv"])
def test_a_file_that_cannot_be_written_is_said_before_the_work(tmp_path, name):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(InputError, match=rf"--scores .*{name} cannot be written: "):
        ScoresWriter(tmp_path / name, SCORER)


def test_a_disk_that_is_full_is_a_message(tmp_path, monkeypatch):
    full = tmp_path / "scores.csv"
    full.symlink_to("/dev/full")
    writer = ScoresWriter(full, SCORER)
    writer._file.write(b"s,t")  # still in the buffer
    with pytest.raises(InputError, match="cannot be written: No space left on device"):
        writer.close()


def test_where_nothing_was_scored_there_is_no_file(tmp_path):
    ScoresWriter(tmp_path / "scores.parquet", SCORER).close()
    assert list(tmp_path.iterdir()) == []
