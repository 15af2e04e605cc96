"""Which model is the champion of a stream, and the detector that it makes."""

from __future__ import annotations

from dataclasses import dataclass

from detectors import build
from detectors.artifacts import ArtifactError
from detectors.base import Detector, DetectorSpec, Limits
from pipeline.config.schema import Stream, config_hash
from pipeline.models import registry
from pipeline.scoring.provenance import Provenance
from storage.model_store import models
from storage.model_store.models import Promotion
from storage.sql.database import Database


def detector_spec(stream: Stream) -> DetectorSpec:
    """What the stream's config says about its detector."""
    limits = [stream.limits.get(channel) for channel in stream.channels]
    inf = float("inf")
    return DetectorSpec(
        tier=stream.detector,
        preset=stream.preset,
        channels=stream.channels,
        limits=tuple(
            Limits()
            if one is None
            else Limits(-inf if one.min is None else one.min, inf if one.max is None else one.max)
            for one in limits
        ),
        alarm_rate=stream.alarm_rate,
        threshold=stream.threshold,
        min_points=stream.min_points,
        direction=stream.direction,
        min_deviation=stream.min_deviation,
    )


def provenance(name: str, stream: Stream, detector: Detector, version: str | None = None) -> Provenance:
    """``version`` is that of the registry, None for what comes with forewatch."""
    model_version = detector.version if version is None else f"{detector.version}+{version}"
    return Provenance(
        name, stream.channels, stream.alarm_rate, stream.close_after, config_hash(stream), model_version
    )


@dataclass(frozen=True, slots=True)
class Champion:
    """Who decides in a stream.

    ``promotion`` is the row that says so; ``refused`` why the version that it names could not be used.
    """

    detector: Detector
    provenance: Provenance
    promotion: Promotion
    version: str | None
    refused: str | None = None


def champion_of(database: Database, name: str, stream: Stream) -> Champion:
    """The stream's detector with the weights that the newest promotion names.

    Weights that cannot be used are refused, and what decided before them goes on: in the end what comes with
    forewatch. Raises StorageUnavailable.
    """
    with database.read() as connection:
        promotion = models.champion(connection, name)
        # who was rolled back does not come back
        former = promotion.from_version if promotion.action == "promote" else None
        rows = [
            models.get(connection, version)
            for version in (promotion.to_version, former)
            if version is not None
        ]
    refused = None
    for row in rows:
        try:
            detector = build(detector_spec(stream), registry.weights_of(row.path, row.sha256))
        except ArtifactError as error:
            refused = refused or f"version {row.version} is refused: {error}"
        else:
            return Champion(
                detector, provenance(name, stream, detector, row.version), promotion, row.version, refused
            )
    detector = build(detector_spec(stream))
    return Champion(detector, provenance(name, stream, detector), promotion, None, refused)
