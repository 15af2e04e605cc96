"""The end of an anomaly that is no return to usual values is named to people."""

from __future__ import annotations

import msgspec

from pipeline.alerts.messages import text
from pipeline.alerts.sample import sample_payload
from pipeline.core.types import EndReason


def lines(status: str, reason: EndReason) -> dict[str, str]:
    alert = sample_payload().data
    ended = [msgspec.structs.replace(one, state="closed", end_reason=str(reason)) for one in alert.anomalies]
    alert = msgspec.structs.replace(alert, status=status, resolved=alert.opened, anomalies=ended)
    return {line.label: line.text for line in text.lines(alert)}


def test_a_message_names_a_removed_file() -> None:
    assert lines("resolved", EndReason.FILE_REMOVED)["End"] == (
        "its file was removed; later values are unknown"
    )


def test_a_recovery_needs_no_words() -> None:
    assert "End" not in lines("resolved", EndReason.RECOVERED)
    assert "End" not in lines("open", EndReason.FILE_REMOVED)
    assert "End" not in lines("resolved", EndReason("a word of a later version"))
