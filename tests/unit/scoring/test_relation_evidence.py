"""The evidence of a broken relation: found, stored, and shown on every face."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sqlalchemy import create_engine

from detectors import build
from pipeline.alerts.messages import text
from pipeline.alerts.outbox import decode_anomaly, encode_anomaly
from pipeline.alerts.routing.composer import NotificationContext, compose
from pipeline.alerts.routing.rules import StreamRules
from pipeline.api.routes.anomalies import anomaly_item
from pipeline.cli.commands.anomalies import as_dict
from pipeline.config.alerts import AlertsConfig
from pipeline.config.schema import Config, Stream
from pipeline.core.types import Anomaly, Partition
from pipeline.core.usual_range_text import relation_text
from pipeline.engine.history_sink import HistorySink
from pipeline.models.champion import detector_spec, provenance
from pipeline.scoring.batch_result import BatchResult
from pipeline.scoring.stream_scorer import StreamScorer
from pipeline.services.explain import describe_anomaly
from pipeline.sources.base import TableRecords
from storage.alerting.alerts import AlertMember, AlertRecord
from storage.alerting.states import AlertKind, MemberState
from storage.history import parquet
from storage.results import anomalies
from storage.tables.stream import Base

P = Partition("generated", 0)
EVERY_NS = 15 * 60 * 10**9
DAY_ROWS, DAYS = 96, 14
ROWS = DAY_ROWS * DAYS
FAULT = slice(ROWS - 70, ROWS - 40)
UNITS = {"pressure": "bar", "temperature": "°C"}


def stream_of(channels: tuple[str, ...], preset: str) -> dict[str, Any]:
    return {
        "source": {"memory": {}},
        "format": {"csv": {"series": "s", "time": "t", "time_unit": "ns", "values": list(channels)}},
        "preset": preset,
        "every": "15m",
        "future": None,
        "alerts": {"units": UNITS},
    }


@cache
def scored(channels: tuple[str, ...], preset: str = "sensor") -> tuple[BatchResult, StreamScorer]:
    """Score a temperature that leaves its relation to the pressure."""
    rng = np.random.default_rng(4)
    load = np.zeros(ROWS)
    for i in range(1, ROWS):
        load[i] = 0.9 * load[i - 1] + rng.normal(0, 0.44)
    load[FAULT] = np.linspace(-0.5, -0.1, FAULT.stop - FAULT.start)  # a quiet stretch within all ranges
    values = {
        "pressure": 10 + load,
        "temperature": 40 + 6 * load + rng.normal(0, 0.1, ROWS),
        "noise": 5 + rng.normal(0, 1, ROWS),
    }
    values["temperature"][FAULT] += 4
    stream = Stream.model_validate(stream_of(channels, preset))
    made = build(detector_spec(stream))
    scorer = StreamScorer(provenance("plant", stream, made), stream, made)
    time = 1_772_409_600 * 10**9 + np.arange(ROWS) * EVERY_NS
    table = pa.table({"s": ["k1"] * ROWS, "t": time} | {name: values[name] for name in channels})
    offsets = np.arange(ROWS, dtype=np.int64)
    records = TableRecords(P, 0, ROWS, offsets, np.full(ROWS, -1, np.int64), table)
    return scorer.process([records]), scorer


def found(channels: tuple[str, ...], preset: str = "sensor") -> Anomaly:
    """Return the anomaly of ``scored``."""
    last = {one.id: one for one in scored(channels, preset)[0].anomalies}
    fault_ns = 1_772_409_600 * 10**9 + FAULT.start * EVERY_NS
    broken = [one for one in last.values() if one.cause == "relation" and one.peak_ns >= fault_ns]
    assert len(broken) == 1, [(one.cause, one.points) for one in last.values()]
    return broken[0]


@pytest.mark.parametrize("channels", [("temperature", "pressure"), ("noise", "pressure", "temperature")])
def test_partner_and_implied_value_are_those_of_the_series(channels: tuple[str, ...]) -> None:
    one = found(channels)
    context, at = one.context, int(np.argmax(one.contribution))
    assert (one.channels[at], one.direction) == ("temperature", "up")
    assert context is not None
    assert context.partner == "pressure"
    assert context.implied == pytest.approx(40 + 6 * (context.partner_value - 10), abs=0.5)
    assert context.value - context.implied == pytest.approx(4, abs=0.6)
    assert one.observed[at] > one.upper[at]  # the stated difference lies outside its usual range


def test_a_relation_of_logarithms_implies_a_value_in_units_of_the_input() -> None:
    one = found(("temperature", "pressure"), "network")
    context = one.context
    assert context is not None
    assert one.channels[int(np.argmax(one.contribution))] == "temperature"
    assert context.partner == "pressure"
    assert context.implied == pytest.approx(40 + 6 * (context.partner_value - 10), rel=0.02)
    assert context.value == pytest.approx(context.implied + 4, rel=0.02)


class Tables(list):
    """Tables in place of a writer."""

    def append(self, *batch: Any) -> None:
        super().append(batch[-1])

    def hasten(self) -> None:
        """Do nothing: nothing is written."""


def recorded(channels: tuple[str, ...], preset: str = "sensor") -> pa.Table:
    """Return the rows of ``scored`` as a file of the recorded history has them."""
    tables = Tables()
    result, scorer = scored(channels, preset)
    HistorySink(tables, scorer, None).append(result)
    return parquet.decode(pa.BufferReader(parquet.encode(tables[0])))


@pytest.mark.parametrize("preset", ["sensor", "network"])
def test_the_difference_from_the_implied_value_is_recorded_of_each_row(preset: str) -> None:
    rows = recorded(("temperature", "pressure"), preset)
    one = found(("temperature", "pressure"), preset)
    name = one.channels[one.leading_channel]
    value, off = (rows.column(f"{kind}:{name}").to_numpy() for kind in ("value", "relation"))
    at = int(np.searchsorted(rows.column("time").to_numpy(), one.peak_ns))
    assert one.context is not None
    implied = value - off if preset == "sensor" else np.expm1(np.log1p(value) - off)
    assert implied[at] == pytest.approx(one.context.implied, abs=0.004 * abs(value[at] - implied[at]))
    assert np.isnan(off[: 2 * DAY_ROWS]).all()  # the relation is not known yet
    assert np.isfinite(off[4 * DAY_ROWS :]).mean() > 0.7
    exact = scored(("temperature", "pressure"), preset)[0].scored.verdicts.relation
    np.testing.assert_allclose(off, exact[:, one.leading_channel], rtol=2**-8)
    assert not (off.view(np.uint32) & 0xFFFF).any()  # half of the bytes are 0


@pytest.mark.parametrize(
    ("channels", "preset"), [(("pressure",), "sensor"), (("temperature", "pressure"), "stock")]
)
def test_nothing_is_recorded_where_channels_imply_nothing(channels: tuple[str, ...], preset: str) -> None:
    assert not [one for one in recorded(channels, preset).column_names if one.startswith("relation:")]


def test_every_face_shows_the_partner() -> None:
    one = found(("temperature", "pressure"))
    said = relation_text(one, UNITS)
    assert said.startswith(f"beside pressure of {one.context.partner_value:.2f} bar, temperature is usually")
    assert said.endswith(f"not {one.context.value:.1f} °C")
    assert said in describe_anomaly(one, UNITS)
    assert as_dict(one)["relation"]["partner"] == "pressure"
    config = Config.model_validate({"streams": {"plant": stream_of(("temperature", "pressure"), "sensor")}})
    shown = anomaly_item(config, one).relation
    assert shown is not None
    assert (shown.channel, shown.partner, shown.text) == ("temperature", "pressure", said)
    times = (one.start_ns, one.end_ns)
    place = (one.id, "plant", "k1", MemberState.OPEN)
    member = AlertMember(one.id, *place, "major", 3.0, *times, encode_anomaly(one))
    names = ("default", "k1", "plant/k1", {})
    record = AlertRecord(one.id, "plant", AlertKind.DATA, *names, *times, one.end_ns, "major")
    record.count = 1
    settings = AlertsConfig(units=UNITS)
    behaviour = StreamRules("plant", settings, ()).behaviour("default")
    context = NotificationContext([member], 1, 1)
    alert = compose(record, "opened", 1, context, behaviour, settings, one.end_ns).data
    assert alert.anomalies[0].relation == said
    assert dict(text.lines(alert))["At the peak"] == said


def test_the_evidence_is_stored_and_read() -> None:
    one = found(("noise", "pressure", "temperature"))
    assert decode_anomaly(encode_anomaly(one)).context == one.context
    assert "and the other channels" in relation_text(one, {})
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        anomalies.upsert(connection, [one])
        assert anomalies.get(connection, str(one.id)).context == one.context


def test_other_causes_have_no_partner() -> None:
    one = found(("temperature", "pressure"))
    assert relation_text(replace(one, context=None), UNITS) == ""
    assert relation_text(replace(one, context=replace(one.context, partner=None)), UNITS) == ""
