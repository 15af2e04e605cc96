"""The champion of a stream, and the detector that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from detectors import build
from detectors.artifacts import ArtifactError
from detectors.base import Detector, DetectorSpec, Limits, states_usual_ranges
from detectors.forecasters.network_spec import NetworkSpec, with_inputs
from detectors.sequences.detector import NextEventDetector
from detectors.sequences.stream_detector import EventStreamDetector
from detectors.stages.stock_channels import price_channels
from pipeline.config.schema import Stream
from pipeline.config.stream_hash import config_hash
from pipeline.models import registry
from pipeline.scoring.provenance import Provenance
from storage.model_store import models
from storage.model_store.models import Promotion, PromotionAction
from storage.sql.database import Database


def detector_spec(stream: Stream) -> DetectorSpec:
    """Return the detector's specification from the config of a stream."""
    limits = [stream.limits.get(channel) for channel in stream.channels]
    inf = float("inf")
    return DetectorSpec(
        tier="events" if stream.of_events else stream.detector,
        preset=stream.preset,
        channels=stream.channels,
        limits=tuple(
            Limits()
            if one is None
            else Limits(-inf if one.min is None else one.min, inf if one.max is None else one.max)
            for one in limits
        ),
        alarm_rate=stream.target_alarm_rate,
        threshold=stream.threshold,
        min_points=stream.min_points,
        direction=stream.direction,
        min_deviation=stream.min_deviation,
        decision=stream.decision,
        interval=stream.interval,
        timezone=stream.local_timezone if stream.decision == "usual_range" else "",
        holidays=(stream.holidays or "") if stream.decision == "usual_range" else "",
    )


def network_of(stream: Stream) -> NetworkSpec | None:
    """Return the network of a stream's training jobs, None for the packaged LSTM."""
    if stream.forecaster is None:
        return None
    return with_inputs(
        stream.forecaster.spec, stream.forecaster.inputs, stream.local_timezone, stream.holidays or ""
    )


def provenance(name: str, stream: Stream, detector: Detector, version: str | None = None) -> Provenance:
    """Return the provenance of verdicts.

    Args:
        name: name of the stream.
        stream: config of the stream.
        detector: the detector.
        version: version in the registry; None for the packaged weights.
    """
    model_version = detector.version if version is None else f"{detector.version}+{version}"
    return Provenance(
        name,
        stream.channels,
        stream.target_alarm_rate,
        NEVER_BY_ROWS if stream.of_events and stream.event_settings.sessions else stream.close_after,
        config_hash(stream),
        model_version,
        stream.decision if states_usual_ranges(detector) else "surprise",
        relative_changes=stream.preset != "sensor",
        kinds=_kinds(stream),
    )


def _kinds(stream: Stream) -> tuple[str, ...]:
    """Return what each channel is: measurement, count, price or volume."""
    if stream.preset != "stock":
        return ("measurement" if stream.preset == "sensor" else "count",) * len(stream.channels)
    return tuple("price" if price else "volume" for price in price_channels(stream.channels))


#: Rows after which an anomaly closes where only the end of its session closes it.
NEVER_BY_ROWS = 1 << 40


@dataclass(frozen=True, slots=True)
class Champion:
    """The detector of a stream's champion.

    ``promotion`` is the row that names it. ``refused`` is the reason why the named version cannot be
    used.
    """

    detector: Detector
    provenance: Provenance
    promotion: Promotion
    version: str | None
    refused: str | None = None


def _build(stream: Stream, path: str, sha256: str) -> Detector:
    """Build the detector of a version. Raises ArtifactError."""
    if not stream.of_events:
        return build(detector_spec(stream), registry.weights_of(path, sha256))
    return event_detector(stream, NextEventDetector.load(path, sha256))


def event_detector(stream: Stream, model: NextEventDetector | None) -> EventStreamDetector:
    """Build the detector of a stream of events."""
    return EventStreamDetector(detector_spec(stream), model, stream.event_settings.top_k)


def _build_packaged(stream: Stream) -> tuple[Detector, str | None]:
    """Build the detector of a stream without a version.

    Also return the reason why ``events.model`` is not used.
    """
    if not stream.of_events:
        return build(detector_spec(stream)), None
    model, path = None, stream.event_settings.model
    if path is not None:
        try:
            model = NextEventDetector.load(str(path))
        except ArtifactError as error:
            return event_detector(stream, None), f"events.model is refused: {error}"
    return event_detector(stream, model), None


def champion_of(database: Database, name: str, stream: Stream) -> Champion:
    """Build the stream's detector with the weights that the newest promotion names.

    Weights that cannot be used are refused. The previous champion then stays, or the packaged weights.
    Raises StorageUnavailable.
    """
    with database.read() as connection:
        promotion = models.current_champion(connection, name)
        # A version that was rolled back is not used again.
        former = promotion.from_version if promotion.action == PromotionAction.PROMOTE else None
        rows = [
            models.get(connection, version)
            for version in (promotion.to_version, former)
            if version is not None
        ]
    refused = None
    for row in rows:
        try:
            detector = _build(stream, row.path, row.sha256)
        except ArtifactError as error:
            refused = refused or f"version {row.version} is refused: {error}"
        else:
            return Champion(
                detector, provenance(name, stream, detector, row.version), promotion, row.version, refused
            )
    detector, more = _build_packaged(stream)
    refused = refused or more
    return Champion(detector, provenance(name, stream, detector), promotion, None, refused)
