"""Model files: two for each version, on any fsspec path, written once.

The version is the beginning of the manifest's sha256, so that the row, the files and the provenance of an
anomaly name the same numbers. The table ``models`` records which versions may be used.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import numpy as np
from fsspec.core import url_to_fs
from numpy.typing import NDArray

from detectors import artifacts
from detectors.artifacts import ArtifactError
from detectors.forecasters import frozen_network, per_group_lstm, shared_lstm_numba
from detectors.sequences.detector import ARCHITECTURE, NextEventDetector
from pipeline.core.errors import InputError
from storage.model_store import jobs, models
from storage.model_store.models import ModelVersion
from storage.sql.database import Database

Weights = dict[str, NDArray[Any]]

VERSION_DIGITS = 12


def publish(
    root: str, stream: str, weights: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]
) -> tuple[str, str]:
    """Write a new version under a unique name; return its path and sha256.

    A NaN or infinite figure becomes null in the manifest. Raises ArtifactError if the path cannot be
    written, ValueError if a weight is not finite.

    Args:
        root: folder or URL of all models.
        stream: name of the stream.
        weights: tensors by name.
        manifest: plain values to store beside the weights.
    """
    path = f"{folder(root, stream)}/{uuid4().hex[:VERSION_DIGITS]}"
    return path, artifacts.save(path, weights, _json(manifest))


def _json(value: Any) -> Any:
    """Replace NaN and infinity by None, because JSON has neither."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def weights_of(path: str, sha256: str) -> Weights:
    """Read the weights of a version.

    They are those of the shared LSTM, or of a network of the stream. Raises ArtifactError if the files are
    missing, truncated, swapped, hostile or made for other inputs.
    """
    if manifest_of(path, sha256).get("architecture") == frozen_network.ARCHITECTURE:
        return frozen_network.read(path, sha256)
    return shared_lstm_numba.read(path, sha256)


def manifest_of(path: str, sha256: str | None = None) -> dict[str, Any]:
    """Read the manifest of a version. Raises ArtifactError."""
    return artifacts.load(path, sha256).manifest


def folder(root: str, stream: str) -> str:
    """Return the folder of a stream's versions."""
    return f"{root.rstrip('/')}/{quote(stream, safe='').replace('.', '%2E')}"


def copy_version(source: str, target: str, sha256: str | None = None) -> str:
    """Copy a whole version (a path without its ending); return its unchanged sha256.

    Raises InputError if the version is not whole.
    """
    try:
        saved = artifacts.load(source, sha256)
        about = {name: value for name, value in saved.manifest.items() if name not in ("format", "tensors")}
        return artifacts.save(target, saved.tensors, about)
    except ArtifactError as error:
        raise InputError(str(error)) from None


def require_usable(model: ModelVersion) -> None:
    """Check the files of a version.

    Raises InputError if they were changed, or made for other inputs.
    """
    try:
        if manifest_of(model.path, model.sha256).get("architecture") == ARCHITECTURE:
            NextEventDetector.load(model.path, model.sha256)
        else:
            weights_of(model.path, model.sha256)
    except ArtifactError as error:
        raise InputError(f"version {model.version} cannot be used: {error}") from None


def import_version(source: str, root: str, stream: str, author: str, now_ns: int) -> ModelVersion:
    """Copy a version from ``source`` into the registry and return its row.

    Raises InputError if it cannot be used.

    Args:
        source: path or URL of the version, without its ending.
        root: folder or URL of all models.
        stream: name of the stream.
        author: the person who imports it.
        now_ns: current time.
    """
    path = f"{folder(root, stream)}/{uuid4().hex[:VERSION_DIGITS]}"
    sha256 = copy_version(source, path)
    model = ModelVersion(
        sha256[:VERSION_DIGITS],
        stream,
        path,
        sha256,
        "candidate",
        None,
        author,
        now_ns,
        now_ns,
        f"imported from {source}",
    )
    try:
        require_usable(model)
    except InputError:
        delete_files(model)
        raise
    return model


def weight_distances(one: tuple[str, str], other: tuple[str, str]) -> dict[str, float]:
    """Return the relative distance of each tensor that two versions share.

    These are those of the shared LSTM, or of two networks of the same form. A version is a pair of path and
    sha256. Raises InputError.
    """
    try:
        left, right = weights_of(*one), weights_of(*other)
    except ArtifactError as error:
        raise InputError(str(error)) from None
    pairs = {
        name: (value, right[name])
        for name, value in per_group_lstm.without(left).items()
        if name in right and value.dtype.kind == "f" and value.shape == right[name].shape
    }
    return {
        name: float(np.linalg.norm(b - a)) / max(1e-12, float(np.linalg.norm(a)))
        for name, (a, b) in pairs.items()
    }


def remove_unneeded_versions(database: Database, root: str, streams: Iterable[str], keep: int) -> int:
    """Remove versions that are no longer needed; return their number.

    Rows go first, then files. Checkpoints of jobs without a row go too. Raises StorageUnavailable, OSError.

    Args:
        database: the database.
        root: folder or URL of all models.
        streams: names of the streams.
        keep: number of newest versions that stay.
    """
    count = 0
    for stream in streams:
        with database.begin() as connection:
            gone = models.removable_versions(connection, stream, keep)
            for model in gone:
                models.remove(connection, model.version)
        for model in gone:
            if model.path.startswith(folder(root, stream)):  # files elsewhere stay
                delete_files(model)
        count += len(gone)
        _remove_old_checkpoints(database, f"{folder(root, stream)}/checkpoints")
    return count


def _remove_old_checkpoints(database: Database, path: str) -> None:
    fs, name = url_to_fs(path)
    with suppress(FileNotFoundError):
        left = {
            int(last): one
            for one in fs.ls(name, detail=False)
            if (last := one.rstrip("/").rsplit("/", 1)[-1]).isdigit()
        }
        with database.read() as connection:
            gone = left.keys() - jobs.existing(connection, list(left))
        for number in gone:
            remove_checkpoints(f"{path}/{number}")


def delete_files(model: ModelVersion) -> None:
    """Remove the files of a version; missing ones are ignored. Raises OSError."""
    for ending in ("json", "safetensors"):
        fs, name = url_to_fs(f"{model.path}.{ending}")
        with suppress(FileNotFoundError):
            fs.rm(name)


def remove_checkpoints(path: str) -> None:
    """Remove the checkpoints of a training."""
    fs, name = url_to_fs(path)
    with suppress(OSError):
        fs.rm(name, recursive=True)
