"""What the demo prints of a training."""

from __future__ import annotations

from types import SimpleNamespace

from pipeline.demo.model_reporter import ModelReporter


def test_passes_of_a_model_without_losses_are_not_printed():
    said: list[str] = []
    reporter = ModelReporter.__new__(ModelReporter)
    reporter._printed, reporter._say = {}, said.append
    job = SimpleNamespace(id=1, kind="train", stream="batches", trigger="history", state="running")
    for progress in ({"phase": "train", "epoch": 7}, {"epoch": 8, "epochs": 12, "held_out": 1.5}):
        job.progress = progress
        reporter._print_job(None, job)
    assert said[1:] == ["[model] job 1: epoch 8 of 12, validation loss 1.500"]
