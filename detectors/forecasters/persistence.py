"""Saving and loading of forecasters: registered name, config and weights.

A file cannot choose code: only names of the registry are built.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import torch

from detectors import artifacts
from detectors.forecasters import FORECASTER_REGISTRY, build
from detectors.forecasters.base import Forecaster

# Limits of a config that is loaded; a larger one does not come from ``save``.
MAX_CONFIG_SIZE = 10_000
MAX_LAYERS = 32


def save(path: str, forecaster: Forecaster, about: Mapping[str, Any]) -> str:
    """Write the forecaster and return the digest of its files.

    ``about`` (JSON: metrics, scaler, training range …) becomes part of the manifest. Raises ArtifactError.
    """
    tensors = {name: value.detach().cpu().numpy() for name, value in forecaster.state_dict().items()}
    return artifacts.save(
        path,
        tensors,
        {**about, "architecture": registered_name(forecaster), "config": asdict(forecaster.config)},
    )


def load(path: str, digest: str | None = None) -> tuple[Forecaster, dict[str, Any]]:
    """Return the forecaster at ``path`` and its manifest.

    Raises ArtifactError, and CorruptArtifact for files that do not hold a registered forecaster.
    """
    saved = artifacts.load(path, digest)
    name, config = saved.manifest.get("architecture"), saved.manifest.get("config")
    if name not in FORECASTER_REGISTRY or not isinstance(config, dict):
        raise artifacts.CorruptArtifact(
            f"{path}.json names an unknown forecaster ({name!r}); there are {', '.join(FORECASTER_REGISTRY)}"
        )
    sizes = {key: value for key, value in config.items() if isinstance(value, int) and key != "seed"}
    if any(abs(value) > (MAX_LAYERS if key == "layers" else MAX_CONFIG_SIZE) for key, value in sizes.items()):
        raise artifacts.CorruptArtifact(
            f"{path}.json has a size over {MAX_CONFIG_SIZE}, or more than {MAX_LAYERS} layers: {sizes}"
        )
    try:
        with torch.device("meta"):  # shapes only: no memory is allocated
            shapes = {key: list(value.shape) for key, value in build(name, **config).state_dict().items()}
    except (ValueError, TypeError, RuntimeError) as error:
        raise artifacts.CorruptArtifact(
            f"{path}.json has a config that {name} does not support: {error}"
        ) from error
    artifacts.expect(saved, shapes)
    forecaster = build(name, **config)
    forecaster.load_state_dict({key: torch.from_numpy(value) for key, value in saved.tensors.items()})
    return forecaster.eval(), saved.manifest


def registered_name(forecaster: Forecaster) -> str:
    """Return the registered name of the class of a forecaster."""
    return next(
        name for name, (_, attribute) in FORECASTER_REGISTRY.items() if attribute == type(forecaster).__name__
    )
