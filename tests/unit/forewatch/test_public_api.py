"""The public API: every name exists, is documented, and costs nothing before it is used."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import forewatch
from pipeline.services.dataframe import detect


@pytest.mark.parametrize("name", [name for name in forewatch.__all__ if name != "__version__"])
def test_every_public_name_exists_and_is_documented(name: str) -> None:
    assert getattr(forewatch, name).__doc__


def test_detect_is_the_one_that_the_daemon_shares() -> None:
    assert forewatch.detect is detect


def test_the_version_is_that_of_the_distribution() -> None:
    assert forewatch.__version__ == version("forewatch")


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = forewatch.nothing


def test_importing_the_package_does_not_import_what_is_slow() -> None:
    code = (
        "import sys, forewatch; slow = {'torch', 'pandas', 'numba', 'pydantic', 'sqlalchemy'} & set(sys.modules); "
        "sys.exit(', '.join(slow) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
