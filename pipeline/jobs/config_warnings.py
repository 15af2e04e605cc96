"""Warnings about a valid config: what cannot work here, or is not safe."""

from __future__ import annotations

from pipeline.alerts.routing.unknown_labels import unknown_label_warnings
from pipeline.config.schema import Config
from pipeline.core.extras import missing_for_training
from pipeline.services.safety import safety_warnings


def config_warnings(config: Config) -> list[str]:
    """Return what is valid but cannot work with this installation, or is not safe."""
    return [*_training_warnings(config), *unknown_label_warnings(config), *safety_warnings(config)]


def _training_warnings(config: Config) -> list[str]:
    """Return what the installation lacks for the training of the streams."""
    lacks = missing_for_training(on_this_machine=config.cluster.scheduler is None)
    if lacks is None:
        return []
    from pipeline.jobs.requests import trainable  # loads the detectors

    wanted = [
        name
        for name, stream in config.streams.items()
        if trainable(stream)
        and (
            stream.retraining.schedule is not None
            or stream.retraining.on_drift
            or stream.warm_start is not None
        )
    ]
    return [
        f"streams.{name}.retraining: {lacks}; until then the stream is scored by the weights that it has"
        for name in wanted
    ]
