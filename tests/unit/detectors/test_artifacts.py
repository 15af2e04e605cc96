"""A model on disk is whole and the one that was saved, or it is refused with a message."""

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import numpy as np
import pytest

from detectors import artifacts
from detectors.artifacts import ArtifactError, Checkpoints, CorruptArtifact
from detectors.forecasters import lstm_features, shared_lstm

TENSORS = {
    "a": np.arange(12, dtype=np.float32).reshape(3, 4),
    "b": np.array(7),
    "empty": np.zeros((0, 2), np.float32),
}


@pytest.fixture
def model(tmp_path: Path) -> str:
    path = str(tmp_path / "models" / "one")
    artifacts.save(path, TENSORS, {"architecture": "lstm", "loss": 0.5})
    return path


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = str(tmp_path / "new" / "folder" / "m")
    digest = artifacts.save(path, TENSORS, {"architecture": "lstm"})
    found = artifacts.load(path, digest)
    assert found.digest == digest
    assert found.manifest["architecture"] == "lstm"
    for name, value in TENSORS.items():
        np.testing.assert_array_equal(found.tensors[name], value)
        assert found.tensors[name].shape == value.shape
        assert found.tensors[name].dtype == value.dtype
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == [
        "m.json",
        "m.safetensors",
    ]


def test_any_fsspec_path() -> None:
    digest = artifacts.save("memory://registry/m", TENSORS, {})
    assert artifacts.load("memory://registry/m", digest).tensors["a"].sum() == 66
    assert all(
        not name.endswith(".part") for name in fsspec.filesystem("memory").ls("/registry", detail=False)
    )


@pytest.mark.parametrize("keep", [0, 1, 7, 8, 20, -1])
def test_truncated_tensors_are_refused(model: str, keep: int) -> None:
    file = Path(f"{model}.safetensors")
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CorruptArtifact, match="truncated or swapped"):
        artifacts.load(model)


def test_swapped_tensors_are_refused(model: str, tmp_path: Path) -> None:
    artifacts.save(str(tmp_path / "two"), {**TENSORS, "a": TENSORS["a"] + 1}, {})
    Path(f"{model}.safetensors").write_bytes((tmp_path / "two.safetensors").read_bytes())
    with pytest.raises(CorruptArtifact, match="truncated or swapped"):
        artifacts.load(model)


def test_a_swapped_pair_is_refused_by_its_digest(tmp_path: Path) -> None:
    digest = artifacts.save(str(tmp_path / "one"), TENSORS, {})
    artifacts.save(str(tmp_path / "one"), {**TENSORS, "a": TENSORS["a"] + 1}, {})
    with pytest.raises(CorruptArtifact, match="changed after it was saved"):
        artifacts.load(str(tmp_path / "one"), digest)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[1]", "not a manifest"),
        (b'{"format": 99}', "not a manifest"),
        (b'{"format": 1}', '"tensors"'),
        (b'{"format": 1, "tensors": {"bytes": "1", "sha256": "", "shapes": {}}}', '"tensors"'),
        (b" " * (artifacts.MAX_MANIFEST_BYTES + 1), "larger than"),
    ],
)
def test_a_hostile_manifest_is_refused(model: str, text: bytes, message: str) -> None:
    Path(f"{model}.json").write_bytes(text)
    with pytest.raises(CorruptArtifact, match=message):
        artifacts.load(model)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff" * 64,  # a header of 2^64 bytes
        (8).to_bytes(8, "little") + b"notjson!",
        b"\x80\x04\x95" + b"cos\nsystem\n",  # a pickle
        (60).to_bytes(8, "little")
        + b'{"a":{"dtype":"F32","shape":[999999],"data_offsets":[0,4]}}  '
        + bytes(4),
    ],
)
def test_hostile_tensors_with_a_fitting_digest_are_refused(model: str, data: bytes) -> None:
    manifest = json.loads(Path(f"{model}.json").read_text())
    manifest["tensors"] |= {"bytes": len(data), "sha256": artifacts._sha256(data)}
    Path(f"{model}.json").write_text(json.dumps(manifest))
    Path(f"{model}.safetensors").write_bytes(data)
    with pytest.raises(CorruptArtifact, match="not a safetensors file"):
        artifacts.load(model)


def test_a_model_of_other_tensors_is_refused(model: str) -> None:
    with pytest.raises(CorruptArtifact, match=r"a \[3, 4\] instead of \[4, 3\]"):
        artifacts.expect(artifacts.load(model), {"a": [4, 3], "b": [], "empty": [0, 2]})


def test_a_missing_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"there is no file .*nothing\.json"):
        artifacts.load(str(tmp_path / "nothing"))


def test_an_unwritable_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match="cannot write"):
        artifacts.save(str(tmp_path / "file" / "m"), TENSORS, {})


def test_a_diverged_model_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="diverged"):
        artifacts.save(str(tmp_path / "m"), {"w": np.array([1.0, np.nan])}, {})
    assert not list(tmp_path.iterdir())


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path / "c"), {"seed": 1, "shape": (2, 3)})
    assert checkpoints.latest() is None
    for step in range(4):
        checkpoints.save(step, {"w": np.full(3, step)}, {"note": step})
    newest = checkpoints.latest()
    assert newest is not None
    assert newest.manifest["step"] == 3
    Path(f"{newest.path}.safetensors").write_bytes(b"half")
    before = checkpoints.latest()
    assert before is not None
    assert before.manifest["step"] == 2
    assert Checkpoints(str(tmp_path / "c"), {"seed": 2}).latest() is None


def test_the_packaged_net_is_whole_and_for_these_inputs() -> None:
    module = shared_lstm.load()
    assert sum(value.numel() for value in module.parameters()) < 30_000
    assert not any(value.requires_grad for value in module.parameters())


def test_a_net_for_other_inputs_is_refused(tmp_path: Path) -> None:
    tensors = {name: value.numpy() for name, value in shared_lstm.load().state_dict().items()}
    artifacts.save(
        str(tmp_path / "old"),
        tensors,
        {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION - 1}},
    )
    with pytest.raises(ArtifactError, match="pretrain it again"):
        shared_lstm.load(str(tmp_path / "old"))
    artifacts.save(
        str(tmp_path / "other"),
        {"w": np.zeros(3)},
        {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}},
    )
    with pytest.raises(CorruptArtifact, match="expected tensors"):
        shared_lstm.load(str(tmp_path / "other"))
