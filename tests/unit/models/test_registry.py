"""Versions in the registry: written whole, named by their content, never a number that is none."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from detectors.artifacts import ArtifactError
from detectors.forecasters import lstm_features, shared_lstm
from pipeline.core.errors import InputError
from pipeline.models import registry

ABOUT = {"architecture": "shared_lstm", "features": {"version": lstm_features.VERSION}}


@pytest.fixture(scope="module")
def weights():
    return {name: value.numpy() for name, value in shared_lstm.load().state_dict().items()}


def test_a_version_comes_back_as_it_was_published(tmp_path: Path, weights):
    path, sha256 = registry.publish(str(tmp_path), "plant/a.b", weights, ABOUT)
    assert path.startswith(f"{tmp_path}/plant%2Fa%2Eb/"), "a stream's name cannot lead out of the registry"
    found = registry.weights_of(path, sha256)
    assert all((found[name] == value).all() for name, value in weights.items())
    assert registry.publish(str(tmp_path), "plant/a.b", weights, ABOUT)[0] != path, (
        "nothing is ever written over"
    )
    with pytest.raises(ArtifactError, match="changed after it was saved"):
        registry.weights_of(path, "0" * 64)


def test_figures_that_are_no_numbers_are_null(tmp_path: Path, weights):
    metrics = {"gradient": {"median_norm": math.nan}, "losses": [1.0, math.inf], "lanes": (3, 4)}
    path, sha256 = registry.publish(str(tmp_path), "plant", weights, ABOUT | {"metrics": metrics})
    assert registry.manifest_of(path, sha256)["metrics"] == {
        "gradient": {"median_norm": None},
        "losses": [1.0, None],
        "lanes": [3, 4],
    }


def test_a_copy_has_the_same_name(tmp_path: Path, weights):
    path, sha256 = registry.publish("memory://registry", "plant", weights, ABOUT)
    assert registry.copy_version(path, str(tmp_path / "copy"), sha256) == sha256
    assert registry.weight_distances((path, sha256), (str(tmp_path / "copy"), sha256)) == pytest.approx(
        dict.fromkeys(weights, 0.0)
    )


def test_a_model_for_something_else_is_not_imported(tmp_path: Path, weights):
    path, _ = registry.publish(str(tmp_path), "plant", weights, {"architecture": "gru"})
    with pytest.raises(InputError, match="not a shared_lstm"):
        registry.import_version(path, str(tmp_path / "models"), "plant", "ada", 1)
    assert list((tmp_path / "models" / "plant").iterdir()) == [], "nothing of it stays"
