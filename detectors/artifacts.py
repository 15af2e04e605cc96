"""A trained model as two plain files on any fsspec path; never pickle.

NAME.safetensors holds the tensors, NAME.json the manifest.

    ArtifactError            cannot be read or written: the path, and what to do
    └── CorruptArtifact      truncated, swapped or hostile: refused before a byte of it is used

The manifest is written last and holds the sha256 of the tensors, so a reader sees a whole model or an error.
``save`` returns the sha256 of the manifest, which identifies the model. ``load`` checks it and so detects any
change of either file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import fsspec
import numpy as np
from fsspec.implementations.local import LocalFileSystem
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as parse
from safetensors.numpy import save as serialise

FORMAT: Final = 1
MAX_TENSOR_BYTES: Final = 1 << 30  # bytes; larger tensors are refused before they are read
MAX_MANIFEST_BYTES: Final = 1 << 22

Arrays = dict[str, NDArray[Any]]


class ArtifactError(Exception):
    """A model that cannot be read or written."""


class CorruptArtifact(ArtifactError):
    """A model whose files are not what they were when they were saved."""


@dataclass(frozen=True, slots=True)
class Artifact:
    """A model as it was saved to ``path``: ``tensors`` by name, the ``manifest``, and ``digest``, the sha256
    of the manifest file.
    """

    path: str
    tensors: Arrays
    manifest: dict[str, Any]
    digest: str


def save(path: str, tensors: Mapping[str, NDArray[Any]], manifest: Mapping[str, Any]) -> str:
    """Write ``path``.safetensors, then ``path``.json; return the digest.

    Raises ArtifactError if the path cannot be written, ValueError if a tensor is not finite or the manifest
    is not JSON.
    """
    for name, value in tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise ValueError(
                f"tensor {name} of {path} holds NaN or infinity: this model diverged and is not worth saving"
            )
    data = serialise({name: np.asarray(value, order="C") for name, value in tensors.items()})
    content = {
        "format": FORMAT,
        **manifest,
        "tensors": {"bytes": len(data), "sha256": _sha256(data), "shapes": _shapes(tensors)},
    }
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False).encode()
    _write(f"{path}.safetensors", data)
    _write(f"{path}.json", text)
    return _sha256(text)


def load(path: str, digest: str | None = None) -> Artifact:
    """Read and check ``path``.json and ``path``.safetensors.

    ``digest`` is the value that ``save`` returned. Raises CorruptArtifact if the files were changed,
    ArtifactError if they cannot be read.
    """
    text = _read(f"{path}.json", MAX_MANIFEST_BYTES)
    if digest is not None and _sha256(text) != digest:
        raise CorruptArtifact(
            f"{path}.json has sha256 {_sha256(text)}, not {digest}: it was changed after it was saved; restore it or train again"
        )
    manifest = _manifest(path, text)
    about = manifest["tensors"]
    data = _read(f"{path}.safetensors", MAX_TENSOR_BYTES)
    if len(data) != about["bytes"] or _sha256(data) != about["sha256"]:
        raise CorruptArtifact(
            f"{path}.safetensors has {len(data)} bytes with sha256 {_sha256(data)[:12]}…, but its manifest says {about['bytes']} bytes with "
            f"{about['sha256'][:12]}…: truncated or swapped; restore it or train again"
        )
    try:
        tensors = parse(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise CorruptArtifact(f"{path}.safetensors is not a safetensors file: {error}") from error
    artifact = Artifact(path, tensors, manifest, _sha256(text))
    expect(artifact, about["shapes"])
    return artifact


def expect(artifact: Artifact, shapes: Mapping[str, Any]) -> None:
    """Check that the tensors are finite and have the ``shapes`` (name → lengths).

    Raises CorruptArtifact.
    """
    found, path = _shapes(artifact.tensors), artifact.path
    if found != dict(shapes):
        wrong = sorted(name for name in {*found, *shapes} if found.get(name) != shapes.get(name))
        what = ", ".join(
            f"{name} {found.get(name, 'is missing')} instead of {shapes.get(name, 'nothing')}"
            for name in wrong[:3]
        )
        raise CorruptArtifact(f"{path}.safetensors does not hold the expected tensors: {what}")
    for name, value in artifact.tensors.items():
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise CorruptArtifact(
                f"tensor {name} of {path}.safetensors holds NaN or infinity: this model cannot be used"
            )


class Checkpoints:
    """The last two states of one training; a kill during a write leaves the other one."""

    def __init__(self, path: str, recipe: Mapping[str, Any]) -> None:
        self.path, self.recipe = path, json.loads(json.dumps(recipe))

    def save(self, step: int, tensors: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        save(f"{self.path}-{step % 2}", tensors, {**about, "step": step, "recipe": self.recipe})

    def latest(self) -> Artifact | None:
        """Return the newest whole state of a training with this recipe, or None."""
        found = []
        for name in (f"{self.path}-0", f"{self.path}-1"):
            with suppress(ArtifactError):
                found.append(load(name))
        mine = [saved for saved in found if saved.manifest.get("recipe") == self.recipe]
        return max(mine, key=lambda saved: int(saved.manifest["step"]), default=None)


def _manifest(path: str, text: bytes) -> dict[str, Any]:
    try:
        manifest = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CorruptArtifact(f"{path}.json is not JSON ({error}): truncated or not a manifest") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise CorruptArtifact(
            f"{path}.json is not a manifest of format {FORMAT}: it was written by another version or is no manifest at all"
        )
    about = manifest.get("tensors")
    kinds = {"bytes": int, "sha256": str, "shapes": dict}
    if not isinstance(about, dict) or any(
        not isinstance(about.get(key), kind) for key, kind in kinds.items()
    ):
        raise CorruptArtifact(
            f'{path}.json has no whole "tensors" entry (bytes, sha256, shapes): restore it or train again'
        )
    return manifest


def _shapes(tensors: Mapping[str, NDArray[Any]]) -> dict[str, list[int]]:
    return {name: list(value.shape) for name, value in tensors.items()}


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _read(path: str, most: int) -> bytes:
    try:
        with fsspec.open(path, "rb") as file:
            data: bytes = file.read(most + 1)
    except FileNotFoundError as error:
        raise ArtifactError(
            f"there is no file {path}: a version is two files, NAME.json and NAME.safetensors"
        ) from error
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError(f"cannot read {path}: {error}") from error
    if len(data) > most:
        raise CorruptArtifact(f"{path} is larger than {most} bytes: not a model of ours")
    return data


def _write(path: str, data: bytes) -> None:
    """Write under a temporary name, then rename: a file appears whole or not at all."""
    try:
        fs, name = fsspec.core.url_to_fs(path)
        local = isinstance(fs, LocalFileSystem)
        if local:
            _make_private_folder(Path(fs._parent(name)))
        else:
            fs.makedirs(fs._parent(name), exist_ok=True)
        part = f"{name}.{uuid4().hex}.part"
        try:
            if local:
                with open(part, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                    file.write(data)
            else:
                fs.pipe_file(part, data)
            fs.mv(part, name)
        except BaseException:
            with suppress(OSError):
                fs.rm(part)
            raise
    except (OSError, ValueError, ImportError) as error:
        raise ArtifactError(
            f"cannot write {path}: {error}; check that the folder may be written and has room"
        ) from error


def _make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents with mode 0700; those that exist keep their mode."""
    if not folder.exists():
        _make_private_folder(folder.parent)
        with suppress(FileExistsError):  # another process was faster
            folder.mkdir(mode=0o700)
            folder.chmod(0o700)
