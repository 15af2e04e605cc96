"""Model files: two for each version, on any fsspec path, written once and never changed. Who may be used is a
row of ``models``.

The version is the beginning of the manifest's sha256, so the row, the files and the provenance of an anomaly
name exactly the same numbers.
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
from detectors.forecasters import per_group_lstm, shared_lstm_numba
from pipeline.core.errors import InputError
from storage.model_store import jobs, models
from storage.model_store.models import Model
from storage.sql.database import Database

Weights = dict[str, NDArray[Any]]

DIGITS = 12


def publish(
    root: str, stream: str, weights: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]
) -> tuple[str, str]:
    """Write a new version under a name that nobody else writes to; its path and sha256. A figure that is no
    number is null in the manifest.

    Raises ArtifactError where the path cannot be written, ValueError where a weight is not finite.
    """
    path = f"{folder(root, stream)}/{uuid4().hex[:DIGITS]}"
    return path, artifacts.save(path, weights, _json(manifest))


def _json(value: Any) -> Any:
    """JSON has no NaN (the gradient of a training that went on after its last epoch, say)."""
    if isinstance(value, Mapping):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def weights_of(path: str, sha256: str) -> Weights:
    """The weights of a version.

    Raises ArtifactError: not there, truncated, swapped, hostile, or made for other inputs.
    """
    return shared_lstm_numba.read(path, sha256)


def manifest_of(path: str, sha256: str | None = None) -> dict[str, Any]:
    """What is written beside the weights. Raises ArtifactError."""
    return artifacts.load(path, sha256).manifest


def folder(root: str, stream: str) -> str:
    """Where the versions of a stream lie."""
    return f"{root.rstrip('/')}/{quote(stream, safe='').replace('.', '%2E')}"


def copied(source: str, target: str, sha256: str | None = None) -> str:
    """Bring a whole version (a path without its ending) elsewhere; its sha256, which stays the same.

    Raises InputError where it is not whole.
    """
    try:
        saved = artifacts.load(source, sha256)
        about = {name: value for name, value in saved.manifest.items() if name not in ("format", "tensors")}
        return artifacts.save(target, saved.tensors, about)
    except ArtifactError as error:
        raise InputError(str(error)) from None


def usable(model: Model) -> None:
    """Raises InputError where the files of a version are not what they were, or not for us."""
    try:
        weights_of(model.path, model.sha256)
    except ArtifactError as error:
        raise InputError(f"version {model.version} cannot be used: {error}") from None


def imported(source: str, root: str, stream: str, author: str, now_ns: int) -> Model:
    """Copy a version from ``source`` into the registry; the row for it.

    Raises InputError where it cannot be used.
    """
    path = f"{folder(root, stream)}/{uuid4().hex[:DIGITS]}"
    sha256 = copied(source, path)
    model = Model(
        sha256[:DIGITS],
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
        usable(model)
    except InputError:
        delete(model)
        raise
    return model


def distance(one: tuple[str, str], other: tuple[str, str]) -> dict[str, float]:
    """How far each tensor of the shared LSTMs of two versions (path, sha256) lies apart, relative to its
    size. Raises InputError.
    """
    try:
        left, right = weights_of(*one), weights_of(*other)
    except ArtifactError as error:
        raise InputError(str(error)) from None
    pairs = {name: (value, right[name]) for name, value in per_group_lstm.without(left).items()}
    return {
        name: float(np.linalg.norm(b - a)) / max(1e-12, float(np.linalg.norm(a)))
        for name, (a, b) in pairs.items()
    }


def tidy(database: Database, root: str, streams: Iterable[str], keep: int) -> int:
    """Remove versions that nothing needs any more: rows, then files; returns how many. Also checkpoints of
    trainings that nobody can ask for again.

    Raises StorageUnavailable, OSError.
    """
    count = 0
    for stream in streams:
        with database.begin() as connection:
            gone = models.expendable(connection, stream, keep)
            for model in gone:
                models.remove(connection, model.version)
        for model in gone:
            if model.path.startswith(folder(root, stream)):  # what lies elsewhere is not ours to delete
                delete(model)
        count += len(gone)
        _sweep(database, f"{folder(root, stream)}/checkpoints")
    return count


def _sweep(database: Database, path: str) -> None:
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
            forget_checkpoints(f"{path}/{number}")


def delete(model: Model) -> None:
    """Remove the files of a version; those that are gone already do not matter. Raises OSError."""
    for ending in ("json", "safetensors"):
        fs, name = url_to_fs(f"{model.path}.{ending}")
        with suppress(FileNotFoundError):
            fs.rm(name)


def forget_checkpoints(path: str) -> None:
    """Remove what a training left to go on from."""
    fs, name = url_to_fs(path)
    with suppress(OSError):
        fs.rm(name, recursive=True)
