"""A forecaster to disk and back: its registered name, its config and its weights; nothing in a file chooses
code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from detectors import artifacts
from detectors.forecasters import FORECASTERS, build
from detectors.forecasters.base import Forecaster

LARGEST = 10_000  # of any size in a config; more is no forecaster of ours
DEEPEST = 32  # layers


def save(path: str, forecaster: Forecaster, about: Mapping[str, Any]) -> str:
    """Write the forecaster with ``about`` (JSON: metrics, scaler, training range …) beside it; returns the
    digest. Raises ArtifactError.
    """
    tensors = {name: value.detach().cpu().numpy() for name, value in forecaster.state_dict().items()}
    return artifacts.save(
        path, tensors, {**about, "architecture": name_of(forecaster), "config": asdict(forecaster.config)}
    )


def load(path: str, digest: str | None = None) -> tuple[Forecaster, dict[str, Any]]:
    """The forecaster and its manifest.

    Raises ArtifactError, CorruptArtifact for files that do not hold one of our forecasters.
    """
    saved = artifacts.load(path, digest)
    name, config = saved.manifest.get("architecture"), saved.manifest.get("config")
    if name not in FORECASTERS or not isinstance(config, dict):
        raise artifacts.CorruptArtifact(
            f"{path}.json names no forecaster of ours ({name!r}); there are {', '.join(FORECASTERS)}"
        )
    sizes = {key: value for key, value in config.items() if isinstance(value, int) and key != "seed"}
    if any(abs(value) > (DEEPEST if key == "layers" else LARGEST) for key, value in sizes.items()):
        raise artifacts.CorruptArtifact(
            f"{path}.json asks for a forecaster larger than {LARGEST} in some direction, or {DEEPEST} layers: {sizes}"
        )
    try:
        with torch.device("meta"):  # shapes only, no memory, whatever the file asks for
            shapes = {key: list(value.shape) for key, value in build(name, **config).state_dict().items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise artifacts.CorruptArtifact(
            f"{path}.json has a config that {name} cannot have: {error}"
        ) from error
    artifacts.expect(saved, shapes)
    forecaster = build(name, **config)
    forecaster.load_state_dict({key: torch.from_numpy(value) for key, value in saved.tensors.items()})
    return forecaster.eval(), saved.manifest


def name_of(forecaster: Forecaster) -> str:
    """The registered name of a forecaster's class."""
    return next(
        name for name, (_, attribute) in FORECASTERS.items() if attribute == type(forecaster).__name__
    )
